//! Text and numbers: `embed`, `rerank`, `score`, `tokenize`, `detokenize`.

use crate::{KeepAlive, Logprob, Usage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One text or several.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum EmbedInput {
    /// One text.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl std::fmt::Debug for EmbedInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EmbedInput")
    }
}

/// Parameters of `embed`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EmbedParams {
    /// Name of a model in the store; it is loaded if it is not.
    pub model: String,
    /// What to embed.
    pub input: EmbedInput,
    /// Scale each embedding to length 1. Default true.
    #[serde(default = "yes")]
    pub normalize: bool,
    /// Leave out the end of a text that is longer than the model can see. Default false: that is an error.
    #[serde(default)]
    pub truncate: bool,
    /// How long the model stays loaded after this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<KeepAlive>,
}

fn yes() -> bool {
    true
}

/// Result of `embed`.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EmbedReply {
    /// One for each text, in order.
    pub embeddings: Vec<Vec<f32>>,
    /// What it cost.
    pub usage: Usage,
}

impl std::fmt::Debug for EmbedReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EmbedReply({})", self.embeddings.len())
    }
}

/// Parameters of `rerank`.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RerankParams {
    /// Name of a model in the store that ranks texts; it is loaded if it is not.
    pub model: String,
    /// What is looked for.
    pub query: String,
    /// Where.
    pub documents: Vec<String>,
    /// How long the model stays loaded after this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<KeepAlive>,
}

impl std::fmt::Debug for RerankParams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RerankParams({}, {} documents)", self.model, self.documents.len())
    }
}

/// Result of `rerank`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RerankReply {
    /// One for each document, in order: how well it fits, on the model's own scale.
    pub scores: Vec<f32>,
    /// What it cost.
    pub usage: Usage,
}

/// Parameters of `score`.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScoreParams {
    /// Name of a model in the store that writes text; it is loaded if it is not.
    pub model: String,
    /// The text, which has to fit the context.
    pub text: String,
    /// The text stands as it is: control tokens in it are read, and nothing is added around it. Default false.
    #[serde(default)]
    pub raw: bool,
    /// So many of the likeliest tokens at each place, at most 20. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_logprobs: Option<u32>,
    /// How long the model stays loaded after this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<KeepAlive>,
}

impl std::fmt::Debug for ScoreParams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ScoreParams({}, {} bytes)", self.model, self.text.len())
    }
}

/// Result of `score`.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ScoreReply {
    /// The first token's text, of which nothing can be said; empty where that is the control token that begins every text.
    pub first: String,
    /// Of every other token, in order.
    pub logprobs: Vec<Logprob>,
    /// What it cost.
    pub usage: Usage,
}

impl std::fmt::Debug for ScoreReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ScoreReply({} tokens)", self.logprobs.len())
    }
}

/// Parameters of `tokenize`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenizeParams {
    /// Name of a model in the store; it is loaded if it is not.
    pub model: String,
    /// The text.
    pub text: String,
    /// Add what the model wants around a text. Default false.
    #[serde(default)]
    pub add_special: bool,
    /// Read spelled-out control tokens as such. Default false.
    #[serde(default)]
    pub parse_special: bool,
    /// Say what each token stands for. Default false.
    #[serde(default)]
    pub pieces: bool,
}

impl std::fmt::Debug for TokenizeParams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenizeParams({}, {} bytes)", self.model, self.text.len())
    }
}

/// Result of `tokenize`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenizeReply {
    /// The tokens.
    pub tokens: Vec<i32>,
    /// The bytes of each, which may be a part of a character; empty unless asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pieces: Vec<Vec<u8>>,
}

impl std::fmt::Debug for TokenizeReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenizeReply({})", self.tokens.len())
    }
}

/// Parameters of `detokenize`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DetokenizeParams {
    /// Name of a model in the store; it is loaded if it is not.
    pub model: String,
    /// The tokens.
    pub tokens: Vec<i32>,
    /// Spell out control tokens. Default false.
    #[serde(default)]
    pub special: bool,
}

impl std::fmt::Debug for DetokenizeParams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DetokenizeParams({}, {} tokens)", self.model, self.tokens.len())
    }
}

/// Result of `detokenize`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DetokenizeReply {
    /// The text. Bytes that are not UTF-8 become U+FFFD.
    pub text: String,
}

impl std::fmt::Debug for DetokenizeReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DetokenizeReply({} bytes)", self.text.len())
    }
}
