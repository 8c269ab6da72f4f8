//! The one thread that calls the plugin's [main-thread] and [engine-thread] functions: it opens the model, creates the
//! engine and runs its loop.

use super::end;
use super::frames::{FromWorker, LoadSpec, LoadedInfo, LogLevel, Reply};
use super::present::Present;
use hearth_abi::host::{Model, Plugin};
use hearth_abi::raw::Token;
use hearth_abi::{OpenParams, PluginError, Status};
use hearth_engine::{Engine, EngineConfig, Event, Failure, Fatal, Request, Sink};
use hearth_protocol::{EmbedReply, ErrorKind, RpcError, Usage};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

/// Work for the engine, in order.
pub(super) enum Command {
    Submit(Box<Request>),
    Cancel(u64),
    Embed { id: u64, texts: Vec<Vec<Token>>, normalize: bool },
}

pub(super) fn run(
    spec: &LoadSpec,
    opened: &Sender<Arc<Model>>,
    commands: &Receiver<Command>,
    present: &Sender<Present>,
) {
    let (model, mut engine) = match load(spec, present) {
        Ok(loaded) => loaded,
        Err(error) => return send(present, FromWorker::LoadFailed(error)),
    };
    let info = LoadedInfo {
        description: model.info().description.clone(),
        n_ctx: engine.context().info().n_ctx,
    };
    send(present, FromWorker::Loaded(info));
    if opened.send(model).is_err() {
        return;
    }
    let mut sink = Forward { present };
    if let Err(fatal) = serve(&mut engine, commands, &mut sink) {
        send(present, FromWorker::Fatal { message: fatal.to_string() });
        let (flushed, wait) = std::sync::mpsc::channel();
        let _ = present.send(Present::Flush(flushed));
        let _ = wait.recv();
        end(1);
    }
}

fn serve(
    engine: &mut Engine,
    commands: &Receiver<Command>,
    sink: &mut Forward<'_>,
) -> Result<(), Fatal> {
    loop {
        // Sleeps when there is nothing to compute; between steps only takes what is there already.
        let mut next =
            if engine.is_idle() { commands.recv().ok() } else { commands.try_recv().ok() };
        if next.is_none() && engine.is_idle() {
            return Ok(());
        }
        while let Some(command) = next {
            match command {
                Command::Submit(request) => engine.submit(*request, sink),
                Command::Cancel(id) => engine.cancel(id, sink),
                Command::Embed { id, texts, normalize } => {
                    embed(engine, id, &texts, normalize, sink)
                }
            }
            next = commands.try_recv().ok();
        }
        engine.step(sink)?;
    }
}

fn load(spec: &LoadSpec, present: &Sender<Present>) -> Result<(Arc<Model>, Engine), RpcError> {
    let sink = {
        let present = present.clone();
        Box::new(move |level, text: &str| {
            send(&present, FromWorker::Log { level: log_level(level), text: text.into() });
        })
    };
    let plugin = Plugin::load(&spec.plugin, sink).map_err(|error| {
        RpcError::new(ErrorKind::LoadFailed, error.to_string())
            .with_hint("`ctl backend list` says which backends work")
    })?;
    let mut last = -1.0_f32;
    let mut progress = |fraction: f32| {
        // A hundred frames are enough for any progress bar.
        if fraction - last >= 0.01 {
            last = fraction;
            send(present, FromWorker::Loading { fraction });
        }
        true
    };
    let model =
        Model::open(&plugin, &OpenParams::new(&spec.model), &mut progress).map_err(load_failed)?;
    let n_ctx = match model.info().n_ctx_train {
        0 => spec.n_ctx,
        n_ctx_train => spec.n_ctx.min(n_ctx_train),
    };
    let config = EngineConfig {
        n_ctx,
        n_batch: spec.n_batch,
        n_prefill_beside: spec.n_batch / 4,
        n_parallel: spec.n_parallel,
        n_kept: spec.n_kept,
        max_waiting: spec.max_waiting,
        n_threads: spec.n_threads,
        n_threads_batch: spec.n_threads,
    };
    let mut engine = Engine::new(&model, config).map_err(load_failed)?;
    let adapters =
        spec.adapters.iter().map(|path| model.adapter(path).map(|adapter| (adapter, 1.0)));
    let adapters = adapters.collect::<Result<Vec<_>, _>>().map_err(load_failed)?;
    if !adapters.is_empty() {
        engine.attach(&adapters).map_err(load_failed)?;
    }
    Ok((model, engine))
}

fn load_failed(error: PluginError) -> RpcError {
    match error.status {
        Status::BadModel | Status::NotFound => RpcError::new(ErrorKind::BadModel, error.message)
            .with_hint("import the file again; `ctl show MODEL` names it"),
        Status::OutOfMemory => RpcError::new(ErrorKind::LoadFailed, error.message).with_hint(
            "unload another model with `ctl stop`, or lower `engine.context` in the configuration",
        ),
        _ => RpcError::new(ErrorKind::LoadFailed, error.message),
    }
}

fn embed(
    engine: &mut Engine,
    id: u64,
    texts: &[Vec<Token>],
    normalize: bool,
    sink: &mut Forward<'_>,
) {
    let mut embeddings = Vec::with_capacity(texts.len());
    for text in texts {
        match engine.embed(text) {
            Ok(embedding) => {
                embeddings.push(if normalize { normalized(embedding) } else { embedding })
            }
            Err(failure) => return sink.event(id, Event::Failed(failure)),
        }
    }
    let prompt_tokens =
        u32::try_from(texts.iter().map(Vec::len).sum::<usize>()).unwrap_or(u32::MAX);
    let usage = Usage { prompt_tokens, ..Usage::default() };
    let _ = sink.present.send(Present::Reply {
        id,
        reply: Box::new(Reply::Embed(EmbedReply { embeddings, usage })),
    });
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
            Event::Text(text) => Present::Text { id, text: text.into() },
            Event::Queued { place } => Present::Queued { id, place },
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
        Failure::Overloaded { .. } => RpcError::new(ErrorKind::Overloaded, message)
            .with_hint("try again when some of them have ended"),
        Failure::Cancelled => RpcError::new(ErrorKind::Cancelled, message),
        Failure::EmptyPrompt => RpcError::new(ErrorKind::InvalidParams, message),
        Failure::Backend(_) => RpcError::new(ErrorKind::Internal, message),
    }
}

fn log_level(level: hearth_abi::LogLevel) -> LogLevel {
    match level {
        hearth_abi::LogLevel::Debug => LogLevel::Debug,
        hearth_abi::LogLevel::Info => LogLevel::Info,
        hearth_abi::LogLevel::Warn => LogLevel::Warn,
        hearth_abi::LogLevel::Error | hearth_abi::LogLevel::HostMisbehaving => LogLevel::Error,
    }
}

fn send(present: &Sender<Present>, frame: FromWorker) {
    let _ = present.send(Present::Frame(Box::new(frame)));
}
