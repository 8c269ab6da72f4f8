//! Loading: the plugin, the model, the engine that serves it and the adapters it applies.

use super::engine_loop::send;
use super::frames::{DraftSpec, FromWorker, Holdings, LoadSpec, LogLevel};
use super::images::Sight;
use super::present::Present;
use crate::plugin;
use hearth_abi::host::{Adapter, Model, Plugin};
use hearth_abi::{FlashAttention, KvType, OpenParams, PluginError, Status};
use hearth_engine::{DraftError, Embedder, Engine, EngineConfig, Scorer};
use hearth_protocol::{ErrorKind, RpcError};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

/// Tokens of a prompt that is computed by itself, in one step: few, because others wait for it.
const STEP: u32 = 64;

/// What requests are prepared with.
pub(super) struct Opened {
    pub(super) model: Arc<Model>,
    /// Most tokens of one sequence.
    pub(super) n_ctx: u32,
    pub(super) sight: Sight,
}

/// A model and what computes with it.
pub(super) struct Loaded {
    pub(super) model: Arc<Model>,
    /// `None` for a model that writes no text.
    pub(super) engine: Option<Engine>,
    /// For requests whose answers depend on nothing else that is computed. Made at the first.
    alone: Option<Engine>,
    /// Made at the first use where there is an engine.
    embedder: Option<Embedder>,
    /// Made at the first use.
    scorer: Option<Scorer>,
    pub(super) n_ctx: u32,
    pub(super) has_draft: bool,
    adapters: Vec<(Arc<Adapter>, f32)>,
}

