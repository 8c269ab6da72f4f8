//! `model.pull`: models from registries and URLs.

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

/// What is being done about a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PullState {
    /// Nothing yet.
    Waiting,
    /// What is on disk already is read, and kept if it is right.
    Checking,
    /// It is coming.
    Fetching,
    /// All of it has come; the disk is waited for.
    Finishing,
    /// It is in the store, and its hash is right.
    Done,
    /// A state that this version does not know.
    #[serde(other)]
    Unknown,
}

/// How far one blob of a pull is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PullBlob {
    /// Such as `sha256:...`; absent where it is not known before the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Such as `model`, `license`, `config`.
    pub kind: String,
    /// What is being done about it.
    pub state: PullState,
    /// Its whole size.
    pub size_bytes: u64,
    /// Bytes that are here. Never goes down while the state is the same.
    pub done_bytes: u64,
    /// How fast it came over the last two seconds; 0 unless it is `fetching`.
    pub bytes_per_second: u64,
}

/// What a stream of `model.pull` says. `accepted`, any number of `progress`, at most about ten a second, then one `done` or
/// `error`. Whoever pulls the same at the same time waits for the same download. It ends when the last of them has gone,
/// and what it had fetched is kept for the next pull.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum PullEvent {
    /// The request is accepted; always first.
    Accepted {
        /// Its name, for `cancel`.
        request: String,
    },
    /// How far it is.
    Progress {
        /// Every blob of the model, always in the same order.
        blobs: Vec<PullBlob>,
    },
    /// The end, with the whole reply.
    Done {
        /// The same that the plain call answers.
        reply: Pulled,
    },
    /// The end, with a reason.
    Error {
        /// The same that the plain call answers.
        error: RpcError,
    },
}
