//! `model.list`

use super::{Daemon, Handled, blocking};
use crate::listen::Caller;
use hearth_protocol::{Empty, ModelList, ModelListMethod, ModelProblem, ModelSummary};
use hearth_store::{Digest, ModelConfig, ModelEntry, ModelName, Problem};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

pub(crate) async fn handle(
    daemon: Arc<Daemon>,
    _: Caller,
    Empty {}: Empty,
) -> Handled<ModelListMethod> {
    let stores = Arc::clone(&daemon.stores);
    let list = blocking(move || Ok(stores.list())).await?;
    let summary = |entry: &ModelEntry| {
        let ModelEntry { name, store, id, size, modified, config } = entry;
        summary(name, store, id, *size, *modified, config)
    };
    Ok(ModelList {
        models: list.models.iter().map(summary).collect(),
        shadowed: list.shadowed.iter().map(summary).collect(),
        stores: daemon.stores.dirs().map(|dir| dir.display().to_string()).collect(),
        problems: list.problems.iter().map(problem).collect(),
    })
}

pub(super) fn problem(problem: &Problem) -> ModelProblem {
    ModelProblem { path: problem.path.display().to_string(), message: problem.error.to_string() }
}

pub(super) fn summary(
    name: &ModelName,
    store: &Path,
    id: &Digest,
    size_bytes: u64,
    modified: SystemTime,
    config: &ModelConfig,
) -> ModelSummary {
    ModelSummary {
        name: name.to_string(),
        store: store.display().to_string(),
        id: id.hex(),
        size_bytes,
        modified_s: modified
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
        family: config.family.clone(),
        parameter_size: config.parameter_size.clone(),
        quantization: config.quantization.clone(),
    }
}
