//! A request for a chat completion, and what the daemon is asked for it.

use super::content::Content;
use super::options::{self, ResponseFormat, Sampling};
use crate::http::{Called, OfferedFunction, invalid, or_default};
use hearth_protocol::{ChatParams, Message, Role, RpcError, Tool, ToolCall, ToolChoice};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
pub(super) struct Request {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) model: String,
    #[serde(default, deserialize_with = "or_default")]
    messages: Vec<Said>,
    #[serde(flatten)]
    pub(super) sampling: Sampling,
    #[serde(default, deserialize_with = "or_default")]
    tools: Vec<Offered>,
    tool_choice: Option<Choice>,
    parallel_tool_calls: Option<bool>,
    response_format: Option<ResponseFormat>,
    #[serde(default, deserialize_with = "or_default")]
    logprobs: bool,
    top_logprobs: Option<u32>,
    reasoning_effort: Option<String>,
    reasoning: Option<Reasoning>,
    #[serde(default, rename = "_debug_render_only", deserialize_with = "or_default")]
    pub(super) only_renders: bool,
}

#[derive(Deserialize, JsonSchema)]
struct Reasoning {
    effort: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
struct Said {
    #[serde(default, deserialize_with = "or_default")]
    role: String,
    #[serde(default, deserialize_with = "or_default")]
    content: Content,
    reasoning: Option<String>,
    reasoning_content: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    tool_calls: Vec<Called>,
    tool_call_id: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
struct Offered {
    #[serde(rename = "type", default)]
    kind: String,
    function: Option<OfferedFunction>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum Choice {
    Word(String),
    Tool {
        #[serde(rename = "type")]
        kind: String,
        function: Option<ChosenFunction>,
    },
}

#[derive(Deserialize, JsonSchema)]
struct ChosenFunction {
    name: String,
}

pub(super) fn params(request: Request) -> Result<ChatParams, RpcError> {
    if request.messages.is_empty() {
        return Err(invalid("`messages` has no message"));
    }
    let effort = request.reasoning_effort.or(request.reasoning.and_then(|asked| asked.effort));
    let mut options = request.sampling.options()?;
    if request.logprobs {
        options.logprobs = Some(true);
        options.top_logprobs = request.top_logprobs.filter(|top| *top > 0);
    } else if request.top_logprobs.is_some_and(|top| top > 0) {
        return Err(invalid("`top_logprobs` is there without `logprobs`"));
    }
    Ok(ChatParams {
        session: None,
        template: None,
        messages: request.messages.into_iter().map(message).collect::<Result<_, _>>()?,
        tools: request.tools.into_iter().map(tool).collect::<Result<_, _>>()?,
        tool_choice: choice(request.tool_choice)?,
        parallel_tool_calls: request.parallel_tool_calls,
        format: options::format(request.response_format)?,
        think: options::think(effort.as_deref())?,
        think_tokens: None,
        options,
        keep_alive: None,
        request: None,
        timeout_ms: None,
        model: request.model,
    })
}

fn message(said: Said) -> Result<Message, RpcError> {
    let role = match said.role.as_str() {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        other => {
            return Err(invalid(format!(
                "a message's role is `{other}`, and must be `system`, `developer`, `user`, `assistant` or `tool`"
            )));
        }
    };
    let calls = said.tool_calls.into_iter().map(|call| ToolCall {
        arguments: match call.function.arguments() {
            text if text.is_empty() => "{}".into(),
            text => text,
        },
        id: call.id,
        name: call.function.name,
    });
    let reasoning = said.reasoning_content.or(said.reasoning);
    let (content, images) = said.content.read()?;
    Ok(Message {
        role,
        content,
        images,
        reasoning: reasoning.filter(|text| !text.is_empty()),
        tool_calls: calls.collect(),
        tool_call_id: said.tool_call_id,
    })
}

fn tool(offered: Offered) -> Result<Tool, RpcError> {
    match offered {
        Offered { kind, function: Some(function) } if kind == "function" => Ok(function.into()),
        Offered { kind, .. } => Err(invalid(format!(
            "a tool has the type `{kind}`, and must be a `function` with its `function`"
        ))),
    }
}

fn choice(choice: Option<Choice>) -> Result<ToolChoice, RpcError> {
    match choice {
        None => Ok(ToolChoice::Auto),
        Some(Choice::Tool { kind, function: Some(function) }) if kind == "function" => {
            Ok(ToolChoice::Tool(function.name))
        }
        Some(Choice::Word(word)) => match word.as_str() {
            "auto" => Ok(ToolChoice::Auto),
            "none" => Ok(ToolChoice::None),
            "required" => Ok(ToolChoice::Required),
            other => Err(wrong_choice(other)),
        },
        Some(Choice::Tool { kind, .. }) => Err(wrong_choice(&kind)),
    }
}

fn wrong_choice(choice: &str) -> RpcError {
    invalid(format!(
        "`tool_choice` is `{choice}`, and must be `auto`, `none`, `required` or a `function` with its name"
    ))
}
