//! A model made of another one, of files that are blobs already, and of what is said about them.
//!
//! The layers are Ollama's, in one order, so that the same recipe makes the same manifest. Where nothing is changed the
//! base's manifest is kept as it is, to the byte, and so is its id.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::adopt::{examine, unsupported};
use crate::blob::Blob;
use crate::config::ModelConfig;
use crate::error::StoreError;
use crate::import::config_layer;
use crate::manifest::{Layer, LayerKind, Manifest, json_line};
use crate::name::ModelName;
use crate::store::{MAX_TEXT_BYTES, PresetMessage, Store};

/// What a model is to be made of. An empty text takes away what the base has.
#[derive(Debug, Clone, Default)]
pub struct Recipe {
    /// All of whose layers the model gets too, but for those that are named here.
    pub base: Option<Manifest>,
    /// In place of the base's: the same, stored in another way. Or those of a model without a base.
    pub weights: Option<Blob>,
    /// Weights, projectors and adapters, told apart by what they hold.
    pub files: Vec<Blob>,
    pub draft: Option<Blob>,
    pub template: Option<String>,
    pub system: Option<String>,
    /// By Ollama's names. They go before the base's.
    pub params: Map<String, Value>,
    /// If there are any, the base's do not count.
    pub messages: Vec<PresetMessage>,
    /// The base's stay.
    pub licenses: Vec<String>,
    pub renderer: Option<String>,
    pub parser: Option<String>,
    pub requires: Option<String>,
}

/// The order of a manifest's layers; the rest comes after these.
const ORDER: [LayerKind; 9] = [
    LayerKind::Model,
    LayerKind::Projector,
    LayerKind::Adapter,
    LayerKind::Draft,
    LayerKind::Template,
    LayerKind::System,
    LayerKind::License,
    LayerKind::Params,
    LayerKind::Messages,
];

impl Store {
    /// Makes a model, replacing the one that has the name now.
    pub fn create(
        &self,
        name: &ModelName,
        recipe: &Recipe,
    ) -> Result<(ModelName, Manifest), StoreError> {
        let manifest = self.cook(name, recipe)?;
        Ok((self.commit(name, &manifest)?, manifest))
    }

    /// Where the weights are of what is to be made.
    pub fn weights(&self, recipe: &Recipe) -> Result<PathBuf, StoreError> {
        for file in &recipe.files {
            if examine(self.blobs(), &file.digest, file.size)?.0 == LayerKind::Model {
                return self.blobs().check(&file.digest, file.size);
            }
        }
        let of_base = recipe.base.iter().flat_map(|base| base.layers_of(LayerKind::Model)).next();
        let layer = of_base.ok_or(StoreError::NoWeights)?;
        self.blobs().check(&layer.digest, layer.size)
    }

