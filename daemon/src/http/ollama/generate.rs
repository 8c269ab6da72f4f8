//! `/api/generate`

use super::chat::no_images;
use super::metrics::{self, Chance, Metrics, chances};
use super::options::{self, Cut};
use super::{Answer, NDJSON, error_body, load, model_of, named, read};
use crate::http::body::{self, Asked};
use crate::http::{Core, invalid, json_response, or_default};
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use hearth_protocol::{
    ChatParams, ChatReply, ChatSend, Event, FinishReason, Generate, GenerateParams, GenerateReply,
    Logprob, Message, Options, Role, RpcError, Timings, ToolChoice, Usage,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::time::Instant;

#[derive(Deserialize)]
struct Request {
    #[serde(default, deserialize_with = "or_default")]
    model: String,
    #[serde(default, deserialize_with = "or_default")]
    prompt: String,
    #[serde(default, deserialize_with = "or_default")]
    suffix: String,
    #[serde(default, deserialize_with = "or_default")]
    system: String,
    #[serde(default, deserialize_with = "or_default")]
    template: String,
    #[serde(default, deserialize_with = "or_default")]
    context: Vec<i32>,
    #[serde(default, deserialize_with = "or_default")]
    raw: bool,
    stream: Option<bool>,
    format: Option<Value>,
    #[serde(default, deserialize_with = "or_default")]
    images: Vec<Value>,
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

/// One line of the answer.
#[derive(Serialize)]
struct Line<'a> {
    model: &'a str,
    created_at: String,
    response: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    thinking: String,
    done: bool,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    metrics: Option<Metrics>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logprobs: Vec<Chance>,
}

pub(super) async fn generate(core: Core, body: Body) -> Answer {
    let since = Instant::now();
    let Asked { value: request, held } = read::<Request>(&core, body).await?;
    model_of(&request.model)?;
    let model = request.model.clone();
    let streams = request.stream.unwrap_or(true);
    if request.raw
        && !(request.template.is_empty() && request.system.is_empty() && request.context.is_empty())
    {
        return Err(invalid("raw mode does not support template, system, or context").into());
    }
    if request.prompt.is_empty() && request.suffix.is_empty() && request.images.is_empty() {
        let keep_alive = options::keep_alive(request.keep_alive.as_ref())?;
        return load::load(&core, &model, keep_alive, ("response", "".into())).await;
    }
    no_images(&request.images)?;
    let mut options = options::options(
        &request.options,
        Cut { truncate: request.truncate, shift: request.shift },
    )?;
    options::logprobs(&mut options, request.logprobs, request.top_logprobs)?;
    if request.raw || !request.suffix.is_empty() {
        let running = core.start::<Generate>(continuation(request, options)?);
        answer(running, held, model, since, streams).await
    } else {
        let running = core.start::<ChatSend>(conversation(request, options)?);
        answer(running, held, model, since, streams).await
    }
}

fn continuation(request: Request, options: Options) -> Result<GenerateParams, RpcError> {
    Ok(GenerateParams {
        format: options::format(request.format)?,
        keep_alive: options::keep_alive(request.keep_alive.as_ref())?,
        model: request.model,
        prompt: request.prompt,
        suffix: Some(request.suffix).filter(|suffix| !suffix.is_empty()),
        raw: request.raw,
        options,
        request: None,
        timeout_ms: None,
    })
}

/// Without `raw` a prompt is a conversation's first message.
fn conversation(request: Request, options: Options) -> Result<ChatParams, RpcError> {
    let system = Some(request.system).filter(|text| !text.is_empty());
    let mut messages: Vec<_> =
        system.into_iter().map(|text| Message::text(Role::System, text)).collect();
    messages.push(Message::text(Role::User, request.prompt));
    Ok(ChatParams {
        messages,
        tools: Vec::new(),
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

/// What both kinds of answer come to.
struct Whole {
    text: String,
    thinking: String,
    finish: FinishReason,
    usage: Usage,
    timings: Timings,
    logprobs: Vec<Logprob>,
}

impl From<ChatReply> for Whole {
    fn from(reply: ChatReply) -> Self {
        Self {
            text: reply.message.content,
            thinking: reply.message.reasoning.unwrap_or_default(),
            finish: reply.finish,
            usage: reply.usage,
            timings: reply.timings,
            logprobs: reply.logprobs,
        }
    }
}

impl From<GenerateReply> for Whole {
    fn from(reply: GenerateReply) -> Self {
        Self {
            text: reply.text,
            thinking: String::new(),
            finish: reply.finish,
            usage: reply.usage,
            timings: reply.timings,
            logprobs: reply.logprobs,
        }
    }
}

async fn answer<R: Into<Whole> + Send + 'static>(
    running: crate::rpc::Running<Event<R>>,
    held: crate::listen::Held,
    model: String,
    since: Instant,
    streams: bool,
) -> Answer {
    let answering = body::begin(running, held).await.map_err(|error| named(&model, error))?;
    if !streams {
        let whole: Whole = answering.reply().await.map_err(|error| named(&model, error))?.into();
        let metrics = Metrics::new(since, whole.finish, &whole.usage, &whole.timings);
        let line = Line {
            model: &model,
            created_at: metrics::now(),
            response: whole.text,
            thinking: whole.thinking,
            done: true,
            metrics: Some(metrics),
            logprobs: chances(whole.logprobs),
        };
        return Ok(json_response(StatusCode::OK, &line));
    }
    Ok(stream(answering, model, since))
}

fn stream<R: Into<Whole> + Send + 'static>(
    answering: body::Answering<Event<R>>,
    model: String,
    since: Instant,
) -> Response {
    answering.stream(NDJSON, move |event, out| {
        let (mut response, mut thinking, mut metrics) = (String::new(), String::new(), None);
        let logprobs = match event {
            Event::Reasoning { text, logprobs, .. } => {
                thinking = text;
                logprobs
            }
            Event::Delta { text, logprobs, .. } => {
                response = text;
                logprobs
            }
            Event::Done { reply } => {
                let whole: Whole = reply.into();
                metrics = Some(Metrics::new(since, whole.finish, &whole.usage, &whole.timings));
                Vec::new()
            }
            Event::Error { error } => return super::write_line(&error_body(&error), out),
            _ => return,
        };
        let line = Line {
            model: &model,
            created_at: metrics::now(),
            response,
            thinking,
            done: metrics.is_some(),
            metrics,
            logprobs: chances(logprobs),
        };
        super::write_line(&line, out);
    })
}
