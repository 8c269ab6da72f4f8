//! The one thread that calls the plugin's [main-thread] and [engine-thread] functions: it loads the model and runs
//! the loop.
//!
//! It tells the daemon that it lives, so that one that hangs is ended. Between two steps it takes commands, and computes one
//! text to embed if any waits, so that neither holds up the other.

use super::candidates::{engine_ids, split};
use super::end;
use super::frames::{FromWorker, Holdings, LoadSpec, LoadedInfo, Reply};
use super::load::{Loaded, Opened, load};
use super::present::Present;
use super::score::ScoreJob;
use hearth_abi::raw::Token;
use hearth_engine::{Event, Failure, Fatal, Request, Sink};
use hearth_protocol::{EmbedReply, ErrorKind, RerankReply, RpcError, Usage};
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
    /// All answers to one request. `alone`: they depend on nothing else that is computed.
    Submit {
        requests: Vec<Request>,
        alone: bool,
    },
    Cancel(u64),
    EndThinking(u64),
    Embed(EmbedJob),
    Score(Box<ScoreJob>),
}

/// Texts to embed, and what is done of them.
pub(super) struct EmbedJob {
    pub(super) id: u64,
    pub(super) texts: Vec<Vec<Token>>,
    pub(super) wanted: Wanted,
    pub(super) embeddings: Vec<Vec<f32>>,
}

/// What the embeddings are for.
#[derive(Clone, Copy)]
pub(super) enum Wanted {
    Embeddings {
        normalize: bool,
    },
    /// Each is one number.
    Scores,
}

pub(super) fn run(
    spec: &LoadSpec,
    shut_in: Result<(), RpcError>,
    opened: &Sender<Opened>,
    commands: &Receiver<Command>,
    present: &Sender<Present>,
) {
    let (mut loaded, sight) = match shut_in.and_then(|()| load(spec, present)) {
        Ok(loaded) => loaded,
        Err(error) => return last_words(present, FromWorker::LoadFailed(error)),
    };
    let description = loaded.model.info().description.clone();
    let n_threads = loaded.engine.as_ref().map_or(0, |engine| engine.context().info().n_threads);
    let Loaded { n_ctx, has_draft, .. } = loaded;
    let info = LoadedInfo { description, n_ctx, n_threads, has_draft };
    send(present, FromWorker::Loaded(info));
    let model = Arc::clone(&loaded.model);
    if opened.send(Opened { model, n_ctx, sight }).is_err() {
        return;
    }
    let mut sink = Forward { present, failed: Vec::new(), told: Holdings::default() };
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
    let (mut embeds, mut scores) = (VecDeque::new(), VecDeque::new());
    let mut last_beat: Option<Instant> = None;
    loop {
        let is_idle = embeds.is_empty()
            && scores.is_empty()
            && loaded.engines().all(|engine| engine.is_idle());
        if is_idle && last_beat.take().is_some() {
            send(sink.present, FromWorker::Resting);
        }
        // Sleeps when there is nothing to compute; between steps only takes what is there already.
        let mut next = if is_idle {
            match wait(loaded, commands, sink)? {
                Some(command) => Some(command),
                None => return Ok(()),
            }
        } else {
            commands.try_recv().ok()
        };
        while let Some(command) = next {
            take(command, loaded, spec, (&mut embeds, &mut scores), sink);
            next = commands.try_recv().ok();
        }
        if last_beat.is_none_or(|at| at.elapsed() >= BEAT) {
            last_beat = Some(Instant::now());
            send(sink.present, FromWorker::Working);
            sink.tell_holdings(loaded);
        }
        for engine in loaded.engines() {
            engine.step(sink)?;
        }
        // An answer that fails takes the others to its request with it.
        for id in std::mem::take(&mut sink.failed) {
            cancel(id, loaded, sink);
        }
        sink.failed.clear();
        if let Some(job) = embeds.front_mut()
            && embed_next(job, loaded, spec, sink)
        {
            embeds.pop_front();
        }
        if let Some(job) = scores.pop_front()
            && let Some(unfinished) = score_next(job, loaded, spec, sink)
        {
            scores.push_front(unfinished);
        }
    }
}

/// The next command; `None` if none will come. After a quiet time finished sequences are saved, one by one, and then it
/// sleeps for good.
fn wait(
    loaded: &mut Loaded,
    commands: &Receiver<Command>,
    sink: &mut Forward<'_>,
) -> Result<Option<Command>, Fatal> {
    sink.tell_holdings(loaded);
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
    sink.tell_holdings(loaded);
    Ok(commands.recv().ok())
}

