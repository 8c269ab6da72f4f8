//! Models on disk and in memory: `model.list`, `show`, `import`, `load`, `unload`, `ps`.

use crate::{FlashAttention, KvType, MemoryEstimate, Message, RpcError, WeightGroup};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How long a model stays loaded after its last request, in seconds; a negative number means for ever, 0 not at all.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct KeepAlive(pub f64);

/// Names one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelParams {
    /// `[host/][namespace/]model[:tag]`
    pub model: String,
}

/// Result of `model.list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModelList {
    /// Newest first.
    pub models: Vec<ModelSummary>,
    /// Those whose name means another, of an earlier folder.
    #[serde(default)]
    pub shadowed: Vec<ModelSummary>,
    /// The folders with models, in the order in which names are looked up. The first is the one that is written to.
    #[serde(default)]
    pub stores: Vec<String>,
    /// Entries that cannot be read.
    pub problems: Vec<ModelProblem>,
}

/// One line of `ctl ls`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModelSummary {
    /// Short form of the name.
    pub name: String,
    /// The folder that it is in, one of `stores` of `model.list`.
    #[serde(default)]
    pub store: String,
    /// SHA-256 of the manifest, in hex.
    pub id: String,
    /// Bytes of everything the manifest names.
    pub size_bytes: u64,
    /// Seconds since 1970.
    pub modified_s: u64,
    /// Such as `llama`; empty when unknown.
    pub family: String,
    /// Such as `134.52M`; empty when unknown.
    pub parameter_size: String,
    /// Such as `Q4_1`; empty when unknown.
    pub quantization: String,
}

/// An entry of the store that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModelProblem {
    /// The manifest's file.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

/// Result of `model.show`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelDetails {
    /// What `model.list` says.
    pub summary: ModelSummary,
    /// File of the weights.
    pub path: String,
    /// Such as `llama`.
    pub architecture: String,
    /// Number of weights.
    pub parameters: u64,
    /// Longest text the model was trained on, in tokens; 0 when unknown.
    pub context_length: u64,
    /// Length of one embedding; 0 when unknown.
    pub embedding_length: u64,
    /// Number of layers; 0 when unknown.
    pub block_count: u64,
    /// The chat template in the file, Jinja.
    pub chat_template: Option<String>,
    /// The one that the store has for the model, in Go's language. It goes before the one in the file.
    #[serde(default)]
    pub template: Option<String>,
    /// Some of `completion`, `embedding`, `rerank`, `tools`, `thinking`, `insert` and `vision`.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Options of the model's own, by Ollama's names, with their values as JSON.
    #[serde(default)]
    pub options: Vec<(String, String)>,
    /// Those of `options` that change nothing here, each with why. Requests cannot change that.
    #[serde(default)]
    pub options_without_effect: Vec<(String, String)>,
    /// A system prompt of the model's own.
    pub system: Option<String>,
    /// Licence texts.
    pub licenses: Vec<String>,
    /// A Modelfile that makes the same model, as long as its files are where they are.
    #[serde(default)]
    pub modelfile: String,
    /// The weights by what they are for and how they are stored; the largest part of a class first.
    #[serde(default)]
    pub weights: Vec<WeightGroup>,
    /// At several sizes of the context, up to the longest that the model was trained on. Empty when that cannot be told.
    #[serde(default)]
    pub memory: Vec<MemoryEstimate>,
    /// What every conversation with it begins with, after the system prompt.
    #[serde(default)]
    pub messages: Vec<Message>,
    /// Ollama's own renderer that the model names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renderer: Option<String>,
    /// The parser.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parser: Option<String>,
    /// The version of Ollama that it says it needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requires: Option<String>,
    /// Metadata of the file, in file order: numbers, truths and texts. Of an array there is `{"length": …}` alone, of a
    /// text of more than a MiB `{"bytes": …}`; `model.header` has the arrays.
    pub metadata: Vec<(String, Value)>,
    /// The same of the projector's file, by which the model sees; empty without one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub projector_metadata: Vec<(String, Value)>,
}

/// How a file becomes part of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ImportMode {
    /// Shares the blocks where the file system can, and copies otherwise.
    #[default]
    Auto,
    /// Copies.
    Copy,
    /// Shares the blocks, or fails.
    Reflink,
    /// Leaves the file where it is and points to it. Moving or changing it later breaks the model.
    Link,
}

