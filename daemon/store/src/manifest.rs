//! Manifests: which blobs make up a model.
//!
//! A manifest's bytes are kept exactly as they were read, because a model's id is their SHA-256:
//! writing a pulled manifest anew would change its id. Only `Manifest::new` makes bytes, in the
//! shape and key order Ollama writes.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::quote;

pub const MANIFEST_MEDIA_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const CONFIG_MEDIA_TYPE: &str = "application/vnd.docker.container.image.v1+json";
const LAYER_PREFIX: &str = "application/vnd.ollama.image.";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    bytes: Vec<u8>,
    id: Digest,
    media_type: String,
    config: Layer,
    layers: Vec<Layer>,
}

/// One blob of a model, or its config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    /// The parent model or file this layer was taken from.
    pub from: Option<String>,
    /// The tensor's or file's name in models that are not GGUF.
    pub name: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayerKind {
    Model,
    Projector,
    Adapter,
    Draft,
    Template,
    System,
    Params,
    Messages,
    License,
    Tensor,
    Json,
    /// The config, the deprecated `embed`, and whatever comes after this release.
    Other,
}

#[derive(Serialize, Deserialize)]
struct ManifestJson {
    #[serde(rename = "schemaVersion")]
    schema_version: u32,
    #[serde(rename = "mediaType", default)]
    media_type: String,
    config: LayerJson,
    // Go writes an absent list as null.
    layers: Option<Vec<LayerJson>>,
}

#[derive(Serialize, Deserialize)]
struct LayerJson {
    #[serde(rename = "mediaType")]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

impl Manifest {
    /// Makes a manifest, with bytes ready to be written.
    pub fn new(config: Layer, layers: Vec<Layer>) -> Self {
        let json = ManifestJson {
            schema_version: 2,
            media_type: MANIFEST_MEDIA_TYPE.to_owned(),
            config: LayerJson::from(&config),
            layers: Some(layers.iter().map(LayerJson::from).collect()),
        };
        let bytes = json_line(&json);
        let media_type = MANIFEST_MEDIA_TYPE.to_owned();
        Self { id: Digest::of(&bytes), media_type, bytes, config, layers }
    }

    /// Reads a manifest and keeps its bytes. The error is a reason, without the path.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, String> {
        let json: ManifestJson = serde_json::from_slice(&bytes)
            .map_err(|error| format!("it is not JSON of the right shape: {error}"))?;
        if json.schema_version != 2 {
            return Err(format!("its schema version is {}, not 2", json.schema_version));
        }
        let config = Layer::try_from(json.config)?;
        let layers = json
            .layers
            .unwrap_or_default()
            .into_iter()
            .map(Layer::try_from)
            .collect::<Result<_, _>>()?;
        let media_type = match json.media_type {
            media_type if media_type.is_empty() => MANIFEST_MEDIA_TYPE.to_owned(),
            media_type => media_type,
        };
        Ok(Self { id: Digest::of(&bytes), media_type, bytes, config, layers })
    }

    /// The model's id: the digest of the manifest's bytes.
    pub fn id(&self) -> Digest {
        self.id
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What it is to a registry. One that does not say is Docker's.
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    pub fn config(&self) -> &Layer {
        &self.config
    }

    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The layers and the config.
    pub fn blobs(&self) -> impl Iterator<Item = &Layer> {
        self.layers.iter().chain([&self.config])
    }

    pub fn layers_of(&self, kind: LayerKind) -> impl DoubleEndedIterator<Item = &Layer> {
        self.layers.iter().filter(move |layer| layer.kind() == kind)
    }

    /// The bytes of all layers and the config. A blob that several models share counts in each.
    pub fn size(&self) -> u64 {
        self.layers.iter().fold(self.config.size, |sum, layer| sum.saturating_add(layer.size))
    }
}

impl Layer {
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self { media_type: media_type.to_owned(), digest, size, from: None, name: None }
    }

    pub fn kind(&self) -> LayerKind {
        // Parameters may follow a media type after a semicolon.
        let media_type = self.media_type.split(';').next().unwrap_or_default().trim();
        match media_type.strip_prefix(LAYER_PREFIX) {
            Some("model") => LayerKind::Model,
            Some("projector") => LayerKind::Projector,
            Some("adapter") => LayerKind::Adapter,
            Some("draft") => LayerKind::Draft,
            Some("template" | "prompt") => LayerKind::Template,
            Some("system") => LayerKind::System,
            Some("params") => LayerKind::Params,
            Some("messages") => LayerKind::Messages,
            Some("license") => LayerKind::License,
            Some("tensor") => LayerKind::Tensor,
            Some("json") => LayerKind::Json,
            _ => LayerKind::Other,
        }
    }
}

impl LayerKind {
    /// The media type to write; `None` for what has no single one.
    pub fn media_type(self) -> Option<String> {
        (self != Self::Other).then(|| format!("{LAYER_PREFIX}{}", self.name()))
    }

    /// For a person.
    pub fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Projector => "projector",
            Self::Adapter => "adapter",
            Self::Draft => "draft",
            Self::Template => "template",
            Self::System => "system",
            Self::Params => "params",
            Self::Messages => "messages",
            Self::License => "license",
            Self::Tensor => "tensor",
            Self::Json => "json",
            Self::Other => "config",
        }
    }
}

impl From<&Layer> for LayerJson {
    fn from(layer: &Layer) -> Self {
        Self {
            media_type: layer.media_type.clone(),
            digest: layer.digest.to_string(),
            size: layer.size,
            from: layer.from.clone(),
            name: layer.name.clone(),
        }
    }
}