fn take(
    command: Command,
    loaded: &mut Loaded,
    spec: &LoadSpec,
    (embeds, scores): (&mut VecDeque<EmbedJob>, &mut VecDeque<Box<ScoreJob>>),
    sink: &mut Forward<'_>,
) {
    match command {
        Command::Submit { requests, alone } => {
            for request in requests {
                match loaded.engine_for(spec, alone) {
                    Ok(engine) => engine.submit(request, sink),
                    Err(error) => sink.fail(split(request.id).0, error),
                }
            }
        }
        Command::Embed(job) => embeds.push_back(job),
        Command::Score(job) => scores.push_back(job),
        Command::Cancel(id) => {
            embeds.retain(|job| job.id != id);
            scores.retain(|job| job.id != id);
            cancel(id, loaded, sink);
        }
        Command::EndThinking(id) => {
            for engine in loaded.engines() {
                engine_ids(id).for_each(|id| engine.end_thinking(id));
            }
        }
    }
}

fn cancel(id: u64, loaded: &mut Loaded, sink: &mut Forward<'_>) {
    for engine in loaded.engines() {
        engine_ids(id).for_each(|id| engine.cancel(id, sink));
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
        match (embedding(loaded, spec, text), job.wanted) {
            (Ok(embedding), Wanted::Embeddings { normalize: true }) => {
                job.embeddings.push(normalized(embedding));
            }
            (Ok(embedding), _) => job.embeddings.push(embedding),
            (Err(error), _) => {
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
    let reply = match job.wanted {
        Wanted::Embeddings { .. } => Reply::Embed(EmbedReply { embeddings, usage }),
        Wanted::Scores => {
            Reply::Rerank(RerankReply { scores: embeddings.into_iter().flatten().collect(), usage })
        }
    };
    let _ = sink.present.send(Present::Reply { id: job.id, reply: Box::new(reply) });
    true
}

/// Scores the next piece of a text. The job again, unless it has its answer.
fn score_next(
    mut job: Box<ScoreJob>,
    loaded: &mut Loaded,
    spec: &LoadSpec,
    sink: &mut Forward<'_>,
) -> Option<Box<ScoreJob>> {
    let scored = loaded
        .scorer(spec)
        .and_then(|scorer| scorer.go_on(&mut job.scoring).map_err(|failure| failed(&failure)));
    let id = job.id;
    let _ = sink.present.send(match scored {
        Ok(false) => return Some(job),
        Ok(true) => Present::Reply { id, reply: Box::new(job.reply(&loaded.model)) },
        Err(error) => Present::Failed { id, error },
    });
    None
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
    /// Requests that got an error.
    failed: Vec<u64>,
    /// Said last.
    told: Holdings,
}

impl Forward<'_> {
    fn tell_holdings(&mut self, loaded: &mut Loaded) {
        let holdings = loaded.holdings();
        if holdings != self.told {
            self.told = holdings;
            send(self.present, FromWorker::Holds(holdings));
        }
    }

    fn fail(&mut self, id: u64, error: RpcError) {
        self.failed.push(id);
        let _ = self.present.send(Present::Failed { id, error });
    }
}

impl Sink for Forward<'_> {
    fn event(&mut self, engine_id: u64, event: Event<'_>) {
        let (id, candidate) = split(engine_id);
        let event = match event {
            // They wait together, and share their prompt.
            Event::Queued { .. } | Event::Prefill { .. } if candidate > 0 => return,
            Event::Queued { place, wait } => Present::Queued { id, place, wait },
            Event::Prefill { done, cached, total } => Present::Prefill { id, done, cached, total },
            Event::Logprobs(logprobs) => Present::Logprobs { id, candidate, logprobs },
            Event::Text(text) => Present::Text { id, candidate, text: text.into() },
            Event::Done(finish) => Present::Done { id, candidate, finish },
            Event::Failed(failure) => return self.fail(id, failed(&failure)),
        };
        let _ = self.present.send(event);
    }
}

fn failed(failure: &Failure) -> RpcError {
    let message = failure.to_string();
    match failure {
        Failure::ContextOverflow { .. } => RpcError::new(ErrorKind::ContextOverflow, message)
            .with_hint("shorten the conversation, let `truncate` do it, or raise `engine.context` in the configuration (`hearth serve --context`)"),
        Failure::TextTooLong { .. } => RpcError::new(ErrorKind::ContextOverflow, message)
            .with_hint("cut the text into pieces and embed each"),
        Failure::Overloaded { .. } => RpcError::new(ErrorKind::Overloaded, message)
            .with_hint("try again when some of them have ended"),
        Failure::EndsWithImage => RpcError::new(ErrorKind::InvalidParams, message)
            .with_hint("say something about it"),
        Failure::Image(_) => RpcError::new(ErrorKind::Unsupported, message)
            .with_hint("scale the image down, or raise `engine.batch` in the configuration"),
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