pub(super) fn load(
    spec: &LoadSpec,
    present: &Sender<Present>,
) -> Result<(Loaded, Sight), RpcError> {
    let sink = {
        let present = present.clone();
        Box::new(move |level, text: &str| {
            send(&present, FromWorker::Log { level: log_level(level), text: text.into() });
        })
    };
    let plugin = plugin::load(&spec.plugin, sink).map_err(|error| {
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
    let params = OpenParams {
        with_mtp: spec.mtp,
        n_gpu_layers: spec.n_gpu_layers,
        use_mmap: spec.use_mmap,
        ..OpenParams::new(&spec.model)
    };
    let model = Model::open(&plugin, &params, &mut progress).map_err(failed)?;
    let adapters = spec.adapters.iter().map(|path| Ok((model.adapter(path)?, 1.0)));
    let adapters = adapters.collect::<Result<_, PluginError>>().map_err(failed)?;
    let mut loaded = Loaded {
        model,
        engine: None,
        alone: None,
        embedder: None,
        scorer: None,
        n_ctx: 0,
        has_draft: false,
        adapters,
    };
    if loaded.model.info().can_generate {
        let mut engine = engine(&loaded, config(spec, &loaded.model)).map_err(failed)?;
        if spec.mtp {
            engine.draft_with_own_layers().map_err(|error| {
                let message = format!("the model has no layers that can guess ahead: {error}");
                RpcError::new(ErrorKind::LoadFailed, message)
                    .with_hint("take `mtp` out of what the configuration says of the model")
            })?;
        }
        if let Some(draft) = &spec.draft {
            match draft_with(&mut engine, &plugin, draft) {
                Err(RpcError { message: text, .. }) if draft.is_own => {
                    send(present, FromWorker::Log { level: LogLevel::Warn, text });
                }
                drafts => {
                    drafts?;
                    loaded.has_draft = true;
                }
            }
        }
        loaded.n_ctx = engine.max_tokens();
        loaded.engine = Some(engine);
    } else {
        loaded.n_ctx = loaded.embedder(spec)?.max_tokens();
    }
    let sight = sight(spec, &loaded.model);
    if let Sight::Broken(why) = &sight {
        let text = format!("the model cannot see, because its projector cannot be used: {why}");
        send(present, FromWorker::Log { level: LogLevel::Warn, text });
    }
    Ok((loaded, sight))
}

/// A model whose projector is of no use still writes.
fn sight(spec: &LoadSpec, model: &Arc<Model>) -> Sight {
    match &spec.projector {
        Some(path) => match model.projector(path, spec.n_threads) {
            Ok(projector) => Sight::Of(projector, path.clone()),
            Err(error) => Sight::Broken(error.message),
        },
        None => Sight::None,
    }
}

impl Loaded {
    /// All there are.
    pub(super) fn engines(&mut self) -> impl Iterator<Item = &mut Engine> {
        self.engine.iter_mut().chain(&mut self.alone)
    }

    pub(super) fn holdings(&mut self) -> Holdings {
        let mut sum = Holdings::default();
        for engine in self.engines() {
            let held = engine.held();
            sum.n_tokens += held.n_tokens;
            sum.n_promised += held.n_promised;
            sum.context_bytes += held.context_bytes;
            sum.saved_bytes += held.saved_bytes;
        }
        sum
    }

    /// The one for a request.
    pub(super) fn engine_for(
        &mut self,
        spec: &LoadSpec,
        alone: bool,
    ) -> Result<&mut Engine, RpcError> {
        if alone && self.alone.is_none() {
            let config = EngineConfig {
                // Some models want an image in one piece.
                n_batch: if spec.projector.is_some() { spec.n_batch } else { STEP },
                n_parallel: 1,
                n_kept: 0,
                archive_bytes: 0,
                speculate: false,
                adapts: false,
                ..config(spec, &self.model)
            };
            self.alone = Some(engine(self, config).map_err(failed)?);
        }
        let engine = if alone { &mut self.alone } else { &mut self.engine };
        // Refused where requests are prepared.
        engine
            .as_mut()
            .ok_or_else(|| RpcError::new(ErrorKind::Internal, "this model writes no text"))
    }

    pub(super) fn scorer(&mut self, spec: &LoadSpec) -> Result<&mut Scorer, RpcError> {
        match &mut self.scorer {
            Some(scorer) => Ok(scorer),
            none => {
                let n_ctx = n_ctx(spec, &self.model);
                let scorer = Scorer::new(&self.model, n_ctx, spec.n_threads, &self.adapters);
                Ok(none.insert(scorer.map_err(failed)?))
            }
        }
    }

    pub(super) fn embedder(&mut self, spec: &LoadSpec) -> Result<&mut Embedder, RpcError> {
        match &mut self.embedder {
            Some(embedder) => Ok(embedder),
            none => {
                let n_ctx = n_ctx(spec, &self.model);
                let embedder = Embedder::new(&self.model, n_ctx, spec.n_threads, &self.adapters);
                Ok(none.insert(embedder.map_err(failed)?))
            }
        }
    }
}

/// What is configured, and more where the model's own options want more, up to what it was made for.
fn n_ctx(spec: &LoadSpec, model: &Model) -> u32 {
    let wanted = spec.preset.context().unwrap_or(0);
    spec.n_ctx.max(wanted.min(model.info().n_ctx_train))
}

fn config(spec: &LoadSpec, model: &Model) -> EngineConfig {
    EngineConfig {
        n_ctx: n_ctx(spec, model),
        n_batch: spec.n_batch,
        step_target: Duration::from_millis(spec.step_ms),
        n_parallel: spec.n_parallel,
        n_kept: spec.n_kept,
        archive_bytes: spec.archive_bytes,
        max_waiting: spec.max_waiting,
        speculate: spec.speculate,
        n_threads: spec.n_threads,
        n_threads_batch: spec.n_threads,
        adapts: true,
        kv_type: match spec.kv_type {
            hearth_protocol::KvType::F16 => KvType::F16,
            hearth_protocol::KvType::Q8_0 => KvType::Q8_0,
            hearth_protocol::KvType::Q4_0 => KvType::Q4_0,
            hearth_protocol::KvType::F32 => KvType::F32,
        },
        flash_attention: match spec.flash_attention {
            None => FlashAttention::Auto,
            Some(hearth_protocol::FlashAttention::Off) => FlashAttention::Off,
            Some(hearth_protocol::FlashAttention::On) => FlashAttention::On,
        },
    }
}

fn engine(loaded: &Loaded, config: EngineConfig) -> Result<Engine, PluginError> {
    let mut engine = Engine::new(&loaded.model, config)?;
    if !loaded.adapters.is_empty() {
        engine.attach(&loaded.adapters)?;
    }
    Ok(engine)
}

/// Opens the model that guesses ahead.
fn draft_with(
    engine: &mut Engine,
    plugin: &Arc<Plugin>,
    draft: &DraftSpec,
) -> Result<(), RpcError> {
    let opened = Model::open(plugin, &OpenParams::new(&draft.path), &mut |_| true);
    opened.map_err(DraftError::from).and_then(|model| engine.draft_with(&model)).map_err(|error| {
        let message = format!("the model `{}` cannot guess ahead: {error}", draft.name);
        RpcError::new(ErrorKind::LoadFailed, message).with_hint(
            "name a smaller model of the same family as `draft`, or none, in `model.load` or in the configuration",
        )
    })
}

fn failed(error: PluginError) -> RpcError {
    match error.status {
        Status::BadModel | Status::NotFound => RpcError::new(ErrorKind::BadModel, error.message)
            .with_hint("import the file again; `ctl show MODEL` names it"),
        Status::OutOfMemory => RpcError::new(ErrorKind::LoadFailed, error.message).with_hint(
            "unload another model with `ctl stop`, or lower `engine.context` in the configuration (`hearth serve --context`)",
        ),
        Status::Unsupported => RpcError::new(ErrorKind::LoadFailed, error.message).with_hint(
            "choose another `kv_type` or `flash_attention` in the configuration, if it names one",
        ),
        _ => RpcError::new(ErrorKind::LoadFailed, error.message).with_hint(
            "the log has what the backend said before: `journalctl -u hearth`, or hearthd's standard error",
        ),
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
