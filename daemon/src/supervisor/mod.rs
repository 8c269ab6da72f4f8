//! Which models are loaded, in which process, and who waits for them.
//!
//! One worker per loaded model. A model is loaded when somebody asks for it and unloaded when nobody has for its time, or
//! when a new one needs its place. A worker that ended is forgotten, and the next request starts another.

mod outbox;
mod own;
mod probe;
mod tuned;
mod worker;

use crate::sandbox::Sandbox;
use crate::settings::Settings;
use crate::worker::frames::{DraftSpec, LoadSpec};
use crate::worker::preset::Preset;
use hearth_protocol::{Backend, BackendState, ErrorKind, FlashAttention, KvType, RpcError, Tuning};
use hearth_store::{ModelName, ResolvedModel};
use own::OwnSettings;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tuned::Tuned;

pub(crate) use own::without_effect;
pub(crate) use probe::Backends;
pub(crate) use tuned::{Trial, machine, n_processors};
pub(crate) use worker::{Lease, Ticket, Worker, WorkerState, ending};

#[derive(Debug)]
pub(crate) struct Supervisor {
    settings: Arc<Settings>,
    executable: PathBuf,
    backends: watch::Sender<Option<Arc<Backends>>>,
    /// By manifest id, so that two names of one model share a worker.
    workers: Mutex<HashMap<String, Arc<Worker>>>,
    /// Held by whoever starts a worker or waits for a place for one.
    turn: tokio::sync::Mutex<()>,
    /// Told when a worker became idle or ended.
    freed: Arc<Notify>,
    tuned: Tuned,
}

/// Whether there is one for another worker.
enum Place {
    Free,
    /// Once this one has ended.
    FreeAfter(Arc<Worker>),
    None,
}

/// Most tokens computed in one step, where nobody says otherwise.
const BATCH: u32 = 512;

/// What was settled for a model before it is loaded: what a person has configured goes before the model's own options, those
/// before what was measured, and that before the defaults.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settled {
    tuning: Tuning,
    own: OwnSettings,
    pub(crate) batch: u32,
    threads: u32,
    pub(crate) kv_type: KvType,
    flash_attention: Option<FlashAttention>,
}

impl Supervisor {
    /// Starts probing beside whatever comes next.
    pub(crate) fn start(settings: Arc<Settings>, executable: PathBuf) -> Arc<Self> {
        let supervisor = Arc::new(Self {
            tuned: Tuned::open(settings.config().state.as_deref()),
            settings,
            executable,
            backends: watch::Sender::new(None),
            workers: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            freed: Arc::default(),
        });
        supervisor.probe();
        supervisor
    }

    /// Finds out which backends work, beside whatever comes next. What was found before holds until then.
    pub(crate) fn probe(self: &Arc<Self>) {
        let prober = Arc::clone(self);
        tokio::spawn(async move {
            let found = probe::probe(&prober.executable, &prober.settings.config()).await;
            prober.backends.send_replace(Some(Arc::new(found)));
        });
    }

    /// What probing found, if it is over.
    pub(crate) fn backends_now(&self) -> Option<Arc<Backends>> {
        self.backends.borrow().clone()
    }

    /// What probing found, once it is over.
    pub(crate) async fn backends(&self) -> Arc<Backends> {
        let mut backends = self.backends.subscribe();
        match backends.wait_for(Option::is_some).await {
            Ok(found) => found.clone().unwrap_or_default(),
            Err(_) => Arc::default(),
        }
    }

    /// The backend that models are run with.
    pub(crate) async fn backend(&self) -> Result<Backend, RpcError> {
        let backends = self.backends().await;
        let chosen = backends.chosen().cloned();
        chosen.ok_or_else(|| no_backend(&backends, &self.settings.config().backend))
    }

    /// What a process of ours is started from.
    pub(crate) fn executable(&self) -> &Path {
        &self.executable
    }

    /// What shuts in a process of ours that runs a plugin.
    pub(crate) fn sandbox(&self) -> Option<Sandbox> {
        self.settings.config().sandbox.clone()
    }

