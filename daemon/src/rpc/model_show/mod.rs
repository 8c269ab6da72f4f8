//! `model.show`

mod memory;

use super::model_create::modelfile;
use super::model_header::json;
use super::model_list::summary;
use super::{Daemon, Handled, blocking};
use crate::chat_template::{Abilities, ChatTemplate};
use crate::listen::Caller;
use crate::supervisor::{parse_name, without_effect};
use crate::worker::preset::Preset;
use hearth_protocol::{ModelDetails, ModelParams, ModelShow, WeightGroup};
use hearth_store::{GgufValue, ShownModel, TensorGroup};
use std::sync::Arc;

/// The pooling of models that rank texts, as llama.cpp numbers them.
const RANK: u64 = 4;

pub(crate) async fn handle(
    daemon: Arc<Daemon>,
    _: Caller,
    params: ModelParams,
) -> Handled<ModelShow> {
    let name = parse_name(&params.model)?;
    let stores = Arc::clone(&daemon.stores);
    let shown = blocking(move || stores.show(&name)).await?;
    let (capabilities, modelfile) = (capabilities(&shown), modelfile(&shown));
    let settled = daemon.supervisor.settled(&shown.model);
    let memory = memory::estimates(&shown.gguf, &daemon.config().engine, &settled);
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
        metadata: gguf.metadata.into_iter().map(|(key, value)| (key, json(value))).collect(),
    })
}

/// As Ollama has them: of the weights, of the template, and of what the manifest says itself.
fn capabilities(shown: &ShownModel) -> Vec<String> {
    let (model, gguf) = (&shown.model, &shown.gguf);
    let is_pooling = |key: &str| key.ends_with(".pooling_type");
    let pooling = gguf.metadata.iter().find(|(key, _)| is_pooling(key)).map(|(_, value)| value);
    let ranks = pooling == Some(&GgufValue::Unsigned(RANK));
    let embeds = pooling.is_some();
    let abilities = match (Preset::of(model).template, &gguf.chat_template) {
        (Some(template), _) => {
            ChatTemplate::parse(&template).map(|template| template.abilities()).unwrap_or_default()
        }
        (None, Some(template)) => Abilities::of_jinja(template),
        (None, None) => Abilities::default(),
    };
    let mut capabilities: Vec<String> = [
        (!embeds, "completion"),
        (embeds && !ranks, "embedding"),
        (ranks, "rerank"),
        (abilities.tools, "tools"),
        (abilities.thinking, "thinking"),
        (abilities.insert, "insert"),
        (model.projector.is_some(), "vision"),
    ]
    .into_iter()
    .filter(|(can, _)| *can)
    .map(|(_, name)| name.to_string())
    .collect();
    for said in &model.config.capabilities {
        if !capabilities.contains(said) {
            capabilities.push(said.clone());
        }
    }
    capabilities
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
