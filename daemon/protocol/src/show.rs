//! What `model.show` says of weights and memory, and `model.header` of all.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Weights for one purpose that are stored in one way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WeightGroup {
    /// `embedding`, `output`, `attention`, `feed-forward`, `experts`, `other`, or `vectors` (norms and biases).
    pub class: String,
    /// Such as `Q4_K`.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Number of tensors.
    pub tensors: u64,
    /// Number of weights in them.
    pub parameters: u64,
    /// Bytes they take.
    pub size_bytes: u64,
}

/// What a worker takes of memory with a context of some size, once that is full, besides what `engine.archive_mib` in the
/// configuration lets it keep of earlier chats. An estimate for the processor: for plain models it is right within a quarter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemoryEstimate {
    /// Tokens, shared by all requests of the model (`engine.context` in the configuration).
    pub context: u64,
    /// All together.
    pub total_bytes: u64,
    /// The weights, with those of a projector.
    pub weights_bytes: u64,
    /// Keys and values of the context's tokens.
    pub kv_bytes: u64,
    /// What is in between while it computes, and the process itself.
    pub compute_bytes: u64,
}

/// Result of `model.header`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelHeader {
    /// In file order. Numbers, truths, texts, and arrays of these.
    pub metadata: Vec<(String, Value)>,
    /// In file order.
    pub tensors: Vec<TensorFacts>,
}

/// One tensor of a model's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TensorFacts {
    /// Such as `blk.0.attn_q.weight`.
    pub name: String,
    /// Such as `Q4_K`.
    #[serde(rename = "type")]
    pub type_name: String,
    /// The first is the length of a row.
    pub shape: Vec<u64>,
}
