//! From a conversation to a prompt, by the model's own template.

use super::fit::{Dropped, Fit};
use super::prepare::refused;
use hearth_abi::host::Model;
use hearth_abi::raw::Token;
use hearth_engine::Thinking;
use hearth_protocol::{ChatParams, ErrorKind, Message, Role, RpcError, Tool, ToolChoice};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// A conversation, as the model reads it.
pub(super) struct Prompt {
    pub(super) rendered: Rendered,
    pub(super) tokens: Vec<Token>,
    pub(super) dropped: Dropped,
}

impl Prompt {
    pub(super) fn new(model: &Model, params: &ChatParams, fit: &Fit) -> Result<Self, RpcError> {
        let (rendered, tokens, dropped) =
            fit.cut_chat(&params.messages, |messages| tokens_of(model, params, messages))?;
        Ok(Self { rendered, tokens, dropped })
    }

    /// How many of its tokens come before the first message that is not the system's.
    pub(super) fn n_system(&self, model: &Model, params: &ChatParams) -> usize {
        let nothing = Message::text(Role::User, "");
        let is_system = |message: &&Message| message.role == Role::System;
        let messages: Vec<&Message> =
            params.messages.iter().take_while(is_system).chain([&nothing]).collect();
        // A template that refuses this has nothing to keep.
        let (_, tokens) = tokens_of(model, params, &messages).unwrap_or_default();
        tokens.iter().zip(&self.tokens).take_while(|(one, other)| one == other).count()
    }
}

fn tokens_of(
    model: &Model,
    params: &ChatParams,
    messages: &[&Message],
) -> Result<(Rendered, Vec<Token>), RpcError> {
    let rendered = render(model, params, messages)?;
    let tokens = model.tokenize(&rendered.prompt, false, true).map_err(refused)?;
    Ok((rendered, tokens))
}

/// What `hearth.chat/1` answers.
#[derive(Deserialize, Default)]
pub(super) struct Rendered {
    pub(super) prompt: String,
    #[serde(default)]
    pub(super) stops: Vec<String>,
    #[serde(default)]
    pub(super) plain: bool,
    #[serde(default)]
    pub(super) parser: String,
    #[serde(default)]
    pub(super) grammar: String,
    #[serde(default)]
    pub(super) grammar_lazy: bool,
    #[serde(default)]
    pub(super) preserved: Vec<String>,
    #[serde(default)]
    pub(super) thinks: bool,
    #[serde(default)]
    pub(super) think_start: String,
    #[serde(default)]
    pub(super) think_ends: Vec<String>,
    #[serde(default)]
    pub(super) tools: bool,
}

pub(super) fn thinking(
    model: &Model,
    rendered: &Rendered,
    max_tokens: Option<u32>,
    is_constrained: bool,
) -> Result<Option<Thinking>, RpcError> {
    let Some(end) = rendered.think_ends.first().filter(|_| rendered.thinks) else {
        return Ok(None);
    };
    let closing = model.tokenize(&format!("\n{end}\n"), false, true).map_err(refused)?;
    Ok(Some(Thinking {
        start: rendered.think_start.clone(),
        ends: rendered.think_ends.clone(),
        closing,
        max_tokens,
        is_constrained,
    }))
}

fn render(model: &Model, params: &ChatParams, messages: &[&Message]) -> Result<Rendered, RpcError> {
    let mut request = Map::new();
    request.insert("messages".into(), messages.iter().copied().map(message).collect());
    if !params.tools.is_empty() {
        request.insert("tools".into(), params.tools.iter().map(tool).collect());
        let choice = match params.tool_choice {
            ToolChoice::Auto => "auto",
            ToolChoice::Required => "required",
            ToolChoice::None => "none",
        };
        request.insert("tool_choice".into(), choice.into());
    }
    request.insert("thinking".into(), params.think.unwrap_or(true).into());
    let answer = model.chat_render(&Value::Object(request).to_string()).map_err(refused)?;
    serde_json::from_str(&answer).map_err(|error| {
        RpcError::new(ErrorKind::Internal, format!("the backend answered no chat prompt: {error}"))
    })
}

/// In the shape of OpenAI's chat completions, which the plugin reads.
fn message(message: &Message) -> Value {
    let mut object = Map::new();
    let role = match message.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    object.insert("role".into(), role.into());
    object.insert("content".into(), message.content.as_str().into());
    if let Some(reasoning) = &message.reasoning {
        object.insert("reasoning_content".into(), reasoning.as_str().into());
    }
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.iter().map(|call| {
            json!({ "type": "function", "id": call.id, "function": { "name": call.name, "arguments": call.arguments } })
        });
        object.insert("tool_calls".into(), calls.collect());
    }
    if let Some(id) = &message.tool_call_id {
        object.insert("tool_call_id".into(), id.as_str().into());
    }
    Value::Object(object)
}

fn tool(tool: &Tool) -> Value {
    let parameters = if tool.parameters.is_null() { json!({}) } else { tool.parameters.clone() };
    json!({
        "type": "function",
        "function": { "name": tool.name, "description": tool.description, "parameters": parameters },
    })
}

pub(super) fn single_token(model: &Model, text: &str) -> Option<Token> {
    match model.tokenize(text, false, true).as_deref() {
        Ok([token]) => Some(*token),
        _ => None,
    }
}
