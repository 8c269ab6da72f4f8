//! `store.usage`

use super::model_list::problem;
use super::{Daemon, Handled, blocking};
use crate::listen::Caller;
use hearth_protocol::{Amount, Empty, FolderUsage, ModelUsage, StoreUsage, StoreUsageMethod};
use std::sync::Arc;

pub(super) async fn handle(
    daemon: Arc<Daemon>,
    _: Caller,
    Empty {}: Empty,
) -> Handled<StoreUsageMethod> {
    let store = Arc::clone(&daemon.store);
    let usage = blocking(move || store.usage()).await?;
    let model_usage = |model: hearth_store::ModelUsage| ModelUsage {
        name: model.name.to_string(),
        size_bytes: model.size,
        own_bytes: model.own,
        shared_bytes: model.shared,
        linked_bytes: model.linked,
    };
    Ok(StoreUsage {
        stores: vec![FolderUsage {
            path: daemon.store.dir().display().to_string(),
            models: usage.models.into_iter().map(model_usage).collect(),
            total: amount(usage.total),
            unreferenced: amount(usage.unreferenced),
            unfinished: amount(usage.unfinished),
            problems: usage.problems.iter().map(problem).collect(),
        }],
    })
}

pub(super) fn amount(amount: hearth_store::Amount) -> Amount {
    Amount { files: amount.n_files, bytes: amount.bytes }
}