    fn cook(&self, name: &ModelName, recipe: &Recipe) -> Result<Manifest, StoreError> {
        let base = recipe.base.as_ref();
        let mut layers = base.map(|base| base.layers().to_vec()).unwrap_or_default();
        let mut config = match base {
            Some(base) => self.config(base)?,
            None => ModelConfig::default(),
        };
        for file in &recipe.files {
            let (kind, summary) = examine(self.blobs(), &file.digest, file.size)?;
            let layer = layer(kind, *file);
            match kind {
                LayerKind::Model if layers.iter().any(|layer| layer.kind() == kind) => {
                    return Err(unsupported(name, "it has two files of weights"));
                }
                LayerKind::Model => config = ModelConfig::of_gguf(&summary),
                // Only the first is used.
                LayerKind::Projector => layers.retain(|layer| layer.kind() != kind),
                _ => {}
            }
            add(&mut layers, layer);
        }
        if let Some(weights) = recipe.weights {
            let (_, summary) = examine(self.blobs(), &weights.digest, weights.size)?;
            match base {
                Some(_) => config.quantization = summary.quantization,
                None => config = ModelConfig::of_gguf(&summary),
            }
            replace(&mut layers, LayerKind::Model, Some(layer(LayerKind::Model, weights)));
        }
        if let Some(draft) = recipe.draft {
            replace(&mut layers, LayerKind::Draft, Some(layer(LayerKind::Draft, draft)));
        }
        for (kind, text) in
            [(LayerKind::Template, &recipe.template), (LayerKind::System, &recipe.system)]
        {
            if let Some(text) = text {
                let new = if text.is_empty() { None } else { Some(self.text_layer(kind, text)?) };
                replace(&mut layers, kind, new);
            }
        }
        for license in &recipe.licenses {
            add(&mut layers, self.text_layer(LayerKind::License, license)?);
        }
        if !recipe.params.is_empty() {
            let mut params = base.map(|base| self.params(base)).transpose()?.unwrap_or_default();
            params.extend(recipe.params.clone());
            params.sort_keys();
            let text = json_line(&params);
            replace(&mut layers, LayerKind::Params, Some(self.layer(LayerKind::Params, &text)?));
        }
        if !recipe.messages.is_empty() {
            let text = json_line(&messages(&recipe.messages));
            let layer = self.layer(LayerKind::Messages, &text)?;
            replace(&mut layers, LayerKind::Messages, Some(layer));
        }
        for (said, field) in [
            (&recipe.renderer, &mut config.renderer),
            (&recipe.parser, &mut config.parser),
            (&recipe.requires, &mut config.requires),
        ] {
            if let Some(said) = said {
                *field = Some(said.clone()).filter(|said| !said.is_empty());
            }
        }
        let is_same_config =
            base.is_some_and(|base| self.config(base).is_ok_and(|was| was == config));
        match base {
            Some(base) if is_same_config && base.layers() == layers => return Ok(base.clone()),
            None if !layers.iter().any(|layer| layer.kind() == LayerKind::Model) => {
                return Err(StoreError::NoWeights);
            }
            _ => {}
        }
        let place = |kind| ORDER.iter().position(|known| *known == kind).unwrap_or(ORDER.len());
        layers.sort_by_key(|layer| place(layer.kind()));
        let config = match base {
            Some(base) if is_same_config => base.config().clone(),
            _ => config_layer(self.blobs(), &config)?,
        };
        Ok(Manifest::new(config, layers))
    }

    fn text_layer(&self, kind: LayerKind, text: &str) -> Result<Layer, StoreError> {
        self.layer(kind, text.as_bytes())
    }

    fn layer(&self, kind: LayerKind, bytes: &[u8]) -> Result<Layer, StoreError> {
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if size > MAX_TEXT_BYTES {
            let media_type = kind.media_type().unwrap_or_default();
            return Err(StoreError::TooLong { what: media_type, size, max: MAX_TEXT_BYTES });
        }
        Ok(layer(kind, Blob { digest: self.blobs().write(bytes)?, size }))
    }
}

fn layer(kind: LayerKind, blob: Blob) -> Layer {
    Layer::new(&kind.media_type().unwrap_or_default(), blob.digest, blob.size)
}

/// Adds a layer that is not there yet.
fn add(layers: &mut Vec<Layer>, new: Layer) {
    if !layers.iter().any(|layer| layer.kind() == new.kind() && layer.digest == new.digest) {
        layers.push(new);
    }
}

/// A layer that stays the same stays where it is.
fn replace(layers: &mut Vec<Layer>, kind: LayerKind, new: Option<Layer>) {
    let digest = new.as_ref().map(|new| new.digest);
    layers.retain(|layer| layer.kind() != kind || Some(layer.digest) == digest);
    if let Some(new) = new {
        add(layers, new);
    }
}

fn messages(messages: &[PresetMessage]) -> Value {
    let message =
        |message: &PresetMessage| json!({ "role": message.role, "content": message.content });
    messages.iter().map(message).collect()
}

#[cfg(test)]
mod tests;
