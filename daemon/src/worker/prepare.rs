//! From a request's words to tokens: prompts, tokenizing, constraints. Everything the plugin allows from any
//! thread, so that a long prompt is read while the engine computes others.

use super::answer::Answer;
use super::candidates::{self, engine_id};
use super::chat::{Conversation, single_token, thinking};
use super::engine_loop::{Command, EmbedJob, Wanted};
use super::fit::{self, Fit};
use super::formats::Formats;
use super::frames::{Job, Reply, ToWorker};
use super::images::{Pictures, Sight};
use super::load::Opened;
use super::parsing::Parsing;
use super::present::{Answers, Present};
use super::preset::Preset;
use super::public::PublicPrefix;
use super::render::Renderer;
use super::sampling::sampling;
use super::score::ScoreJob;
use hearth_abi::host::Model;
use hearth_abi::raw::Token;
use hearth_abi::{PluginError, Status};
use hearth_engine::{Guide, Request};
use hearth_protocol::{
    ChatParams, Counted, DetokenizeParams, DetokenizeReply, EmbedInput, EmbedParams, ErrorKind,
    GenerateParams, Options, Rendered, RerankParams, RpcError, TokenizeParams, TokenizeReply,
};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

/// What the thread takes, in order.
pub(super) enum Todo {
    Frame(ToWorker),
    Guide(Box<Result<Guide, PluginError>>),
}

pub(super) fn run(
    opened: &Opened,
    preset: Preset,
    todos: &Receiver<Todo>,
    later: &Sender<Todo>,
    engine: &Sender<Command>,
    present: &Sender<Present>,
) {
    let Opened { model, n_ctx, sight } = opened;
    let renderer = Rc::new(Renderer::new(model, preset.template.as_deref()));
    let (formats, public) = (Formats::new(model), PublicPrefix::default());
    let n_ctx = *n_ctx;
    let mut preparer = Preparer { model, n_ctx, sight, renderer, preset, formats, public, present };
    while let Ok(todo) = todos.recv() {
        let frames = match todo {
            Todo::Frame(frame) => preparer.formats.hold_back(frame, later).into_iter().collect(),
            Todo::Guide(guide) => preparer.formats.take_guide(*guide),
        };
        for frame in frames {
            let sent = match frame {
                ToWorker::Submit { id, owner, seed, job } => {
                    match preparer.prepare(&Asker { id, owner, seed }, job) {
                        Ok(Some(command)) => engine.send(command).is_ok(),
                        Ok(None) => true,
                        Err(error) => present.send(Present::Failed { id, error }).is_ok(),
                    }
                }
                ToWorker::Cancel { id } if preparer.formats.forget(id) => {
                    let error = RpcError::new(ErrorKind::Cancelled, "the request was cancelled");
                    present.send(Present::Failed { id, error }).is_ok()
                }
                ToWorker::Cancel { id } => engine.send(Command::Cancel(id)).is_ok(),
                ToWorker::EndThinking { id } if preparer.formats.end_thinking(id) => true,
                ToWorker::EndThinking { id } => engine.send(Command::EndThinking(id)).is_ok(),
                ToWorker::Load(_) => true,
            };
            if !sent {
                return;
            }
        }
    }
}

/// Whose request it is, and the seed where the caller gave none.
struct Asker {
    id: u64,
    owner: u32,
    seed: u64,
}

struct Preparer<'a> {
    model: &'a Arc<Model>,
    /// Most tokens of one sequence.
    n_ctx: u32,
    sight: &'a Sight,
    renderer: Rc<Renderer>,
    preset: Preset,
    formats: Formats<'a>,
    public: PublicPrefix,
    present: &'a Sender<Present>,
}

