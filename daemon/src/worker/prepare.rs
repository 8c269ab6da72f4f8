//! From a request's words to tokens: chat templates, tokenizing, constraints. Everything the plugin allows from any
//! thread, so that a long prompt is read while the engine computes others.

use super::engine_loop::{Command, EmbedJob};
use super::formats::Formats;
use super::frames::{Job, Reply, ToWorker};
use super::parsing::Parsing;
use super::present::{Answer, Present};
use super::public::PublicPrefix;
use super::sampling::sampling;
use super::tools;
use hearth_abi::host::Model;
use hearth_abi::raw::Token;
use hearth_abi::{PluginError, Status};
use hearth_engine::{Guide, Request, Thinking};
use hearth_protocol::{
    ChatParams, DetokenizeParams, DetokenizeReply, EmbedInput, EmbedParams, ErrorKind, Message,
    Options, Role, RpcError, TokenizeReply,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

/// What the thread takes, in order.
pub(super) enum Todo {
    Frame(ToWorker),
    Guide(Box<Result<Guide, PluginError>>),
}

pub(super) fn run(
    model: &Arc<Model>,
    todos: &Receiver<Todo>,
    later: &Sender<Todo>,
    engine: &Sender<Command>,
    present: &Sender<Present>,
) {
    let mut learned = Learned { formats: Formats::new(model), public: PublicPrefix::default() };
    while let Ok(todo) = todos.recv() {
        let frames = match todo {
            Todo::Frame(frame) => learned.formats.hold_back(frame, later).into_iter().collect(),
            Todo::Guide(guide) => learned.formats.take_guide(*guide),
        };
        for frame in frames {
            let sent = match frame {
                ToWorker::Submit { id, owner, seed, job } => {
                    match prepare(model, &mut learned, id, owner, seed, job, present) {
                        Ok(Some(command)) => engine.send(command).is_ok(),
                        Ok(None) => true,
                        Err(error) => present.send(Present::Failed { id, error }).is_ok(),
                    }
                }
                ToWorker::Cancel { id } if learned.formats.forget(id) => {
                    let error = RpcError::new(ErrorKind::Cancelled, "the request was cancelled");
                    present.send(Present::Failed { id, error }).is_ok()
                }
                ToWorker::Cancel { id } => engine.send(Command::Cancel(id)).is_ok(),
                ToWorker::Load(_) => true,
            };
            if !sent {
                return;
            }
        }
    }
}

/// What is made once for a model, when it is needed first.
struct Learned<'a> {
    formats: Formats<'a>,
    public: PublicPrefix,
}

/// Answers work for the engine, unless the job is done already.
fn prepare(
    model: &Arc<Model>,
    learned: &mut Learned<'_>,
    id: u64,
    owner: u32,
    seed: u64,
    job: Job,
    present: &Sender<Present>,
) -> Result<Option<Command>, RpcError> {
    match job {
        Job::Chat(params) => {
            generates(model)?;
            let rendered = render(model, &params)?;
            let mut request = request(model, id, owner, seed, &params.options)?;
            request.prompt = model.tokenize(&rendered.prompt, false, true).map_err(refused)?;
            request.n_public =
                learned.public.of(model, params.think.unwrap_or(true), &request.prompt);
            request.stops.extend_from_slice(&rendered.stops);
            let thinks_by_grammar = params.format.is_none() && rendered.grammar_thinks;
            request.thinking = thinking(model, &rendered, params.think_tokens, thinks_by_grammar)?;
            request.spelled =
                rendered.preserved.iter().filter_map(|text| single_token(model, text)).collect();
            request.constraint = match &params.format {
                Some(_) if tools::must_call(&params) => {
                    return Err(RpcError::new(
                        ErrorKind::InvalidParams,
                        "a `format` and a required tool call exclude each other",
                    )
                    .with_hint("leave out one of them"));
                }
                Some(format) => Some(learned.formats.constraint(format)?),
                None => tools::constraint(model, &rendered)?,
            };
            let parsing =
                (!rendered.plain).then(|| Parsing::new(Arc::clone(model), rendered.parser, seed));
            let _ = present.send(Present::Begin { id, answer: Answer::chat(model, parsing) });
            Ok(Some(Command::Submit(Box::new(request))))
        }
        Job::Generate(params) => {
            generates(model)?;
            let mut request = request(model, id, owner, seed, &params.options)?;
            request.prompt =
                model.tokenize(&params.prompt, !params.raw, params.raw).map_err(refused)?;
            request.constraint = params
                .format
                .as_ref()
                .map(|format| learned.formats.constraint(format))
                .transpose()?;
            let _ = present.send(Present::Begin { id, answer: Answer::generate(model) });
            Ok(Some(Command::Submit(Box::new(request))))
        }
        Job::Embed(params) => embed(model, id, params).map(Some),
        Job::Tokenize(params) => {
            let tokens = model
                .tokenize(&params.text, params.add_special, params.parse_special)
                .map_err(refused)?;
            reply(present, id, Reply::Tokenize(TokenizeReply { tokens }))
        }
        Job::Detokenize(params) => {
            let text = detokenize(model, &params)?;
            reply(present, id, Reply::Detokenize(DetokenizeReply { text }))
        }
    }
}

