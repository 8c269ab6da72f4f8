//! `model.show`

mod capabilities;
mod memory;

use super::model_create::modelfile;
use super::model_header::json;
use super::model_list::summary;
use super::{Daemon, Handled, blocking};
use crate::listen::Caller;
use crate::supervisor::{parse_name, without_effect};
use crate::worker::preset::Preset;
use hearth_protocol::{ModelDetails, ModelParams, ModelShow, WeightGroup};
use hearth_store::{GgufValue, TensorGroup};
use serde_json::Value;
use std::sync::Arc;

pub(crate) use capabilities::{Capabilities, capabilities_of};

pub(crate) async fn handle(
    daemon: Arc<Daemon>,
    _: Caller,
    params: ModelParams,
) -> Handled<ModelShow> {
    let name = parse_name(&params.model)?;
    let stores = Arc::clone(&daemon.stores);
    let shown = blocking(move || stores.show(&name)).await?;
    let (capabilities, modelfile) = (capabilities::of(&shown), modelfile(&shown));
    let settled = daemon.supervisor.settled(&shown.model);
    let memory = memory::estimates(&shown, &daemon.config().engine, &settled);
    let (model, gguf) = (shown.model, shown.gguf);
    let preset = Preset::of(&model);
    Ok(ModelDetails {
        summary: summary(
            &model.name,
            &shown.store,
            &model.id,
            shown.size,
            shown.modified,
            &model.config,
        ),
        path: model.model_path.display().to_string(),
        architecture: gguf.architecture,
        parameters: gguf.parameter_count,
        context_length: gguf.context_length.unwrap_or(0),
        embedding_length: gguf.embedding_length.unwrap_or(0),
        block_count: gguf.block_count.unwrap_or(0),
        chat_template: gguf.chat_template,
        template: preset.template,
        capabilities,
        options: model
            .params
            .iter()
            .map(|(name, value)| (name.clone(), value.to_string()))
            .collect(),
        messages: preset.messages,
        renderer: model.config.renderer,
        parser: model.config.parser,
        requires: model.config.requires,
        options_without_effect: without_effect(&model.params),
        system: model.system,
        licenses: shown.licenses,
        modelfile,
        memory,
        weights: gguf.groups.into_iter().map(weights).collect(),
        metadata: facts(gguf.metadata),
        projector_metadata: shown.projector.map(|gguf| facts(gguf.metadata)).unwrap_or_default(),
    })
}

fn facts(metadata: Vec<(String, GgufValue)>) -> Vec<(String, Value)> {
    metadata.into_iter().map(|(key, value)| (key, json(value))).collect()
}

fn weights(group: TensorGroup) -> WeightGroup {
    WeightGroup {
        class: group.class.into(),
        type_name: group.tensor_type.name.into(),
        tensors: group.n_tensors,
        parameters: group.n_elements,
        size_bytes: group.n_bytes,
    }
}
