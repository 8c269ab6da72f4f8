//! From a request's words to tokens: prompts, tokenizing, constraints. Everything the plugin allows from any
//! thread, so that a long prompt is read while the engine computes others.

use super::engine_loop::{Command, EmbedJob};
use super::formats::Formats;
use super::frames::{Job, Reply, ToWorker};
use super::present::{Answer, Parsing, Present};
use super::preset::Preset;
use super::public::PublicPrefix;
use super::render::Renderer;
use super::sampling::sampling;
use crate::chat_template::Chat;
use hearth_abi::host::Model;
use hearth_abi::raw::Token;
use hearth_abi::{PluginError, Status};
use hearth_engine::{Guide, Request, Thinking};
use hearth_protocol::{
    DetokenizeParams, DetokenizeReply, EmbedInput, EmbedParams, ErrorKind, Options, RpcError,
    TokenizeReply, ToolChoice,
};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

/// What the thread takes, in order.
pub(super) enum Todo {
    Frame(ToWorker),
    Guide(Box<Result<Guide, PluginError>>),
}

pub(super) fn run(
    model: &Arc<Model>,
    preset: Preset,
    todos: &Receiver<Todo>,
    later: &Sender<Todo>,
    engine: &Sender<Command>,
    present: &Sender<Present>,
) {
    let mut learned = Learned {
        formats: Formats::new(model),
        renderer: Renderer::new(model, preset.template.as_deref()),
        preset,
        public: PublicPrefix::default(),
    };
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

/// What is known of a model beside its vocabulary, some of it only once it is needed.
struct Learned<'a> {
    formats: Formats<'a>,
    renderer: Renderer,
    preset: Preset,
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
            let renderer = &learned.renderer;
            let think = renderer.think(params.think);
            let chat = Chat {
                messages: &learned.preset.begin(&params.messages),
                tools: &params.tools,
                think,
            };
            let prompt = renderer.chat(&chat, params.tool_choice)?;
            if !params.tools.is_empty() && params.tool_choice != ToolChoice::None && !prompt.tools {
                return Err(RpcError::new(
                    ErrorKind::Unsupported,
                    "this model's chat template knows no tools",
                )
                .with_hint(
                    "send the request without tools, or use a model that was made for them",
                ));
            }
            let options = learned.preset.options(&params.options);
            let mut request = request(model, id, owner, seed, &options)?;
            request.n_public = learned.public.of(renderer, &learned.preset, think, &prompt.tokens);
            request.prompt = prompt.tokens;
            request.stops.extend(prompt.stops);
            request.thinking = thinking(
                model,
                prompt.thoughts,
                params.think_tokens,
                // The template's own grammar begins with the thoughts; a format is the answer's.
                params.format.is_none(),
            )?;
            request.spelled =
                prompt.spelled.iter().filter_map(|text| single_token(model, text)).collect();
            request.constraint = match (&params.format, &prompt.grammar) {
                (Some(_), _) if params.tool_choice == ToolChoice::Required => {
                    return Err(RpcError::new(
                        ErrorKind::InvalidParams,
                        "a `format` and a required tool call exclude each other",
                    )
                    .with_hint("leave out one of them"));
                }
                (Some(format), _) => Some(learned.formats.constraint(format)?),
                (None, Some(grammar)) => Some(learned.formats.grammar(grammar)?.into()),
                (None, None) => None,
            };
            let parsing = prompt.reading.map(Parsing::new);
            let _ = present.send(Present::Begin { id, answer: Answer::chat(model, parsing) });
            Ok(Some(Command::Submit(Box::new(request))))
        }
        Job::Generate(params) => {
            generates(model)?;
            let options = learned.preset.options(&params.options);
            let mut request = request(model, id, owner, seed, &options)?;
            request.prompt = match &params.suffix {
                None => model.tokenize(&params.prompt, !params.raw, params.raw).map_err(refused)?,
                Some(_) if params.raw => {
                    return Err(RpcError::new(
                        ErrorKind::InvalidParams,
                        "`raw` and a `suffix` exclude each other",
                    )
                    .with_hint("leave out one of them"));
                }
                Some(suffix) => learned.renderer.between(&params.prompt, suffix)?,
            };
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

fn thinking(
    model: &Model,
    thoughts: Option<(String, Vec<String>)>,
    max_tokens: Option<u32>,
    is_constrained: bool,
) -> Result<Option<Thinking>, RpcError> {
    let Some((start, ends)) = thoughts.filter(|(_, ends)| !ends.is_empty()) else {
        return Ok(None);
    };
    let closing = model.tokenize(&format!("\n{}\n", ends[0]), false, true).map_err(refused)?;
    Ok(Some(Thinking { start, ends, closing, max_tokens, is_constrained }))
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
