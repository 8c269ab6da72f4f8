//! The one thread that calls the plugin's [main-thread] and [engine-thread] functions: it loads the model and runs
//! the loop.
//!
//! It tells the daemon that it lives, so that one that hangs is ended. Between two steps it takes commands, and computes one
//! text to embed if any waits, so that neither holds up the other.

use super::end;
use super::frames::{FromWorker, LoadSpec, LoadedInfo, Reply};
use super::load::{Loaded, load};
use super::present::Present;
use hearth_abi::host::Model;
use hearth_abi::raw::Token;
use hearth_engine::{Event, Failure, Fatal, Request, Sink};
use hearth_protocol::{EmbedReply, ErrorKind, RpcError, Usage};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// So long without a command, and the next is not expected any moment.
const QUIET: Duration = Duration::from_secs(1);

/// How often the daemon hears that the engine works; its limit is a second at the least.
const BEAT: Duration = Duration::from_millis(250);

/// Work for the engine, in order.
pub(super) enum Command {
    Submit(Box<Request>),
    Cancel(u64),
    Embed(EmbedJob),
}

/// Texts to embed, and what is done of them.
pub(super) struct EmbedJob {
    pub(super) id: u64,
    pub(super) texts: Vec<Vec<Token>>,
    pub(super) normalize: bool,
    pub(super) embeddings: Vec<Vec<f32>>,
}

pub(super) fn run(
    spec: &LoadSpec,
    opened: &Sender<Arc<Model>>,
    commands: &Receiver<Command>,
    present: &Sender<Present>,
) {
    let mut loaded = match load(spec, present) {
        Ok(loaded) => loaded,
        Err(error) => return last_words(present, FromWorker::LoadFailed(error)),
    };
    let description = loaded.model.info().description.clone();
    let n_threads = loaded.engine.as_ref().map_or(0, |engine| engine.context().info().n_threads);
    send(present, FromWorker::Loaded(LoadedInfo { description, n_ctx: loaded.n_ctx, n_threads }));
    if opened.send(Arc::clone(&loaded.model)).is_err() {
        return;
    }
    let mut sink = Forward { present };
    if let Err(fatal) = serve(&mut loaded, spec, commands, &mut sink) {
        last_words(present, FromWorker::Fatal { message: fatal.to_string() });
    }
}

/// Says why the process ends, and ends it.
fn last_words(present: &Sender<Present>, frame: FromWorker) {
    send(present, frame);
    let (flushed, wait) = channel();
    let _ = present.send(Present::Flush(flushed));
    let _ = wait.recv();
    end(1);
}

fn serve(
    loaded: &mut Loaded,
    spec: &LoadSpec,
    commands: &Receiver<Command>,
    sink: &mut Forward<'_>,
) -> Result<(), Fatal> {
    let mut embeds = VecDeque::new();
    let mut last_beat: Option<Instant> = None;
    loop {
        let is_idle =
            embeds.is_empty() && loaded.engine.as_ref().is_none_or(|engine| engine.is_idle());
        if is_idle && last_beat.take().is_some() {
            send(sink.present, FromWorker::Resting);
        }
        // Sleeps when there is nothing to compute; between steps only takes what is there already.
        let mut next = if is_idle {
            match wait(loaded, commands)? {
                Some(command) => Some(command),
                None => return Ok(()),
            }
        } else {
            commands.try_recv().ok()
        };
        while let Some(command) = next {
            take(command, loaded, &mut embeds, sink);
            next = commands.try_recv().ok();
        }
        if last_beat.is_none_or(|at| at.elapsed() >= BEAT) {
            last_beat = Some(Instant::now());
            send(sink.present, FromWorker::Working);
        }
        if let Some(engine) = &mut loaded.engine {
            engine.step(sink)?;
        }
        if let Some(job) = embeds.front_mut()
            && embed_next(job, loaded, spec, sink)
        {
            embeds.pop_front();
        }
    }
}

/// The next command; `None` if none will come. After a quiet time finished sequences are saved, one by one, and then it
/// sleeps for good.
fn wait(loaded: &mut Loaded, commands: &Receiver<Command>) -> Result<Option<Command>, Fatal> {
    if let Some(engine) = &mut loaded.engine {
        match commands.recv_timeout(QUIET) {
            Ok(command) => return Ok(Some(command)),
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
            Err(RecvTimeoutError::Timeout) => {}
        }
        while engine.tidy()? {
            if let Ok(command) = commands.try_recv() {
                return Ok(Some(command));
            }
        }
    }
    Ok(commands.recv().ok())
}

