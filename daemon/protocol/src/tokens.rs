//! Text and numbers: `embed`, `tokenize`, `detokenize`.

use crate::{KeepAlive, Usage};
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
