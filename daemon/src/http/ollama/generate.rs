//! `/api/generate`

use super::metrics::{self, Chance, Metrics, chances};
use super::options::{self, Cut};
use super::{Answer, NDJSON, can, error_body, load, model_of, named, read, unfit};
use crate::http::body::{self, Asked};
use crate::http::{Core, DebugInfo, image_count, invalid, json_response, or_default};
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use hearth_protocol::{
    ChatParams, ChatRender, ChatReply, ChatSend, Event, FinishReason, Generate, GenerateParams,
    GenerateReply, Image, Logprob, Message, Options, Role, RpcError, Timings, ToolChoice, Usage,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::time::Instant;

#[derive(Deserialize, JsonSchema)]
pub(super) struct Request {
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
    context: Vec<i64>,
    #[serde(default, deserialize_with = "or_default")]
    raw: bool,
    stream: Option<bool>,
    format: Option<Value>,
    #[serde(default, deserialize_with = "or_default")]
    images: Vec<Image>,
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

/// One line of the answer.
#[derive(Serialize, JsonSchema)]
pub(super) struct Line<'a> {
    model: &'a str,
    created_at: String,
    response: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    thinking: String,
    done: bool,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    metrics: Option<Metrics>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    context: Vec<u8>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logprobs: Vec<Chance>,
    #[serde(rename = "_debug_info", skip_serializing_if = "Option::is_none")]
    debug_info: Option<DebugInfo>,
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
    let mut options = options::options(
        &request.options,
        Cut { truncate: request.truncate, shift: request.shift },
    )?;
    options::logprobs(&mut options, request.logprobs, request.top_logprobs)?;
    let about = About { model, since, streams, conversation: Vec::new() };
    let only_renders = request.only_renders;
    if request.raw || !request.suffix.is_empty() {
        let params = continuation(request, options)?;
        if only_renders {
            return rendered(&about.model, params.prompt, params.images.len());
        }
        let needs =
            if params.suffix.is_some() { ("insert", "insert") } else { ("completion", "generate") };
        return answer(&core, core.start::<Generate>(params), held, needs, about).await;
    }
    let params = conversation(request, options)?;
    if params.template.is_none() && params.think == Some(true) {
        can(&core, &about.model, "thinking", "thinking").await?;
    }
    if only_renders {
        let image_count = image_count(&params.messages);
        let shown = core.run::<ChatRender>(params).await;
        let prompt = shown.map_err(|error| named(&about.model, error))?.prompt;
        return rendered(&about.model, prompt, image_count);
    }
    let mut conversation = params.messages.clone();
    conversation.iter_mut().for_each(|message| message.images.clear());
    let about = About { conversation, ..about };
    answer(&core, core.start::<ChatSend>(params), held, ("completion", "generate"), about).await
}

/// Instead of an answer, what it would be one to.
fn rendered(model: &str, rendered_template: String, image_count: usize) -> Answer {
    let debug_info = Some(DebugInfo { rendered_template, image_count });
    let line = Line { debug_info, ..Line::new(model, String::new(), String::new(), Vec::new()) };
    Ok(json_response(StatusCode::OK, &line))
}

impl<'a> Line<'a> {
    /// One that is not the last.
    fn new(model: &'a str, response: String, thinking: String, logprobs: Vec<Chance>) -> Self {
        Self {
            model,
            created_at: metrics::now(),
            response,
            thinking,
            done: false,
            metrics: None,
            context: Vec::new(),
            logprobs,
            debug_info: None,
        }
    }
}

fn continuation(request: Request, options: Options) -> Result<GenerateParams, RpcError> {
    if !(request.template.is_empty() && request.context.is_empty()) {
        return Err(invalid("a suffix goes with neither template nor context"));
    }
    Ok(GenerateParams {
        format: options::format(request.format)?,
        keep_alive: options::keep_alive(request.keep_alive.as_ref())?,
        model: request.model,
        prompt: request.prompt,
        images: request.images,
        suffix: Some(request.suffix).filter(|suffix| !suffix.is_empty()),
        raw: request.raw,
        options,
        request: None,
        timeout_ms: None,
    })
}

/// Without `raw` a prompt is a conversation's first message.
fn conversation(request: Request, options: Options) -> Result<ChatParams, RpcError> {
    let mut messages = said_before(&request.context)?;
    if !request.system.is_empty() {
        messages.retain(|message| message.role != Role::System);
        messages.insert(0, Message::text(Role::System, request.system));
    }
    let prompt = Message::text(Role::User, request.prompt);
    messages.push(Message { images: request.images, ..prompt });
    Ok(ChatParams {
        session: None,
        messages,
        template: Some(request.template).filter(|template| !template.is_empty()),
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

/// `context` is what clients send back unread, so that the next prompt goes on. With Ollama it is tokens; here it is the
/// bytes of the messages, which the chat template sees again as what they are.
fn said_before(context: &[i64]) -> Result<Vec<Message>, RpcError> {
    if context.is_empty() {
        return Ok(Vec::new());
    }
    let bytes: Result<Vec<u8>, _> = context.iter().map(|byte| u8::try_from(*byte)).collect();
    bytes.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).ok_or_else(|| {
        invalid("the `context` is not from an answer of this daemon's")
            .with_hint("send the conversation to `/api/chat`")
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

/// What the lines of an answer say beside its text.
struct About {
    model: String,
    since: Instant,
    streams: bool,
    /// Up to the prompt, without images; empty where there is none.
    conversation: Vec<Message>,
}

impl About {
    fn last_line(&mut self, whole: Whole, response: String, thinking: String) -> Line<'_> {
        let mut context = Vec::new();
        if !self.conversation.is_empty() {
            self.conversation.push(Message::text(Role::Assistant, whole.text));
            context = serde_json::to_vec(&self.conversation).unwrap_or_default();
        }
        let metrics = Metrics::new(self.since, whole.finish, &whole.usage, &whole.timings);
        let line = Line::new(&self.model, response, thinking, Vec::new());
        Line { done: true, metrics: Some(metrics), context, ..line }
    }
}

/// A model that does not do it says so in words of `needs`: what it can do then, and how clients of Ollama know that.
async fn answer<R: Into<Whole> + Send + 'static>(
    core: &Core,
    running: crate::rpc::Running<Event<R>>,
    held: crate::listen::Held,
    needs: (&str, &str),
    mut about: About,
) -> Answer {
    let answering = match body::begin(running, held).await {
        Ok(answering) => answering,
        Err(error) => return Err(unfit(core, &about.model, needs, error).await),
    };
    if about.streams {
        return Ok(stream(answering, about));
    }
    let mut whole: Whole =
        answering.reply().await.map_err(|error| named(&about.model, error))?.into();
    let (text, thinking) = (whole.text.clone(), std::mem::take(&mut whole.thinking));
    let logprobs = chances(std::mem::take(&mut whole.logprobs));
    let line = Line { logprobs, ..about.last_line(whole, text, thinking) };
    Ok(json_response(StatusCode::OK, &line))
}

fn stream<R: Into<Whole> + Send + 'static>(
    answering: body::Answering<Event<R>>,
    mut about: About,
) -> Response {
    answering.stream(NDJSON, move |event, out| {
        let (mut response, mut thinking) = (String::new(), String::new());
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
                let line = about.last_line(reply.into(), response, thinking);
                return super::write_line(&line, out);
            }
            Event::Error { error } => return super::write_line(&error_body(&error), out),
            _ => return,
        };
        super::write_line(&Line::new(&about.model, response, thinking, chances(logprobs)), out);
    })
}
