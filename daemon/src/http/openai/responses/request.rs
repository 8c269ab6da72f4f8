//! A request for a response: what the daemon is asked for it, and what of it the response repeats.

use super::super::options;
use super::items::{self, Item};
use crate::http::{OfferedFunction, invalid, or_default};
use hearth_protocol::{
    ChatParams, ErrorKind, Format, Message, Options, Role, RpcError, Tool, ToolChoice,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize, JsonSchema)]
pub(super) struct Request {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) model: String,
    #[serde(default, deserialize_with = "or_default")]
    input: Input,
    instructions: Option<String>,
    pub(super) previous_response_id: Option<String>,
    conversation: Option<Conversation>,
    pub(super) store: Option<bool>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) background: bool,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) stream: bool,
    #[serde(default, deserialize_with = "or_default")]
    tools: Vec<Value>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    #[serde(default, deserialize_with = "or_default")]
    text: Text,
    #[serde(default, deserialize_with = "or_default")]
    reasoning: Reasoning,
    max_output_tokens: Option<u32>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_logprobs: Option<u32>,
    #[serde(default, deserialize_with = "or_default")]
    include: Vec<String>,
    truncation: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    metadata: Map<String, Value>,
    user: Option<String>,
    prompt_cache_key: Option<String>,
    safety_identifier: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged, expecting = "`input` is neither a text nor a list of items")]
enum Input {
    Text(String),
    Items(Vec<Value>),
}

