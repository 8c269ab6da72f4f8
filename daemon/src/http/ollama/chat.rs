//! `/api/chat`

use super::metrics::{self, Chance, Metrics, chances};
use super::options::{self, Cut};
use super::{Answer, NDJSON, error_body, load, model_of, named, read};
use crate::http::{Core, body, invalid, json_response, object_of, or_default};
use axum::body::Body;
use axum::http::StatusCode;
use hearth_protocol::{
    ChatParams, ChatReply, ChatSend, Event, Message, Role, RpcError, Tool, ToolCall, ToolChoice,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::time::Instant;

#[derive(Deserialize)]
pub(super) struct Request {
    #[serde(default, deserialize_with = "or_default")]
    model: String,
    #[serde(default, deserialize_with = "or_default")]
    messages: Vec<Said>,
    stream: Option<bool>,
    format: Option<Value>,
    #[serde(default, deserialize_with = "or_default")]
    tools: Vec<Offered>,
    keep_alive: Option<Value>,
    #[serde(default, deserialize_with = "or_default")]
    options: Map<String, Value>,
    think: Option<Value>,
    truncate: Option<bool>,
    shift: Option<bool>,
    #[serde(default, deserialize_with = "or_default")]
    logprobs: bool,
    top_logprobs: Option<i64>,
}

#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    role: String,
    #[serde(default, deserialize_with = "or_default")]
    content: String,
    thinking: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    images: Vec<Value>,
    #[serde(default, deserialize_with = "or_default")]
    tool_calls: Vec<Called>,
    tool_call_id: Option<String>,
}

#[derive(Deserialize)]
struct Called {
    #[serde(default, deserialize_with = "or_default")]
    id: String,
    function: CalledFunction,
}

#[derive(Deserialize)]
struct CalledFunction {
    #[serde(default)]
    name: String,
    #[serde(default)]
    arguments: Value,
}

#[derive(Deserialize)]
struct Offered {
    function: OfferedFunction,
}

#[derive(Deserialize)]
struct OfferedFunction {
    #[serde(default)]
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    description: String,
    #[serde(default)]
    parameters: Value,
}

/// One line of the answer.
#[derive(Serialize)]
struct Line<'a> {
    model: &'a str,
    created_at: String,
    message: Spoken,
    done: bool,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    metrics: Option<Metrics>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logprobs: Vec<Chance>,
}

#[derive(Default, Serialize)]
struct Spoken {
    role: Assistant,
    content: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    thinking: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Value>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "lowercase")]
enum Assistant {
    #[default]
    Assistant,
}

pub(super) async fn chat(core: Core, body: Body) -> Answer {
    let since = Instant::now();
    let asked = read::<Request>(&core, body).await?;
    let request = asked.value;
    model_of(&request.model)?;
    let model = request.model.clone();
    let streams = request.stream.unwrap_or(true);
    if request.messages.is_empty() {
        let keep_alive = options::keep_alive(request.keep_alive.as_ref())?;
        let nothing = json!({ "role": "assistant", "content": "" });
        return load::load(&core, &model, keep_alive, ("message", nothing)).await;
    }
    let running = core.start::<ChatSend>(params(request)?);
    let answering = body::begin(running, asked.held).await.map_err(|error| named(&model, error))?;
    if !streams {
        let reply = answering.reply().await.map_err(|error| named(&model, error))?;
        return Ok(json_response(StatusCode::OK, &whole(&model, since, reply)));
    }
    let mut n_calls = 0;
    Ok(answering.stream(NDJSON, move |event, out| {
        let mut message = Spoken::default();
        let mut line = |message, metrics, logprobs| {
            let created_at = metrics::now();
            let done = Option::is_some(&metrics);
            let line = Line { model: &model, created_at, message, done, metrics, logprobs };
            super::write_line(&line, out);
        };
        match event {
            Event::Reasoning { text, logprobs, .. } => {
                message.thinking = text;
                line(message, None, chances(logprobs));
            }
            Event::Delta { text, logprobs, .. } => {
                message.content = text;
                line(message, None, chances(logprobs));
            }
            Event::ToolCall { call, .. } => {
                message.tool_calls.push(told(n_calls, &call));
                n_calls += 1;
                line(message, None, Vec::new());
            }
            Event::Done { reply } => {
                let metrics = Metrics::new(since, reply.finish, &reply.usage, &reply.timings);
                line(message, Some(metrics), Vec::new());
            }
            Event::Error { error } => super::write_line(&error_body(&error), out),
            _ => {}
        }
    }))
}

fn whole(model: &str, since: Instant, reply: ChatReply) -> Line<'_> {
    let metrics = Metrics::new(since, reply.finish, &reply.usage, &reply.timings);
    let calls = reply.message.tool_calls.iter().enumerate();
    let message = Spoken {
        tool_calls: calls.map(|(index, call)| told(index, call)).collect(),
        content: reply.message.content,
        thinking: reply.message.reasoning.unwrap_or_default(),
        role: Assistant::Assistant,
    };
    let logprobs = chances(reply.logprobs);
    Line {
        model,
        created_at: metrics::now(),
        message,
        done: true,
        metrics: Some(metrics),
        logprobs,
    }
}

fn told(index: usize, call: &ToolCall) -> Value {
    json!({
        "id": call.id,
        "function": { "index": index, "name": call.name, "arguments": object_of(&call.arguments) },
    })
}

fn params(request: Request) -> Result<ChatParams, RpcError> {
    let cut = Cut { truncate: request.truncate, shift: request.shift };
    let mut options = options::options(&request.options, cut)?;
    options::logprobs(&mut options, request.logprobs, request.top_logprobs)?;
    Ok(ChatParams {
        messages: request.messages.into_iter().map(message).collect::<Result<_, _>>()?,
        tools: request.tools.into_iter().map(tool).collect(),
        tool_choice: ToolChoice::Auto,
        parallel_tool_calls: None,
        format: options::format(request.format)?,
        think: options::think(request.think.as_ref())?,
        think_tokens: None,
        options,
        keep_alive: options::keep_alive(request.keep_alive.as_ref())?,
        request: None,
        timeout_ms: None,
        model: request.model,
    })
}

fn message(said: Said) -> Result<Message, RpcError> {
    let role = match said.role.to_lowercase().as_str() {
        "system" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        other => {
            return Err(invalid(format!(
                "a message's role is `{other}`, and must be `system`, `user`, `assistant` or `tool`"
            )));
        }
    };
    no_images(&said.images)?;
    let calls = said.tool_calls.into_iter().enumerate().map(|(index, call)| ToolCall {
        id: if call.id.is_empty() { format!("call_{index}") } else { call.id },
        name: call.function.name,
        arguments: match call.function.arguments {
            Value::Null => "{}".into(),
            Value::String(text) => text,
            arguments => arguments.to_string(),
        },
    });
    Ok(Message {
        role,
        content: said.content,
        reasoning: said.thinking.filter(|text| !text.is_empty()),
        tool_calls: calls.collect(),
        tool_call_id: said.tool_call_id,
    })
}

pub(super) fn no_images(images: &[Value]) -> Result<(), RpcError> {
    if images.is_empty() {
        return Ok(());
    }
    Err(RpcError::new(
        hearth_protocol::ErrorKind::Unsupported,
        "this model is missing data required for image input",
    )
    .with_hint("no backend here reads images yet"))
}

fn tool(offered: Offered) -> Tool {
    let OfferedFunction { name, description, parameters } = offered.function;
    Tool { name, description, parameters }
}