    /// The worker of a model, started if there is none, and then with this draft. It may still be loading.
    pub(crate) async fn worker(
        self: &Arc<Self>,
        model: &ResolvedModel,
        draft: Result<Option<ResolvedModel>, RpcError>,
        keep_alive: Option<Option<Duration>>,
    ) -> Result<Lease, RpcError> {
        let backend = &self.backend().await?;
        let id = model.id.hex().to_string();
        if let Some(lease) = self.lease(&id, keep_alive) {
            return Ok(lease);
        }
        // One after another, so that a place that was made for somebody is still there when they get to it.
        let _turn = self.turn.lock().await;
        let mut waits = false;
        loop {
            // Somebody else may have started it meanwhile.
            if let Some(lease) = self.lease(&id, keep_alive) {
                return Ok(lease);
            }
            match self.make_place() {
                Place::Free => break,
                Place::FreeAfter(idle) => {
                    tracing::info!(
                        model = idle.name,
                        "Unloading, because another model needs its place"
                    );
                    idle.unload().await;
                }
                Place::None => {
                    if !std::mem::replace(&mut waits, true) {
                        let model = model.name.to_string();
                        tracing::info!(model, "Waiting for a place: every loaded model is at work");
                    }
                    self.freed.notified().await;
                }
            }
        }
        let names = (model.name.to_string(), id.clone(), backend.name.clone());
        let keep_alive = keep_alive.unwrap_or(self.settings.config().keep_alive);
        let worker = Worker::spawn(
            &self.executable,
            self.load_spec(backend, model, draft?),
            names,
            keep_alive,
            self.settings.config().engine.stall,
            &self.freed,
        )
        .map_err(|error| {
            RpcError::new(ErrorKind::LoadFailed, format!("cannot start a worker: {error}"))
                .with_hint("the daemon's user may have too many processes, or too little memory")
        })?;
        let lease = Lease::new(&worker);
        self.workers().insert(id, Arc::clone(&worker));
        tokio::spawn(Arc::clone(self).unload_when_expired(worker));
        Ok(lease)
    }

    /// What was measured to be better on this machine.
    pub(crate) fn tuned(&self) -> &Tuned {
        &self.tuned
    }

    /// What was measured counts only for the backend that it was measured with.
    fn settle(&self, backend: Option<&Backend>, model: &ResolvedModel) -> Settled {
        let config = self.settings.config();
        let engine = &config.engine;
        let own = OwnSettings::of(&model.params);
        let tuned = |backend| self.tuned.get(&model.model_digest.hex(), &machine(backend));
        let tuning = backend.map(tuned).unwrap_or_default();
        let attention = config.attention(&model.name);
        let configured = |number: u32| (number != 0).then_some(number);
        let batch = configured(engine.batch).or(own.batch).or(tuning.batch);
        let threads = configured(engine.threads).or(own.threads).or(tuning.threads);
        Settled {
            tuning,
            own,
            batch: batch.unwrap_or(BATCH),
            threads: threads.unwrap_or(0),
            kv_type: attention.kv_type.or(tuning.kv_type).unwrap_or_default(),
            flash_attention: attention.flash.or(tuning.flash_attention),
        }
    }

    /// What a model would be loaded with now.
    pub(crate) fn settled(&self, model: &ResolvedModel) -> Settled {
        let backends = self.backends_now();
        self.settle(backends.as_deref().and_then(Backends::chosen), model)
    }

    fn load_spec(
        &self,
        backend: &Backend,
        model: &ResolvedModel,
        draft: Option<ResolvedModel>,
    ) -> LoadSpec {
        let config = self.settings.config();
        let engine = &config.engine;
        let Settled { tuning, own, batch, threads, kv_type, flash_attention } =
            self.settle(Some(backend), model);
        let draft = match (draft, &model.draft) {
            (Some(draft), _) => {
                let name = draft.name.to_string();
                Some(DraftSpec { name, path: draft.model_path, is_own: false })
            }
            (None, Some(path)) => {
                Some(DraftSpec { name: model.name.to_string(), path: path.clone(), is_own: true })
            }
            (None, None) => None,
        };
        LoadSpec {
            tuning,
            plugin: backend.path.clone().into(),
            model: model.model_path.clone(),
            projector: model.projector.clone(),
            adapters: model.adapters.clone(),
            preset: Preset::of(model),
            n_ctx: engine.context,
            n_batch: batch,
            n_parallel: engine.parallel,
            n_kept: engine.kept,
            max_waiting: engine.queue,
            n_threads: threads,
            n_gpu_layers: own.gpu_layers,
            use_mmap: own.mmap.unwrap_or(true),
            step_ms: engine.step_ms,
            archive_bytes: engine.archive_mib.saturating_mul(1 << 20),
            speculate: engine.speculate,
            kv_type,
            flash_attention,
            mtp: engine.speculate && config.of_model.get(&model.name).is_some_and(|of| of.mtp),
            draft: draft.filter(|_| engine.speculate),
            sandbox: config.sandbox.clone(),
        }
    }