impl Default for Input {
    fn default() -> Self {
        Self::Items(Vec::new())
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum Conversation {
    Id(String),
    Object { id: String },
}

#[derive(Default, Deserialize, JsonSchema)]
struct Text {
    format: Option<Value>,
    verbosity: Option<Value>,
}

#[derive(Default, Deserialize, JsonSchema)]
struct Reasoning {
    effort: Option<String>,
    summary: Option<String>,
    generate_summary: Option<String>,
}

/// What a request asks for, apart from what was said before it.
pub(super) struct Asked {
    /// With what is new in it; nothing of what was said before.
    pub(super) params: ChatParams,
    /// The items, as they came but each with an id.
    pub(super) input: Vec<Value>,
    /// What the response repeats.
    pub(super) repeated: Map<String, Value>,
    /// Thoughts are told as a summary.
    pub(super) summarizes: bool,
    /// Thoughts are given once more for clients that send them back in a form of which they know nothing.
    pub(super) encloses: bool,
    pub(super) instructions: Option<String>,
}

impl Request {
    pub(super) fn stores(&self) -> bool {
        self.store.unwrap_or(true)
    }

    /// The session that it is a turn of.
    pub(super) fn conversation(&self) -> Option<&str> {
        match self.conversation.as_ref()? {
            Conversation::Id(id) | Conversation::Object { id } => Some(id),
        }
    }

    pub(super) fn check(&self) -> Result<(), RpcError> {
        if self.background && !self.stores() {
            return Err(invalid("`background` needs `store`: its response is to be fetched later"));
        }
        if self.conversation.is_some() && self.previous_response_id.is_some() {
            return Err(invalid(
                "a response follows `previous_response_id` or is in a `conversation`, not both",
            ));
        }
        match self.truncation.as_deref() {
            None | Some("auto" | "disabled") => Ok(()),
            Some(other) => {
                Err(invalid(format!("`truncation` is `{other}`, and must be `auto` or `disabled`")))
            }
        }
    }

    pub(super) fn asked(self) -> Result<Asked, RpcError> {
        let summary = self.reasoning.summary.clone().or(self.reasoning.generate_summary.clone());
        let choice = self.tool_choice.clone().unwrap_or_else(|| json!("auto"));
        let text_as = self.text.format.clone().unwrap_or_else(|| json!({ "type": "text" }));
        let includes = |what: &str| self.include.iter().any(|included| included == what);
        let mut tools = self.tools.iter().map(tool).collect::<Result<Vec<_>, _>>()?;
        let tool_choice = tool_choice(&choice, &mut tools)?;
        let chances = includes("message.output_text.logprobs");
        let options = Options {
            temperature: Some(self.temperature.unwrap_or(1.0)),
            top_p: Some(self.top_p.unwrap_or(1.0)),
            max_tokens: self.max_output_tokens,
            logprobs: chances.then_some(true),
            top_logprobs: self.top_logprobs.filter(|top| chances && *top > 0),
            truncate: (self.truncation.as_deref() == Some("auto")).then_some(true),
            ..Options::default()
        };
        let repeated = json!({
            "background": self.background,
            "instructions": self.instructions,
            "max_output_tokens": self.max_output_tokens,
            "max_tool_calls": null,
            "metadata": self.metadata,
            "parallel_tool_calls": self.parallel_tool_calls.unwrap_or(true),
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "previous_response_id": self.previous_response_id,
            "prompt_cache_key": self.prompt_cache_key,
            "reasoning": { "effort": self.reasoning.effort, "summary": summary },
            "safety_identifier": self.safety_identifier,
            "service_tier": "default",
            "store": self.stores(),
            "temperature": self.temperature.unwrap_or(1.0),
            "text": { "format": text_as, "verbosity": self.text.verbosity },
            "tool_choice": choice,
            "tools": self.tools,
            "top_logprobs": self.top_logprobs.unwrap_or(0),
            "top_p": self.top_p.unwrap_or(1.0),
            "truncation": self.truncation.as_deref().unwrap_or("disabled"),
            "user": self.user,
        });
        let repeated = repeated.as_object().cloned().unwrap_or_default();
        let encloses = includes("reasoning.encrypted_content");
        let format = text_format(&text_as)?;
        let input = items::with_ids(match self.input {
            Input::Text(text) => {
                vec![json!({ "type": "message", "role": "user", "content": text })]
            }
            Input::Items(items) => items,
        });
        let messages = items::messages(input.iter().map(Item::of).collect::<Result<_, _>>()?)?;
        if messages.is_empty() {
            return Err(invalid("`input` has no item"));
        }
        let params = ChatParams {
            session: None,
            model: self.model,
            messages,
            template: None,
            tools,
            tool_choice,
            parallel_tool_calls: self.parallel_tool_calls,
            format,
            think: options::think(self.reasoning.effort.as_deref())?,
            think_tokens: None,
            options,
            keep_alive: None,
            request: None,
            timeout_ms: None,
        };
        let summarizes = summary.is_some();
        let instructions = self.instructions;
        Ok(Asked { params, input, repeated, summarizes, encloses, instructions })
    }
}

impl Asked {
    /// Puts before what is new what was said before it, and answers what is new.
    pub(super) fn follow(&mut self, system: Option<String>, before: Vec<Message>) -> Vec<Message> {
        let system = system.into_iter().chain(self.instructions.take());
        let system = system.map(|text| Message::text(Role::System, text));
        let all = system.chain(before).collect();
        let new = std::mem::replace(&mut self.params.messages, all);
        self.params.messages.extend_from_slice(&new);
        new
    }
}

fn tool(tool: &Value) -> Result<Tool, RpcError> {
    match tool["type"].as_str() {
        Some("function") => OfferedFunction::deserialize(tool)
            .map(Tool::from)
            .map_err(|error| invalid(format!("a tool does not fit: {error}"))),
        other => Err(RpcError::new(
            ErrorKind::Unsupported,
            format!("a tool has the type `{}`, which is not run here", other.unwrap_or_default()),
        )
        .with_hint("offer tools of the type `function`, which the client runs")),
    }
}

/// A choice among a few leaves the others out.
fn tool_choice(choice: &Value, tools: &mut Vec<Tool>) -> Result<ToolChoice, RpcError> {
    let (kind, mode) = (choice["type"].as_str(), choice["mode"].as_str());
    match (choice.as_str(), kind) {
        (Some(word), _) => choice_of(word),
        (None, Some("function")) => match choice["name"].as_str() {
            Some(name) => Ok(ToolChoice::Tool(name.into())),
            None => Err(invalid("`tool_choice` is a function without a `name`")),
        },
        (None, Some("allowed_tools")) => {
            let allowed = choice["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
            tools.retain(|tool| allowed.iter().any(|one| one["name"] == *tool.name));
            choice_of(mode.unwrap_or("auto"))
        }
        (None, kind) => choice_of(kind.unwrap_or_default()),
    }
}

fn choice_of(word: &str) -> Result<ToolChoice, RpcError> {
    match word {
        "auto" => Ok(ToolChoice::Auto),
        "none" => Ok(ToolChoice::None),
        "required" => Ok(ToolChoice::Required),
        other => Err(invalid(format!(
            "`tool_choice` is `{other}`, and must be `auto`, `none`, `required`, a `function` with its name or `allowed_tools`"
        ))),
    }
}

/// Every schema is kept to the letter, with `strict` and without.
fn text_format(format: &Value) -> Result<Option<Format>, RpcError> {
    match (format["type"].as_str(), format["schema"].clone()) {
        (Some("text"), _) => Ok(None),
        (Some("json_object"), _) => Ok(Some(Format::Json)),
        (Some("json_schema"), Value::Null) => Err(invalid("`text.format.schema` is missing")),
        (Some("json_schema"), schema) => Ok(Some(Format::JsonSchema(schema))),
        (other, _) => Err(invalid(format!(
            "`text.format.type` is `{}`, and must be `text`, `json_object` or `json_schema`",
            other.unwrap_or_default()
        ))),
    }
}
