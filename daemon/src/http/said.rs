//! What several dialects write alike: tools, their calls, and how likely a token was.

use super::{is_zero, or_default};
use hearth_protocol::{Message, TokenLogprob, Tool};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A call in a message that was said before.
#[derive(Deserialize, JsonSchema)]
pub(super) struct Called {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) id: String,
    pub(super) function: CalledFunction,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct CalledFunction {
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    arguments: Value,
}

impl CalledFunction {
    /// Their JSON text, which some clients write as a text and others as an object.
    pub(super) fn arguments(&self) -> String {
        match &self.arguments {
            Value::Null => "{}".into(),
            Value::String(text) => text.clone(),
            arguments => arguments.to_string(),
        }
    }
}

/// A tool that may be called.
#[derive(Deserialize, JsonSchema)]
pub(super) struct OfferedFunction {
    #[serde(default)]
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    description: String,
    #[serde(default)]
    parameters: Value,
}

impl From<OfferedFunction> for Tool {
    fn from(OfferedFunction { name, description, parameters }: OfferedFunction) -> Self {
        Self { name, description, parameters }
    }
}

/// A token that was chosen or could have been.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Token {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

impl From<TokenLogprob> for Token {
    fn from(token: TokenLogprob) -> Self {
        Self { token: token.token, logprob: token.logprob, bytes: token.bytes }
    }
}

/// What a request with `_debug_render_only` gets instead of an answer.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct DebugInfo {
    pub(super) rendered_template: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) image_count: usize,
}

pub(super) fn image_count(messages: &[Message]) -> usize {
    messages.iter().map(|message| message.images.len()).sum()
}