    /// The right to use a worker that there is.
    fn lease(&self, id: &str, keep_alive: Option<Option<Duration>>) -> Option<Lease> {
        let workers = self.workers();
        let worker = workers.get(id).filter(|worker| !worker.has_ended())?;
        if let Some(keep_alive) = keep_alive {
            worker.set_keep_alive(keep_alive);
        }
        Some(Lease::new(worker))
    }

    /// Takes the idle worker that was used longest ago out of the table, if the table is full.
    fn make_place(&self) -> Place {
        let mut workers = self.workers();
        workers.retain(|_, worker| !worker.has_ended());
        if workers.len() < self.settings.config().max_loaded_models {
            return Place::Free;
        }
        let idle = workers.values().filter(|worker| worker.n_active() == 0);
        let oldest = idle.min_by_key(|worker| worker.last_used()).map(|worker| worker.id.clone());
        oldest.and_then(|id| workers.remove(&id)).map_or(Place::None, Place::FreeAfter)
    }

    async fn unload_when_expired(self: Arc<Self>, worker: Arc<Worker>) {
        loop {
            worker.until_expired().await;
            let mut workers = self.workers();
            // Leases are made under this lock, so a worker found unused here is given to nobody any more.
            if worker.has_ended() || worker.expires().is_some_and(|at| at <= Instant::now()) {
                if workers.get(&worker.id).is_some_and(|known| Arc::ptr_eq(known, &worker)) {
                    workers.remove(&worker.id);
                }
                break;
            }
        }
        if !worker.has_ended() {
            let why = if worker.is_loading() {
                "Ending a load that nobody waits for any more"
            } else {
                "Unloading, because nobody used it"
            };
            tracing::info!(model = worker.name, "{why}");
            worker.unload().await;
        }
    }

    /// Workers that have not ended, the one used last first.
    pub(crate) fn loaded(&self) -> Vec<Arc<Worker>> {
        let mut loaded: Vec<_> =
            self.workers().values().filter(|worker| !worker.has_ended()).cloned().collect();
        loaded.sort_by_key(|worker| std::cmp::Reverse(worker.last_used()));
        loaded
    }

    /// Unloads a model. False if it was not loaded.
    pub(crate) async fn unload(&self, id: &str) -> bool {
        let worker = self.workers().remove(id);
        match worker {
            Some(worker) if !worker.has_ended() => {
                worker.unload().await;
                true
            }
            _ => false,
        }
    }

    /// The same at once for whoever asks for the model next; the process ends beside.
    pub(crate) fn discard(&self, id: &str) {
        if let Some(worker) = self.workers().remove(id) {
            tokio::spawn(async move { worker.unload().await });
        }
    }

    fn workers(&self) -> MutexGuard<'_, HashMap<String, Arc<Worker>>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn no_backend(backends: &Backends, wanted: &str) -> RpcError {
    let hint = "`ctl backend list` says of each backend why it cannot be used";
    let message = if wanted == "auto" {
        "no backend can run here".to_string()
    } else if backends
        .list
        .iter()
        .any(|backend| backend.name == wanted && backend.state != BackendState::Absent)
    {
        format!("the backend `{wanted}` does not work here")
    } else {
        format!("there is no backend `{wanted}`")
    };
    RpcError::new(ErrorKind::NoBackend, message).with_hint(hint)
}

/// A name as a caller wrote it.
pub(crate) fn parse_name(name: &str) -> Result<ModelName, RpcError> {
    name.parse::<ModelName>().map_err(|error| crate::rpc::store_error(&error))
}