impl TryFrom<LayerJson> for Layer {
    type Error = String;

    fn try_from(json: LayerJson) -> Result<Self, String> {
        let digest = json.digest.parse().map_err(|_| {
            format!("it names a blob `{}`, which is no digest", quote(&json.digest))
        })?;
        Ok(Self {
            media_type: json.media_type,
            digest,
            size: json.size,
            from: json.from,
            name: json.name,
        })
    }
}

/// Compact JSON as Go's encoder writes it: with a newline at its end, and without what HTML gives a meaning.
pub(crate) fn json_line(value: &impl Serialize) -> Vec<u8> {
    // Structs of strings and numbers always serialise.
    let mut text = serde_json::to_string(value).unwrap_or_default();
    // In JSON these stand in strings only.
    for (plain, escaped) in [
        ('<', "\\u003c"),
        ('>', "\\u003e"),
        ('&', "\\u0026"),
        ('\u{2028}', "\\u2028"),
        ('\u{2029}', "\\u2029"),
    ] {
        if text.contains(plain) {
            text = text.replace(plain, escaped);
        }
    }
    text.push('\n');
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u8) -> Digest {
        Digest::of(&[n])
    }

    #[test]
    fn a_new_manifest_has_ollamas_shape() {
        let mut model = Layer::new(&LayerKind::Model.media_type().unwrap(), digest(1), 10);
        model.from = Some("/tmp/x.gguf".to_owned());
        let config = Layer::new(CONFIG_MEDIA_TYPE, digest(0), 2);
        let manifest = Manifest::new(config, vec![model]);
        let text = std::str::from_utf8(manifest.bytes()).unwrap();
        assert_eq!(
            text,
            format!(
                concat!(
                    r#"{{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","#,
                    r#""config":{{"mediaType":"application/vnd.docker.container.image.v1+json","digest":"{}","size":2}},"#,
                    r#""layers":[{{"mediaType":"application/vnd.ollama.image.model","digest":"{}","size":10,"from":"/tmp/x.gguf"}}]}}"#,
                    "\n"
                ),
                digest(0),
                digest(1)
            )
        );
        assert_eq!(manifest.size(), 12);
        assert_eq!(Manifest::parse(manifest.bytes().to_vec()).unwrap(), manifest);
    }

    #[test]
    fn foreign_bytes_are_kept_and_give_the_id() {
        let text = format!(
            "{{ \"layers\": null, \"extra\": [1], \"config\": {{\"digest\":\"{}\",\"size\":3,\"mediaType\":\"x\"}},\n \"schemaVersion\": 2}}",
            digest(7)
        );
        let manifest = Manifest::parse(text.clone().into_bytes()).unwrap();
        assert_eq!(manifest.bytes(), text.as_bytes());
        assert_eq!(manifest.id(), Digest::of(text.as_bytes()));
        assert!(manifest.layers().is_empty());
    }

    #[test]
    fn bad_manifests_say_why() {
        for (text, reason) in [
            ("", "it is not JSON"),
            ("{}", "it is not JSON of the right shape: missing field"),
            (
                r#"{"schemaVersion":1,"config":{"mediaType":"","digest":"","size":0}}"#,
                "schema version is 1",
            ),
            (
                r#"{"schemaVersion":2,"config":{"mediaType":"","digest":"sha256:../x","size":0}}"#,
                "`sha256:../x`, which is no digest",
            ),
            (
                r#"{"schemaVersion":2,"config":{"mediaType":"","digest":"","size":-1}}"#,
                "it is not JSON",
            ),
        ] {
            let error = Manifest::parse(text.as_bytes().to_vec()).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn sizes_that_overflow_are_capped() {
        let layer = Layer::new("x", digest(1), u64::MAX);
        assert_eq!(Manifest::new(layer.clone(), vec![layer]).size(), u64::MAX);
    }

    #[test]
    fn media_types_are_told_apart() {
        let kind = |media_type| Layer::new(media_type, digest(1), 0).kind();
        assert_eq!(kind("application/vnd.ollama.image.model"), LayerKind::Model);
        assert_eq!(kind("application/vnd.ollama.image.prompt"), LayerKind::Template);
        assert_eq!(kind("application/vnd.ollama.image.tensor; dtype=f16"), LayerKind::Tensor);
        assert_eq!(kind("application/vnd.ollama.image.embed"), LayerKind::Other);
        assert_eq!(kind(CONFIG_MEDIA_TYPE), LayerKind::Other);
    }

    proptest::proptest! {
        /// Manifests come from servers and other programs' folders.
        #[test]
        fn any_byte_may_be_wrong(
            changes in proptest::collection::vec(
                (proptest::prelude::any::<proptest::sample::Index>(), proptest::prelude::any::<u8>()),
                1..6,
            ),
            cut in proptest::option::of(proptest::prelude::any::<proptest::sample::Index>()),
        ) {
            let layer = Layer::new("application/vnd.ollama.image.model", digest(1), 7);
            let mut bytes = Manifest::new(layer.clone(), vec![layer]).bytes().to_vec();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            let _ = crate::config::ModelConfig::parse(&bytes);
            let _ = crate::config::ModelConfig::with_quantization(&bytes, "Q8_0");
            if let Ok(manifest) = Manifest::parse(bytes.clone()) {
                proptest::prop_assert_eq!(manifest.id(), Digest::of(&bytes));
                let _ = manifest.size();
                let again = Manifest::new(manifest.config().clone(), manifest.layers().to_vec());
                let again = Manifest::parse(again.bytes().to_vec()).unwrap();
                proptest::prop_assert_eq!(again.layers(), manifest.layers());
            }
        }
    }
}