/// Parameters of `model.import`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportParams {
    /// Absolute path of a GGUF file or of a folder that is an OCI layout, as the daemon sees it.
    pub path: String,
    /// The name it gets; an existing model of that name is replaced. A layout of several models has to call one by it. May be
    /// left out for a layout of one, which says what it is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How.
    #[serde(default)]
    pub mode: ImportMode,
    /// The caller's own name for this request, for `cancel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// Result of `model.import`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Imported {
    /// Short form of the name.
    pub name: String,
    /// SHA-256 of the manifest, in hex.
    pub id: String,
    /// How it was done: `copy`, `reflink`, `link`, or `present` when the bytes were there already.
    pub how: String,
}

/// What a stream of `model.bench`, `model.copy`, `model.create`, `model.import`, `model.load`, `model.quantize` or `store.verify` says. `accepted`, any number of `progress`, then one `done` or `error`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schemars(rename = "{R}Event")]
pub enum ProgressEvent<R> {
    /// The request is accepted; always first.
    Accepted {
        /// Its name, for `cancel`.
        request: String,
    },
    /// How far it is.
    Progress {
        /// What is being done, for a person: `reading`, `loading`...
        stage: String,
        /// 0 to 1, never going down within a stage.
        fraction: f32,
    },
    /// The end, with the whole reply.
    Done {
        /// The same that the plain call answers.
        reply: R,
    },
    /// The end, with a reason.
    Error {
        /// The same that the plain call answers.
        error: RpcError,
    },
}

/// Parameters of `model.load`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadParams {
    /// Name of a model in the store.
    pub model: String,
    /// A smaller model in the store with the same vocabulary, which guesses ahead where that is faster. Absent: the one that
    /// the configuration names, or else the model's own, if there is one. A model that is loaded already keeps the draft it
    /// has: another one is an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draft: Option<String>,
    /// How long it stays loaded after the last request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<KeepAlive>,
    /// The caller's own name for this request, for `cancel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// Result of `model.load`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Loaded {
    /// What is loaded now.
    pub model: RunningModel,
    /// Microseconds it took; 0 if it was loaded.
    pub load_us: u64,
}

/// Result of `model.unload`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unloaded {
    /// False when it was not loaded.
    pub unloaded: bool,
}

/// Result of `model.ps`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunningModels {
    /// Loaded models, the one used last first.
    pub models: Vec<RunningModel>,
}

/// Where a loaded model's memory goes. The engine's own counts are up to a quarter of a second old.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModelMemory {
    /// Resident bytes of files: weights that are used as they lie on the disk, and programs. Processes that map the same file
    /// share them, and the system takes them back when memory is short.
    pub mapped_bytes: u64,
    /// All other resident bytes, of this process alone: rearranged weights, KV memory, buffers, saved conversations.
    pub private_bytes: u64,
    /// Bytes set aside for KV memory and computing buffers; 0 where the backend does not say. They become resident with use.
    pub context_bytes: u64,
    /// Tokens in the KV memory, what several requests share counted once.
    pub kv_tokens: u32,
    /// Further tokens that running requests have room set aside for.
    pub kv_reserved: u32,
    /// Bytes of conversations that were saved from the KV memory to main memory; a part of `private_bytes`.
    pub saved_bytes: u64,
}

/// A loaded model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunningModel {
    /// Short form of the name.
    pub name: String,
    /// SHA-256 of the manifest, in hex.
    pub id: String,
    /// `loading`, `ready` or `stopping`.
    pub state: String,
    /// Such as `cpu`.
    pub backend: String,
    /// Short form of the name of the model that guesses ahead for it, or of its own if that is a part of it; absent without
    /// one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draft: Option<String>,
    /// Number format of the KV memory.
    #[serde(default)]
    pub kv_type: KvType,
    /// How attention is computed; absent: as the backend chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flash_attention: Option<FlashAttention>,
    /// The worker's process.
    pub pid: u32,
    /// For a person, such as `llama 135M Q4_1`.
    pub description: String,
    /// Tokens of context shared by all its requests.
    pub context: u32,
    /// Requests running or waiting.
    pub active_requests: u32,
    /// Resident bytes of the worker, mapped weights included.
    pub rss_bytes: u64,
    /// What these and the engine's memory consist of.
    #[serde(default)]
    pub memory: ModelMemory,
    /// Seconds until it is unloaded if nobody asks; absent: never, or while it works.
    pub expires_s: Option<f64>,
}
