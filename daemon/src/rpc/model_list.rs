//! `model.list`

use super::{Daemon, Handled, blocking};
use crate::listen::Caller;
use hearth_protocol::{Empty, ModelList, ModelListMethod, ModelProblem, ModelSummary};
use hearth_store::{Digest, ModelConfig, ModelName, Problem};
use std::sync::Arc;
use std::time::SystemTime;

pub(crate) async fn handle(
    daemon: Arc<Daemon>,
    _: Caller,
    Empty {}: Empty,
) -> Handled<ModelListMethod> {
    let store = Arc::clone(&daemon.store);
    let list = blocking(move || Ok(store.list())).await?;
    let models = list
        .models
        .iter()
        .map(|entry| summary(&entry.name, &entry.id, entry.size, entry.modified, &entry.config));
    Ok(ModelList {
        models: models.collect(),
        problems: list.problems.iter().map(problem).collect(),
    })
}

pub(super) fn problem(problem: &Problem) -> ModelProblem {
    ModelProblem { path: problem.path.display().to_string(), message: problem.error.to_string() }
}

pub(super) fn summary(
    name: &ModelName,
    id: &Digest,
    size_bytes: u64,
    modified: SystemTime,
    config: &ModelConfig,
) -> ModelSummary {
    ModelSummary {
        name: name.to_string(),
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
