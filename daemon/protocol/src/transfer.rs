//! `model.pull` and `model.push`: models from registries and URLs, and to registries.

use crate::RpcError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Parameters of `model.pull`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PullParams {
    /// `[http://][host/][namespace/]model[:tag]` in a registry, `hf.co/user/repo[:quant]`, or the URL of a GGUF file.
    pub source: String,
    /// The name it gets; made from the source if absent. An existing model of that name is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The caller's own name for this request, for `cancel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// Result of `model.pull`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pulled {
    /// Short form of the name.
    pub name: String,
    /// SHA-256 of the manifest, in hex.
    pub id: String,
    /// Bytes of everything the manifest names.
    pub size_bytes: u64,
}

/// Parameters of `model.push`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PushParams {
    /// Name of a model in the store.
    pub model: String,
    /// `[http://][host/][namespace/]model[:tag]` in a registry; the model's own name if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Whether a registry for which no scheme is written is spoken to without TLS.
    #[serde(default)]
    pub insecure: bool,
    /// The caller's own name for this request, for `cancel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// Result of `model.push`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pushed {
    /// The registry.
    pub host: String,
    /// What it is there, such as `library/smollm2:latest`.
    pub name: String,
    /// SHA-256 of the manifest, in hex.
    pub id: String,
    /// Bytes of everything the manifest names.
    pub size_bytes: u64,
}

/// What is being done about a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TransferState {
    /// Nothing yet.
    Waiting,
    /// What is there already is looked at, and kept if it is right.
    Checking,
    /// It is coming.
    Fetching,
    /// It is going.
    Sending,
    /// All of it has come or gone; the disk or the registry is waited for.
    Finishing,
    /// It is there, and its hash is right.
    Done,
    /// A state that this version does not know.
    #[serde(other)]
    Unknown,
}

/// How far one blob of a pull or a push is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TransferBlob {
    /// Such as `sha256:...`; absent where it is not known before the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Such as `model`, `license`, `config`.
    pub kind: String,
    /// What is being done about it.
    pub state: TransferState,
    /// Its whole size.
    pub size_bytes: u64,
    /// Bytes that have come or gone. Never goes down while the state is the same.
    pub done_bytes: u64,
    /// How fast that was over the last two seconds; 0 unless it is `fetching` or `sending`.
    pub bytes_per_second: u64,
}

/// What a stream of `model.pull` or `model.push` says. `accepted`, any number of `progress`, at most about ten a second, then
/// one `done` or `error`. Whoever pulls the same at the same time waits for the same download. It ends when the last of them
/// has gone, and what it had fetched is kept for the next pull.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum TransferEvent<R> {
    /// The request is accepted; always first.
    Accepted {
        /// Its name, for `cancel`.
        request: String,
    },
    /// How far it is.
    Progress {
        /// Every blob of the model, always in the same order.
        blobs: Vec<TransferBlob>,
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
