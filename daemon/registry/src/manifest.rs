//! What a registry says a model is made of.
//!
//! A manifest with Ollama's layers is kept as it came. Any other (Docker Model Runner's, RamaLama's, ModelPack's) is a list of
//! files, of which those are taken that can be GGUF or a licence; the store sees by the files what they are.

use hearth_store::{Digest, Manifest, Piece};
use serde::Deserialize;
use std::collections::HashMap;

pub(crate) const ACCEPT: &str = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json";
pub(crate) const MAX_BYTES: usize = 4 << 20;
/// A model with a blob for each tensor has some thousands.
const MAX_BLOBS: usize = 10_000;

#[derive(Debug)]
pub(crate) enum Recipe {
    Ollama(Manifest),
    Files(Vec<Ingredient>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ingredient {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    /// For a person, such as `model` or `license`.
    pub(crate) kind: &'static str,
}

impl Ingredient {
    pub(crate) fn piece(&self) -> Piece {
        Piece { digest: self.digest, size: self.size, is_license: self.kind == "license" }
    }
}

#[derive(Deserialize)]
struct Foreign {
    #[serde(default)]
    layers: Vec<ForeignLayer>,
    #[serde(default)]
    manifests: Vec<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ForeignLayer {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: HashMap<String, String>,
}

impl Recipe {
    /// The error is a reason.
    pub(crate) fn parse(bytes: Vec<u8>) -> Result<Self, String> {
        let foreign: Foreign = serde_json::from_slice(&bytes)
            .map_err(|error| format!("a manifest that is no JSON of the right shape: {error}"))?;
        if !foreign.manifests.is_empty() {
            return Err("an index of several platforms, where a model has one manifest".to_owned());
        }
        let is_ollama = foreign.layers.iter().any(|layer| layer.media_type.contains("ollama"));
        let recipe = if is_ollama {
            Self::Ollama(
                Manifest::parse(bytes)
                    .map_err(|reason| format!("a manifest that cannot be used: {reason}"))?,
            )
        } else {
            Self::Files(files(foreign.layers)?)
        };
        let ingredients = recipe.ingredients()?;
        if ingredients.is_empty() {
            return Err("a manifest without a file that could be a model's".to_owned());
        }
        Ok(recipe)
    }

    /// What has to be in the store, each once.
    pub(crate) fn ingredients(&self) -> Result<Vec<Ingredient>, String> {
        let all = match self {
            Self::Files(files) => files.clone(),
            Self::Ollama(manifest) => {
                let layers = manifest.layers().iter().map(|layer| (layer, layer.kind().name()));
                let config = (manifest.config(), "config");
                layers
                    .chain([config])
                    .map(|(layer, kind)| Ingredient {
                        digest: layer.digest,
                        size: layer.size,
                        kind,
                    })
                    .collect()
            }
        };
        let mut unique: Vec<Ingredient> = Vec::new();
        let mut sizes = HashMap::new();
        for ingredient in all {
            match sizes.insert(ingredient.digest, ingredient.size) {
                None => unique.push(ingredient),
                Some(size) if size == ingredient.size => {}
                Some(_) => return Err(format!("two sizes for `{}`", ingredient.digest)),
            }
        }
        if unique.len() > MAX_BLOBS {
            return Err(format!("a manifest of more than {MAX_BLOBS} blobs"));
        }
        Ok(unique)
    }
}

fn files(layers: Vec<ForeignLayer>) -> Result<Vec<Ingredient>, String> {
    let wanted = layers.into_iter().filter_map(|layer| Some((foreign_kind(&layer)?, layer)));
    wanted
        .map(|(kind, layer)| {
            let digest = layer.digest.parse().map_err(|error| format!("{error}"))?;
            Ok(Ingredient { digest, size: layer.size, kind })
        })
        .collect()
}

fn foreign_kind(layer: &ForeignLayer) -> Option<&'static str> {
    let media_type = layer.media_type.as_str();
    let title = layer
        .annotations
        .get("org.opencontainers.image.title")
        .or(layer.annotations.get("org.cncf.model.filepath"));
    let is_gguf_file = title.is_some_and(|title| title.to_ascii_lowercase().ends_with(".gguf"));
    match media_type {
        "application/vnd.docker.ai.license" => Some("license"),
        "application/vnd.docker.ai.mmproj" => Some("projector"),
        // A tar is a folder, whatever it is called.
        _ if media_type.contains("tar") => None,
        _ if is_gguf_file || media_type.contains("gguf") => Some("model"),
        // ModelPack's raw weights need not say what they are; without a name it can only be tried.
        "application/vnd.cncf.model.weight.v1.raw" if title.is_none() => Some("model"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn recipe(json: &Value) -> Result<Recipe, String> {
        Recipe::parse(json.to_string().into_bytes())
    }

    fn layer(media_type: &str, n: u8) -> Value {
        json!({ "mediaType": media_type, "digest": Digest::of(&[n]).to_string(), "size": n })
    }

    fn kinds(json: &Value) -> Vec<&'static str> {
        recipe(json).unwrap().ingredients().unwrap().iter().map(|one| one.kind).collect()
    }

    #[test]
    fn ollamas_manifest_keeps_its_bytes() {
        let text = json!({
            "schemaVersion": 2,
            "config": layer("application/vnd.docker.container.image.v1+json", 1),
            "layers": [layer("application/vnd.ollama.image.model", 2), layer("application/vnd.ollama.image.license", 3)],
        });
        let Recipe::Ollama(manifest) = recipe(&text).unwrap() else { panic!() };
        assert_eq!(manifest.bytes(), text.to_string().as_bytes());
        assert_eq!(kinds(&text), ["model", "license", "config"]);
    }

    #[test]
    fn files_of_other_packers_are_found() {
        let docker = json!({ "schemaVersion": 2, "layers": [
            layer("application/vnd.docker.ai.gguf.v3", 1), layer("application/vnd.docker.ai.license", 2),
            layer("application/vnd.docker.ai.chat.template.file", 3),
        ] });
        assert_eq!(kinds(&docker), ["model", "license"]);
        let mut titled = layer("application/octet-stream", 1);
        titled["annotations"] = json!({ "org.opencontainers.image.title": "Tiny.gguf" });
        let mut readme = layer("application/vnd.cncf.model.weight.v1.raw", 2);
        readme["annotations"] = json!({ "org.cncf.model.filepath": "README.md" });
        assert_eq!(kinds(&json!({ "layers": [titled, readme] })), ["model"]);
    }

    #[test]
    fn what_cannot_be_a_model_is_refused() {
        let twice = [layer("application/vnd.docker.ai.gguf.v3", 1), {
            let mut other = layer("application/vnd.docker.ai.gguf.v3", 1);
            other["size"] = 7.into();
            other
        }];
        for (json, reason) in [
            (json!("text"), "no JSON of the right shape"),
            (json!({ "layers": [] }), "without a file"),
            (
                json!({ "layers": [layer("application/vnd.oci.image.layer.v1.tar+gzip", 1)] }),
                "without a file",
            ),
            (json!({ "manifests": [{}] }), "index of several"),
            (json!({ "layers": twice }), "two sizes"),
            (
                json!({ "layers": [layer("application/vnd.ollama.image.model", 1)] }),
                "cannot be used",
            ),
        ] {
            let error = recipe(&json).unwrap_err();
            assert!(error.contains(reason), "{json}: {error}");
        }
    }
}
