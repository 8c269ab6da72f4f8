//! `/api/chat`

use super::metrics::{self, Chance, Metrics, chances};
use super::options::{self, Cut};
use super::{Answer, NDJSON, can, error_body, load, model_of, named, read, unfit};
use crate::http::{
    Called, Core, DebugInfo, OfferedFunction, body, image_count, invalid, json_response, object_of,
    or_default,
};
use axum::body::Body;
use axum::http::StatusCode;
use hearth_protocol::{
    ChatParams, ChatRender, ChatReply, ChatSend, Event, Image, Message, Role, RpcError, ToolCall,
    ToolChoice,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::time::Instant;

#[derive(Deserialize, JsonSchema)]
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
    #[serde(default, rename = "_debug_render_only", deserialize_with = "or_default")]
    only_renders: bool,
}

#[derive(Deserialize, JsonSchema)]
struct Said {
    #[serde(default)]
    role: String,
    #[serde(default, deserialize_with = "or_default")]
    content: String,
    thinking: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    images: Vec<Image>,
    #[serde(default, deserialize_with = "or_default")]
    tool_calls: Vec<Called>,
    #[serde(default, deserialize_with = "or_default")]
    tool_call_id: String,
    #[serde(default, deserialize_with = "or_default")]
    tool_name: String,
}

#[derive(Deserialize, JsonSchema)]
struct Offered {
    function: OfferedFunction,
}

/// One line of the answer.
#[derive(Serialize, JsonSchema)]
pub(super) struct Line<'a> {
    model: &'a str,
    created_at: String,
    message: Spoken,
    done: bool,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    metrics: Option<Metrics>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logprobs: Vec<Chance>,
    #[serde(rename = "_debug_info", skip_serializing_if = "Option::is_none")]
    debug_info: Option<DebugInfo>,
}

#[derive(Default, Serialize, JsonSchema)]
struct Spoken {
    role: Assistant,
    content: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    thinking: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call>,
}

#[derive(Serialize, JsonSchema)]
struct Call {
    id: String,
    function: CallOf,
}

#[derive(Serialize, JsonSchema)]
struct CallOf {
    index: usize,
    name: String,
    arguments: Value,
}

#[derive(Default, Serialize, JsonSchema)]
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
    let only_renders = request.only_renders;
    let params = params(request)?;
    if params.think == Some(true) {
        can(&core, &model, "thinking", "thinking").await?;
    }
    if only_renders {
        let image_count = image_count(&params.messages);
        let shown = core.run::<ChatRender>(params).await.map_err(|error| named(&model, error))?;
        let debug_info = Some(DebugInfo { rendered_template: shown.prompt, image_count });
        let line = Line { debug_info, ..Line::new(&model, Spoken::default(), None, Vec::new()) };
        return Ok(json_response(StatusCode::OK, &line));
    }
    let running = core.start::<ChatSend>(params);
    let answering = match body::begin(running, asked.held).await {
        Ok(answering) => answering,
        Err(error) => return Err(unfit(&core, &model, ("completion", "chat"), error).await),
    };
    if !streams {
        let reply = answering.reply().await.map_err(|error| named(&model, error))?;
        return Ok(json_response(StatusCode::OK, &whole(&model, since, reply)));
    }
    let mut n_calls = 0;
    Ok(answering.stream(NDJSON, move |event, out| {
        let mut message = Spoken::default();
        let mut line = |message, metrics, logprobs| {
            super::write_line(&Line::new(&model, message, metrics, logprobs), out);
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
    Line::new(model, message, Some(metrics), chances(reply.logprobs))
}

impl<'a> Line<'a> {
    /// The last one has metrics.
    fn new(
        model: &'a str,
        message: Spoken,
        metrics: Option<Metrics>,
        logprobs: Vec<Chance>,
    ) -> Self {
        let (created_at, done) = (metrics::now(), metrics.is_some());
        Self { model, created_at, message, done, metrics, logprobs, debug_info: None }
    }
}

fn told(index: usize, call: &ToolCall) -> Call {
    let arguments = object_of(&call.arguments);
    Call { id: call.id.clone(), function: CallOf { index, name: call.name.clone(), arguments } }
}

fn params(request: Request) -> Result<ChatParams, RpcError> {
    let cut = Cut { truncate: request.truncate, shift: request.shift };
    let mut options = options::options(&request.options, cut)?;
    options::logprobs(&mut options, request.logprobs, request.top_logprobs)?;
    Ok(ChatParams {
        session: None,
        messages: messages(request.messages)?,
        template: None,
        tools: request.tools.into_iter().map(|tool| tool.function.into()).collect(),
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

/// Calls without an id get one, and a tool's answer without one is that to the first call of the tool that has none yet.
fn messages(said: Vec<Said>) -> Result<Vec<Message>, RpcError> {
    let (mut n_calls, mut open) = (0, Vec::<ToolCall>::new());
    said.into_iter()
        .map(|said| {
            let role = role(&said.role)?;
            let calls: Vec<_> =
                said.tool_calls.into_iter().map(|call| called(call, &mut n_calls)).collect();
            if !calls.is_empty() {
                open.clone_from(&calls);
            }
            let answers = |call: &ToolCall| match said.tool_call_id.as_str() {
                "" => said.tool_name.is_empty() || call.name == said.tool_name,
                id => call.id == id,
            };
            let answered = open.iter().position(|call| role == Role::Tool && answers(call));
            let answered = answered.map(|at| open.remove(at).id);
            Ok(Message {
                role,
                content: said.content,
                images: said.images,
                reasoning: said.thinking.filter(|text| !text.is_empty()),
                tool_calls: calls,
                tool_call_id: answered.or(Some(said.tool_call_id).filter(|id| !id.is_empty())),
            })
        })
        .collect()
}

fn role(name: &str) -> Result<Role, RpcError> {
    match name.to_lowercase().as_str() {
        "system" => Ok(Role::System),
        "user" => Ok(Role::User),
        "assistant" => Ok(Role::Assistant),
        "tool" => Ok(Role::Tool),
        other => Err(invalid(format!(
            "a message's role is `{other}`, and must be `system`, `user`, `assistant` or `tool`"
        ))),
    }
}

fn called(call: Called, n_calls: &mut usize) -> ToolCall {
    *n_calls += 1;
    ToolCall {
        id: if call.id.is_empty() { format!("call_{n_calls}") } else { call.id },
        arguments: call.function.arguments(),
        name: call.function.name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_names_its_tool_is_that_to_the_tools_call() {
        let call = |name| json!({ "function": { "name": name, "arguments": { "x": 1 } } });
        let answer = |name| json!({ "role": "tool", "tool_name": name, "content": "" });
        let said = json!([
            { "role": "assistant", "tool_calls": [call("a"), call("b"), call("a")] },
            answer("b"), answer("a"), { "role": "TOOL" }, answer("a"),
            { "role": "assistant", "tool_calls": [{ "id": "mine", "function": { "name": "a" } }] },
            { "role": "tool", "tool_call_id": "mine" },
        ]);
        let messages = messages(serde_json::from_value(said).unwrap()).unwrap();
        let ids: Vec<_> = messages[0].tool_calls.iter().map(|call| call.id.as_str()).collect();
        assert_eq!(ids, ["call_1", "call_2", "call_3"]);
        assert_eq!(messages[0].tool_calls[0].arguments, r#"{"x":1}"#);
        let answered: Vec<_> =
            messages.iter().map(|message| message.tool_call_id.as_deref().unwrap_or("-")).collect();
        assert_eq!(answered, ["-", "call_2", "call_1", "call_3", "-", "-", "mine"]);
    }
}