fn reply(present: &Sender<Present>, id: u64, reply: Reply) -> Result<Option<Command>, RpcError> {
    let _ = present.send(Present::Reply { id, reply: Box::new(reply) });
    Ok(None)
}

fn generates(model: &Model) -> Result<(), RpcError> {
    if model.info().can_generate {
        return Ok(());
    }
    let architecture = &model.info().architecture;
    Err(RpcError::new(
        ErrorKind::Unsupported,
        format!("this model (`{architecture}`) yields embeddings and writes no text"),
    )
    .with_hint("use it with the method `embed`"))
}

fn request(
    model: &Arc<Model>,
    id: u64,
    owner: u32,
    seed: u64,
    options: &Options,
) -> Result<Request, RpcError> {
    Ok(Request {
        id,
        owner,
        prompt: Vec::new(),
        n_public: 0,
        max_context: options.context,
        sampling: sampling(model, options, seed)?,
        stops: options.stop.clone(),
        max_tokens: options.max_tokens,
        constraint: None,
        thinking: None,
        spelled: Vec::new(),
    })
}

/// What `hearth.chat/1` answers.
#[derive(Deserialize)]
pub(super) struct Rendered {
    prompt: String,
    #[serde(default)]
    stops: Vec<String>,
    #[serde(default)]
    plain: bool,
    #[serde(default)]
    parser: String,
    #[serde(default)]
    pub(super) grammar: String,
    #[serde(default)]
    pub(super) grammar_prefix: String,
    #[serde(default)]
    grammar_thinks: bool,
    #[serde(default)]
    pub(super) grammar_lazy: bool,
    #[serde(default)]
    pub(super) triggers: Vec<tools::Trigger>,
    #[serde(default)]
    preserved: Vec<String>,
    #[serde(default)]
    thinks: bool,
    #[serde(default)]
    think_start: String,
    #[serde(default)]
    think_ends: Vec<String>,
}

fn thinking(
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

fn render(model: &Model, params: &ChatParams) -> Result<Rendered, RpcError> {
    let mut request = Map::new();
    request.insert("messages".into(), params.messages.iter().map(message).collect());
    tools::offer(params, &mut request)?;
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

fn single_token(model: &Model, text: &str) -> Option<Token> {
    match model.tokenize(text, false, true).as_deref() {
        Ok([token]) => Some(*token),
        _ => None,
    }
}

fn embed(model: &Model, id: u64, params: EmbedParams) -> Result<Command, RpcError> {
    if !model.info().can_embed {
        return Err(RpcError::new(ErrorKind::Unsupported, "this model yields no embeddings"));
    }
    let texts = match params.input {
        EmbedInput::One(text) => vec![text],
        EmbedInput::Many(texts) => texts,
    };
    let texts = texts
        .iter()
        .map(|text| model.tokenize(text, true, false))
        .collect::<Result<_, _>>()
        .map_err(refused)?;
    Ok(Command::Embed(EmbedJob { id, texts, normalize: params.normalize, embeddings: Vec::new() }))
}

fn detokenize(model: &Model, params: &DetokenizeParams) -> Result<String, RpcError> {
    let bytes = model.detokenize(&params.tokens, params.special).map_err(refused)?;
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

pub(super) fn refused(error: PluginError) -> RpcError {
    let kind = match error.status {
        Status::InvalidArgument => ErrorKind::InvalidParams,
        Status::Unsupported => ErrorKind::Unsupported,
        _ => ErrorKind::Internal,
    };
    RpcError::new(kind, error.message)
}
