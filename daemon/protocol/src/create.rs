//! `model.create`: models made of others, of files, and of what a Modelfile says about them.

use crate::{ImportMode, Message};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Parameters of `model.create`. An empty text takes away what the base has.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateParams {
    /// The name it gets; an existing model of that name is replaced.
    pub model: String,
    /// A model whose layers it gets too, but for those named here. It is pulled if it is not in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What it is made of: GGUF files with weights, a projector or an adapter, or a folder of safetensors, which is converted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<CreateFile>,
    /// LoRA adapters: GGUF files, or a folder as the PEFT library writes it, which is converted. Several uploaded files are one folder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adapters: Vec<CreateFile>,
    /// A GGUF file of a smaller model that guesses ahead, where neither `model.load` nor the configuration names another. One
    /// that cannot, since it has another vocabulary or is made for Ollama's engine, is passed over with a warning in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draft: Option<CreateFile>,
    /// How GGUF files that are named by their path become part of the store.
    #[serde(default)]
    pub mode: ImportMode,
    /// A chat template in Go's language, which goes before the one in the weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// The system prompt of chats that bring none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Options by Ollama's names, such as `temperature`, `num_ctx` and `stop`. They go before the base's; a number may be given
    /// as text.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub parameters: Map<String, Value>,
    /// What every chat begins with, in place of what the base has. Texts of the roles `system`, `user` and `assistant`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<Message>,
    /// Licence texts, beside those of the base.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub licenses: Vec<String>,
    /// A renderer that is built into Ollama.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renderer: Option<String>,
    /// A parser that is built into Ollama.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parser: Option<String>,
    /// The least version of Ollama, such as `0.14.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requires: Option<String>,
    /// The type that weights are quantized to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantize: Option<String>,
    /// The caller's own name for this request, for `cancel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// A file or folder that a model is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CreateFile {
    /// Its absolute path, as the daemon sees it.
    Path(String),
    /// An uploaded file.
    Blob(UploadedFile),
}

/// A file that the daemon has got by `POST /blobs/DIGEST`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UploadedFile {
    /// What it is called, in its folder if it has one, as in `1_Pooling/config.json`.
    pub name: String,
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
}

/// Result of `model.create`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Created {
    /// Short form of the name.
    pub name: String,
    /// SHA-256 of the manifest, in hex.
    pub id: String,
    /// Bytes of everything the manifest names.
    pub size_bytes: u64,
}

/// Texts of people are never printed, at any log level.
impl std::fmt::Debug for CreateParams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CreateParams({}, {} files)", self.model, self.files.len())
    }
}
