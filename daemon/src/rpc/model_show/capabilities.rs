//! What models can do, as their files and manifests say. A list of all models needs it of each, and so it is kept: it changes
//! with nothing but the manifest.

use crate::chat_template::{Abilities, ChatTemplate};
use crate::rpc::{Daemon, blocking};
use crate::supervisor::parse_name;
use crate::worker::infill::names_marks;
use crate::worker::preset::Preset;
use hearth_protocol::{ModelSummary, RpcError};
use hearth_store::{GgufValue, ShownModel};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The pooling of models that rank texts, as llama.cpp numbers them.
const RANK: u64 = 4;

/// Those of models that were listed, by id.
#[derive(Debug, Default)]
pub(crate) struct Capabilities(Mutex<Arc<ById>>);

type ById = HashMap<String, Vec<String>>;

/// Those of all models of a list, by id. Of a file that cannot be read there are none.
pub(crate) async fn capabilities_of(
    daemon: &Arc<Daemon>,
    models: &[ModelSummary],
) -> Result<Arc<ById>, RpcError> {
    let lock = || daemon.capabilities.0.lock().unwrap_or_else(PoisonError::into_inner);
    let known = Arc::clone(&lock());
    let new = models.iter().filter(|model| !known.contains_key(&model.id));
    let new: Vec<_> = new.filter_map(|model| parse_name(&model.name).ok()).collect();
    if new.is_empty() {
        return Ok(known);
    }
    let stores = Arc::clone(&daemon.stores);
    let read = move || {
        let shown = new.iter().filter_map(|name| stores.show(name).ok());
        Ok(shown.map(|shown| (shown.model.id.hex(), of(&shown))).collect())
    };
    let read: ById = blocking(read).await?;
    // Models that are gone are forgotten.
    let listed = models.iter().filter_map(|model| known.get_key_value(&model.id));
    let listed = listed.map(|(id, can)| (id.clone(), can.clone()));
    let all = Arc::new(listed.chain(read).collect());
    lock().clone_from(&all);
    Ok(all)
}

/// As Ollama has them: of the weights, of the template, and of what the manifest says itself.
pub(super) fn of(shown: &ShownModel) -> Vec<String> {
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
    let has = |key: &str| gguf.metadata.iter().any(|(known, _)| known == key);
    let mut capabilities: Vec<String> = [
        (!embeds, "completion"),
        (embeds && !ranks, "embedding"),
        (ranks, "rerank"),
        (abilities.tools, "tools"),
        (abilities.thinking, "thinking"),
        (abilities.insert || names_marks(has), "insert"),
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