impl Preparer<'_> {
    /// Answers work for the engine, unless the job is done already.
    fn prepare(&mut self, asker: &Asker, job: Job) -> Result<Option<Command>, RpcError> {
        let model = self.model;
        match job {
            Job::Chat(params) => self.chat(asker, &params).map(Some),
            Job::Count(params) => reply(self.present, asker.id, Reply::Count(self.count(&params)?)),
            Job::Render(params) => {
                reply(self.present, asker.id, Reply::Render(self.render(&params)?))
            }
            Job::Generate(params) => self.generate(asker, &params).map(Some),
            Job::Embed(params) => embed(model, asker.id, params, self.n_ctx).map(Some),
            Job::Rerank(params) => rerank(model, asker.id, &params).map(Some),
            Job::Score(params) => {
                generates(model)?;
                Ok(Some(Command::Score(Box::new(ScoreJob::new(model, asker.id, &params)?))))
            }
            Job::Tokenize(params) => {
                reply(self.present, asker.id, Reply::Tokenize(tokenize(model, &params)?))
            }
            Job::Detokenize(params) => {
                let text = detokenize(model, &params)?;
                reply(self.present, asker.id, Reply::Detokenize(DetokenizeReply { text }))
            }
        }
    }

    fn chat(&mut self, asker: &Asker, params: &ChatParams) -> Result<Command, RpcError> {
        generates(self.model)?;
        let (model, options) = (self.model, &self.preset.options(&params.options));
        let fit = Fit::new(options, self.n_ctx)?;
        let conversation = self.conversation(params)?;
        let (rendered, prompt, dropped) = conversation.prompt(&fit)?;
        let mut first = self.request(asker, options, &fit, || conversation.n_system(&prompt))?;
        if params.template.is_none() {
            let think = conversation.think;
            first.n_public = self.public.of(&self.renderer, &self.preset, think, &prompt);
        }
        first.prompt = prompt;
        first.spans = conversation.pictures.spans();
        first.stops.extend_from_slice(&rendered.stops);
        let thinks_by_grammar = params.format.is_none() && rendered.calls.grammar_thinks;
        first.thinking = thinking(model, &rendered, params.think_tokens, thinks_by_grammar)?;
        first.spelled =
            rendered.spelled.iter().filter_map(|text| single_token(model, text)).collect();
        let n_wanted = candidates::wanted(options)?;
        let requests = candidates::requests(first, n_wanted, || match &params.format {
            Some(_) if conversation.offer.must_call => Err(RpcError::new(
                ErrorKind::InvalidParams,
                "a `format` and a required tool call exclude each other",
            )
            .with_hint("leave out one of them")),
            Some(format) => self.formats.constraint(format).map(Some),
            None => rendered.calls.constraint(model),
        })?;
        let parsing = |at: u32| {
            let seed = asker.seed.wrapping_add(at.into());
            rendered.reading.clone().map(|reading| Parsing::new(reading, seed))
        };
        let answers = (0..n_wanted).map(|at| Answer::new(model, at, parsing(at))).collect();
        let answers = Answers::new(true, answers, dropped);
        let _ = self.present.send(Present::Begin { id: asker.id, answers });
        Ok(submit(requests, options))
    }

    fn count(&self, params: &ChatParams) -> Result<Counted, RpcError> {
        let (_, prompt) = self.prompt(params)?;
        Ok(Counted { prompt_tokens: u32::try_from(prompt.len()).unwrap_or(u32::MAX) })
    }

    fn render(&self, params: &ChatParams) -> Result<Rendered, RpcError> {
        let (pictures, prompt) = self.prompt(params)?;
        Ok(Rendered { prompt: pictures.detokenize(self.model, &prompt)? })
    }

    /// What `chat` would have the model read.
    fn prompt(&self, params: &ChatParams) -> Result<(Pictures, Vec<Token>), RpcError> {
        generates(self.model)?;
        let fit = Fit::new(&self.preset.options(&params.options), self.n_ctx)?;
        let conversation = self.conversation(params)?;
        let (_, prompt, _) = conversation.prompt(&fit)?;
        Ok((conversation.pictures, prompt))
    }

    /// By the request's own template, if it has one.
    fn conversation<'p>(&self, params: &'p ChatParams) -> Result<Conversation<'p>, RpcError> {
        let renderer = match &params.template {
            Some(template) => Rc::new(self.renderer.with(template)?),
            None => Rc::clone(&self.renderer),
        };
        Conversation::new(renderer, &self.preset, self.sight, params)
    }

    fn generate(&mut self, asker: &Asker, params: &GenerateParams) -> Result<Command, RpcError> {
        generates(self.model)?;
        let (model, options) = (self.model, &self.preset.options(&params.options));
        let fit = Fit::new(options, self.n_ctx)?;
        let mut first = self.request(asker, options, &fit, || 0)?;
        first.prompt = match &params.suffix {
            None => {
                let (mut prompt, mut pictures) = (params.prompt.clone(), Pictures::default());
                self.sight.place(&params.images, &mut prompt, &mut pictures)?;
                first.spans = pictures.spans();
                pictures.tokenize(model, &prompt, !params.raw, params.raw)?
            }
            Some(_) if params.raw => {
                return Err(RpcError::new(
                    ErrorKind::InvalidParams,
                    "`raw` and a `suffix` exclude each other",
                )
                .with_hint("leave out one of them"));
            }
            Some(suffix) => self.renderer.between(&params.prompt, suffix)?,
        };
        let dropped = fit.cut(&mut first.prompt);
        let n_wanted = candidates::wanted(options)?;
        let requests = candidates::requests(first, n_wanted, || {
            params.format.as_ref().map(|format| self.formats.constraint(format)).transpose()
        })?;
        let answers = (0..n_wanted).map(|at| Answer::new(model, at, None)).collect();
        let answers = Answers::new(false, answers, dropped);
        let _ = self.present.send(Present::Begin { id: asker.id, answers });
        Ok(submit(requests, options))
    }

    /// What the options ask for. `n_first` tells how many tokens at the start say what the rest is about.
    fn request(
        &self,
        asker: &Asker,
        options: &Options,
        fit: &Fit,
        n_first: impl FnOnce() -> usize,
    ) -> Result<Request, RpcError> {
        Ok(Request {
            id: engine_id(asker.id, 0),
            owner: asker.owner,
            prompt: Vec::new(),
            spans: Vec::new(),
            n_public: 0,
            max_context: options.context,
            sampling: sampling(self.model, options, asker.seed)?,
            stops: options.stop.clone(),
            max_tokens: options.max_tokens.or_else(|| fit.most_tokens()),
            shift: fit.shift(n_first),
            constraint: None,
            thinking: None,
            spelled: Vec::new(),
        })
    }
}

