//! `store.usage`

use super::model_list::problem;
use super::{Daemon, Handled, blocking};
use crate::listen::Caller;
use hearth_protocol::{Amount, Empty, FolderUsage, ModelUsage, StoreUsage, StoreUsageMethod};
use hearth_store::{Problem, Store, StoreError, Usage};
use std::path::PathBuf;
use std::sync::Arc;

pub(super) async fn handle(
    daemon: Arc<Daemon>,
    _: Caller,
    Empty {}: Empty,
) -> Handled<StoreUsageMethod> {
    let stores = Arc::clone(&daemon.stores);
    let usages = blocking(move || Ok(stores.each(Store::usage))).await?;
    let model_usage = |model: hearth_store::ModelUsage| ModelUsage {
        name: model.name.to_string(),
        size_bytes: model.size,
        own_bytes: model.own,
        shared_bytes: model.shared,
        linked_bytes: model.linked,
    };
    let folder_usage = |(dir, usage): (PathBuf, Result<Usage, StoreError>)| {
        let usage = usage.unwrap_or_else(|error| {
            let problems = vec![Problem { path: dir.clone(), error }];
            Usage { problems, ..Usage::default() }
        });
        FolderUsage {
            path: dir.display().to_string(),
            read_only: dir != daemon.store.dir(),
            models: usage.models.into_iter().map(model_usage).collect(),
            total: amount(usage.total),
            unreferenced: amount(usage.unreferenced),
            unfinished: amount(usage.unfinished),
            problems: usage.problems.iter().map(problem).collect(),
        }
    };
    Ok(StoreUsage { stores: usages.into_iter().map(folder_usage).collect() })
}

pub(super) fn amount(amount: hearth_store::Amount) -> Amount {
    Amount { files: amount.n_files, bytes: amount.bytes }
}
