//! `store.prune`

use super::model_list::problem;
use super::store_usage::amount;
use super::{Daemon, Handled, blocking};
use crate::listen::Caller;
use hearth_protocol::{PruneParams, Pruned, PrunedFile, StorePrune};
use std::sync::Arc;

pub(super) async fn handle(
    daemon: Arc<Daemon>,
    _: Caller,
    PruneParams { dry_run }: PruneParams,
) -> Handled<StorePrune> {
    let store = Arc::clone(&daemon.store);
    let pruned = blocking(move || store.prune(dry_run)).await?;
    let freed_bytes = pruned.removed.iter().map(|removed| removed.bytes).sum();
    if !dry_run {
        tracing::info!(files = pruned.removed.len(), freed = freed_bytes, "Store pruned");
    }
    let removed = pruned.removed.iter().map(|removed| PrunedFile {
        path: removed.path.display().to_string(),
        size_bytes: removed.bytes,
        unfinished: removed.is_unfinished,
    });
    Ok(Pruned {
        removed: removed.collect(),
        freed_bytes,
        spared: amount(pruned.spared),
        problem: pruned.problem.as_ref().map(problem),
    })
}