fn take(
    command: Command,
    loaded: &mut Loaded,
    embeds: &mut VecDeque<EmbedJob>,
    sink: &mut Forward<'_>,
) {
    match (command, &mut loaded.engine) {
        (Command::Submit(request), Some(engine)) => engine.submit(*request, sink),
        // Refused where requests are prepared.
        (Command::Submit(request), None) => {
            let failure = Failure::Backend("this model writes no text".into());
            sink.event(request.id, Event::Failed(failure));
        }
        (Command::Embed(job), _) => embeds.push_back(job),
        (Command::Cancel(id), engine) => {
            if let Some(at) = embeds.iter().position(|job| job.id == id) {
                embeds.remove(at);
                sink.event(id, Event::Failed(Failure::Cancelled));
            } else if let Some(engine) = engine {
                engine.cancel(id, sink);
            }
        }
    }
}

/// Embeds the next text of a job. True when the job has its answer.
fn embed_next(
    job: &mut EmbedJob,
    loaded: &mut Loaded,
    spec: &LoadSpec,
    sink: &mut Forward<'_>,
) -> bool {
    if let Some(text) = job.texts.get(job.embeddings.len()) {
        match embedding(loaded, spec, text) {
            Ok(embedding) if job.normalize => job.embeddings.push(normalized(embedding)),
            Ok(embedding) => job.embeddings.push(embedding),
            Err(error) => {
                let _ = sink.present.send(Present::Failed { id: job.id, error });
                return true;
            }
        }
    }
    if job.embeddings.len() < job.texts.len() {
        return false;
    }
    let n_tokens = job.texts.iter().map(Vec::len).sum::<usize>();
    let prompt_tokens = u32::try_from(n_tokens).unwrap_or(u32::MAX);
    let usage = Usage { prompt_tokens, ..Usage::default() };
    let embeddings = std::mem::take(&mut job.embeddings);
    let reply = Box::new(Reply::Embed(EmbedReply { embeddings, usage }));
    let _ = sink.present.send(Present::Reply { id: job.id, reply });
    true
}

fn embedding(loaded: &mut Loaded, spec: &LoadSpec, text: &[Token]) -> Result<Vec<f32>, RpcError> {
    loaded.embedder(spec)?.embed(text).map_err(|failure| failed(&failure))
}

fn normalized(mut embedding: Vec<f32>) -> Vec<f32> {
    let length = embedding.iter().map(|x| x * x).sum::<f32>().sqrt();
    if length > 0.0 {
        embedding.iter_mut().for_each(|x| *x /= length);
    }
    embedding
}

struct Forward<'a> {
    present: &'a Sender<Present>,
}

impl Sink for Forward<'_> {
    fn event(&mut self, id: u64, event: Event<'_>) {
        let event = match event {
            Event::Logprobs(logprobs) => Present::Logprobs { id, logprobs },
            Event::Text(text) => Present::Text { id, text: text.into() },
            Event::Queued { place, wait } => Present::Queued { id, place, wait },
            Event::Prefill { done, total } => Present::Prefill { id, done, total },
            Event::Done(finish) => Present::Done { id, finish },
            Event::Failed(failure) => Present::Failed { id, error: failed(&failure) },
        };
        let _ = self.present.send(event);
    }
}

fn failed(failure: &Failure) -> RpcError {
    let message = failure.to_string();
    match failure {
        Failure::ContextOverflow { .. } => RpcError::new(ErrorKind::ContextOverflow, message)
            .with_hint("shorten the conversation, or raise `engine.context` in the configuration"),
        Failure::TextTooLong { .. } => RpcError::new(ErrorKind::ContextOverflow, message)
            .with_hint("cut the text into pieces and embed each"),
        Failure::Overloaded { .. } => RpcError::new(ErrorKind::Overloaded, message)
            .with_hint("try again when some of them have ended"),
        Failure::Cancelled => RpcError::new(ErrorKind::Cancelled, message),
        Failure::EmptyPrompt => RpcError::new(ErrorKind::InvalidParams, message),
        Failure::Constraint(_) => RpcError::new(ErrorKind::InvalidParams, message)
            .with_hint("make the grammar or schema of `format` simpler"),
        Failure::Backend(_) => RpcError::new(ErrorKind::Internal, message),
    }
}

pub(super) fn send(present: &Sender<Present>, frame: FromWorker) {
    let _ = present.send(Present::Frame(Box::new(frame)));
}