fn submit(requests: Vec<Request>, options: &Options) -> Command {
    Command::Submit { requests, alone: options.deterministic.unwrap_or(false) }
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
    .with_hint("use it with the method `embed`, or `rerank` if that is what it was made for"))
}

fn embed(model: &Model, id: u64, params: EmbedParams, n_ctx: u32) -> Result<Command, RpcError> {
    if !model.info().can_embed {
        return Err(RpcError::new(ErrorKind::Unsupported, "this model yields no embeddings"));
    }
    if model.tokenize_pair("", "").is_ok() {
        let error =
            RpcError::new(ErrorKind::Unsupported, "this model ranks texts, and embeds none");
        return Err(error.with_hint("use it with the method `rerank`"));
    }
    let texts = match params.input {
        EmbedInput::One(text) => vec![text],
        EmbedInput::Many(texts) => texts,
    };
    let nothing = model.tokenize("", true, false).map_err(refused)?;
    let tokens = |text: &String| {
        let mut tokens = model.tokenize(text, true, false).map_err(refused)?;
        if params.truncate {
            fit::cut_end(&mut tokens, &nothing, n_ctx as usize);
        }
        Ok(tokens)
    };
    let texts = texts.iter().map(tokens).collect::<Result<_, RpcError>>()?;
    let wanted = Wanted::Embeddings { normalize: params.normalize };
    Ok(Command::Embed(EmbedJob { id, texts, wanted, embeddings: Vec::new() }))
}

fn rerank(model: &Model, id: u64, params: &RerankParams) -> Result<Command, RpcError> {
    let tokens = |text: &String| {
        model.tokenize_pair(&params.query, text).map_err(|error| match error.status {
            Status::Unsupported => RpcError::new(ErrorKind::Unsupported, error.message)
                .with_hint("use a reranker, whose file has `pooling_type` 4"),
            _ => refused(error),
        })
    };
    // Without a document it is the same mistake to ask another model.
    tokens(&String::new())?;
    let texts = params.documents.iter().map(tokens).collect::<Result<_, _>>()?;
    Ok(Command::Embed(EmbedJob { id, texts, wanted: Wanted::Scores, embeddings: Vec::new() }))
}

fn tokenize(model: &Model, params: &TokenizeParams) -> Result<TokenizeReply, RpcError> {
    let tokens =
        model.tokenize(&params.text, params.add_special, params.parse_special).map_err(refused)?;
    let piece = |token: &Token| model.token_piece(*token, true).map(|piece| piece.into_vec());
    let pieces = if params.pieces {
        tokens.iter().map(piece).collect::<Result<_, _>>().map_err(refused)?
    } else {
        Vec::new()
    };
    Ok(TokenizeReply { tokens, pieces })
}

fn detokenize(model: &Model, params: &DetokenizeParams) -> Result<String, RpcError> {
    model.detokenize(&params.tokens, params.special).map(text).map_err(refused)
}

pub(super) fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

pub(super) fn refused(error: PluginError) -> RpcError {
    let kind = match error.status {
        Status::InvalidArgument => ErrorKind::InvalidParams,
        Status::Unsupported => ErrorKind::Unsupported,
        _ => ErrorKind::Internal,
    };
    RpcError::new(kind, error.message)
}
