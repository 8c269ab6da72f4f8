//! One worker process, as the daemon sees it.
//!
//! Two tasks live as long as the process: one writes frames to it, one reads frames from it and, at the end of the
//! stream, finds out how the process ended and gives every request that is left its error. Dropping the daemon's end of
//! the socket pair ends the process, so a worker never outlives the daemon, however that ends.

use super::outbox::Outbox;
use crate::worker::frames::{
    self, FromWorker, Holdings, Job, LoadSpec, LoadedInfo, LogLevel, ToWorker, WorkerEvent,
};
use hearth_protocol::{ErrorKind, FlashAttention, KvType, RpcError, Tuning};
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use tokio::sync::{Notify, mpsc, watch};

/// How long a process that closed its socket may take to end before it is killed.
const END_GRACE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone)]
pub(crate) enum WorkerState {
    Loading { fraction: f32 },
    Ready(LoadedInfo),
    Ended(RpcError),
}

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) backend: String,
    /// The name of the model that guesses ahead for it.
    pub(crate) draft: Option<String>,
    pub(crate) tuning: Tuning,
    pub(crate) kv_type: KvType,
    pub(crate) flash_attention: Option<FlashAttention>,
    pub(crate) pid: u32,
    pub(crate) started: Instant,
    state: watch::Sender<WorkerState>,
    outgoing: mpsc::UnboundedSender<Vec<u8>>,
    requests: Mutex<HashMap<u64, Arc<Outbox>>>,
    next_id: AtomicU64,
    usage: Mutex<Usage>,
    holdings: Mutex<Holdings>,
    /// Told whenever `usage` changed.
    used: Notify,
    /// Told when it has become idle, or has ended.
    freed: Arc<Notify>,
    stop: Notify,
}

#[derive(Debug)]
struct Usage {
    active: u32,
    keep_alive: Option<Duration>,
    last_used: Instant,
}

impl Worker {
    /// Starts a process that loads a model. `keep_alive` of `None` keeps it for ever, `stall` of `None` lets it hang for ever.
    pub(crate) fn spawn(
        executable: &Path,
        spec: LoadSpec,
        names: (String, String, String),
        keep_alive: Option<Duration>,
        stall: Option<Duration>,
        freed: &Arc<Notify>,
    ) -> io::Result<Arc<Self>> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        // An empty root has no /dev/null.
        let nowhere = std::fs::File::options().write(true).open("/dev/null");
        let mut command = Command::new(executable);
        command
            .arg0("hearthd")
            .arg("worker")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(nowhere.map_or_else(|_| std::io::stderr().into(), Stdio::from))
            .kill_on_drop(true);
        let spin = spec.tuning.spin.map(|spin| ("GOMP_SPINCOUNT", spin.to_string()));
        for (name, value) in spin.into_iter().chain([("GGML_NO_BACKTRACE", "1".into())]) {
            if std::env::var_os(name).is_none() {
                command.env(name, value);
            }
        }
        let child = command.spawn()?;
        let (outgoing, outgoing_rx) = mpsc::unbounded_channel();
        let (name, id, backend) = names;
        let worker = Arc::new(Self {
            name,
            id,
            backend,
            draft: spec.draft.as_ref().map(|draft| draft.name.clone()),
            tuning: spec.tuning,
            kv_type: spec.kv_type,
            flash_attention: spec.flash_attention,
            pid: child.id().unwrap_or_default(),
            started: Instant::now(),
            state: watch::Sender::new(WorkerState::Loading { fraction: 0.0 }),
            outgoing,
            requests: Mutex::default(),
            next_id: AtomicU64::new(1),
            holdings: Mutex::default(),
            usage: Mutex::new(Usage { active: 0, keep_alive, last_used: Instant::now() }),
            used: Notify::new(),
            freed: Arc::clone(freed),
            stop: Notify::new(),
        });
        worker.send(&ToWorker::Load(Box::new(spec)));
        let (reader, writer) = UnixStream::from_std(ours)?.into_split();
        tokio::spawn(write(outgoing_rx, writer));
        tokio::spawn(Arc::clone(&worker).read(reader, child, stall));
        Ok(worker)
    }

    pub(crate) fn state(&self) -> watch::Receiver<WorkerState> {
        self.state.subscribe()
    }

    pub(crate) fn has_ended(&self) -> bool {
        matches!(*self.state.borrow(), WorkerState::Ended(_))
    }

    pub(crate) fn n_active(&self) -> u32 {
        self.usage().active
    }

    /// What its engine held when it said so last.
    pub(crate) fn holdings(&self) -> Holdings {
        *self.holdings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn last_used(&self) -> Instant {
        self.usage().last_used
    }

    /// A caller that names a time changes it for all.
    pub(crate) fn set_keep_alive(&self, keep_alive: Option<Duration>) {
        self.usage().keep_alive = keep_alive;
        self.used.notify_one();
    }

    pub(crate) fn is_loading(&self) -> bool {
        matches!(*self.state.borrow(), WorkerState::Loading { .. })
    }

    /// When it is to be unloaded; `None`: not now.
    pub(crate) fn expires(&self) -> Option<Instant> {
        let usage = self.usage();
        if usage.active > 0 {
            None
        } else if self.is_loading() {
            // Whoever wanted it has gone, and it may be large.
            Some(usage.last_used)
        } else {
            usage.keep_alive.map(|keep_alive| usage.last_used + keep_alive)
        }
    }

    /// Ends the process and waits until its requests have their error.
    pub(crate) async fn unload(&self) {
        let mut state = self.state();
        self.stop.notify_one();
        let _ = state.wait_for(|state| matches!(state, WorkerState::Ended(_))).await;
    }

    /// Returns when the model has not been used for its time, or the process ended.
    pub(crate) async fn until_expired(&self) {
        let mut state = self.state();
        loop {
            let expired = async {
                match self.expires() {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = expired => return,
                () = self.used.notified() => {}
                _ = state.wait_for(|state| matches!(state, WorkerState::Ended(_))) => return,
            }
        }
    }

    fn requests(&self) -> MutexGuard<'_, HashMap<u64, Arc<Outbox>>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn usage(&self) -> MutexGuard<'_, Usage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, frame: &ToWorker) {
        let mut bytes = Vec::new();
        // A frame that is too long was a request over the limit, which the listeners refuse.
        if frames::encode(frame, &mut bytes).is_ok() {
            let _ = self.outgoing.send(bytes);
        }
    }

    async fn read(
        self: Arc<Self>,
        reader: OwnedReadHalf,
        mut child: Child,
        stall: Option<Duration>,
    ) {
        let mut reader = BufReader::with_capacity(64 << 10, reader);
        let mut buffer = Vec::new();
        let mut verdict = None;
        let mut stopped = false;
        // When the engine must have been heard of again; none while it has nothing to do.
        let mut deadline = None;
        loop {
            let stalled = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // A frame that is there counts, also if this process was not run for a while.
                biased;
                () = self.stop.notified() => {
                    stopped = true;
                    let _ = child.start_kill();
                    break;
                }
                frame = read_frame(&mut reader, &mut buffer) => match frame {
                    Ok(Some(FromWorker::Working)) => {
                        deadline = stall.map(|stall| tokio::time::Instant::now() + stall);
                    }
                    Ok(Some(FromWorker::Resting)) => deadline = None,
                    Ok(Some(frame)) => self.take(frame, &mut verdict),
                    Ok(None) => break,
                    Err(error) => {
                        tracing::error!(model = self.name, pid = self.pid, "Reading from the worker: {error}");
                        break;
                    }
                },
                () = stalled => {
                    verdict = Some(self.stalled(stall.unwrap_or_default()));
                    let _ = child.start_kill();
                    break;
                }
            }
        }
        let mut status = tokio::time::timeout(END_GRACE, child.wait()).await;
        if status.is_err() {
            let _ = child.start_kill();
            status = tokio::time::timeout(END_GRACE, child.wait()).await;
        }
        // A process inside a driver that hangs may outlive even that; nobody waits for it here.
        let status = status.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let error = if stopped {
            RpcError::new(ErrorKind::WorkerDied, format!("the model `{}` was unloaded", self.name))
                .with_hint("send the request again: the model is loaded again by itself")
        } else {
            verdict.unwrap_or_else(|| self.died(status))
        };
        if !stopped {
            tracing::warn!(model = self.name, pid = self.pid, "The worker ended: {error}");
        }
        self.state.send_replace(WorkerState::Ended(error.clone()));
        self.freed.notify_one();
        for outbox in self.requests().values() {
            outbox.push(WorkerEvent::Failed(error.clone()));
        }
    }

    fn take(&self, frame: FromWorker, verdict: &mut Option<RpcError>) {
        match frame {
            FromWorker::Event { id, event } => {
                if let Some(outbox) = self.requests().get(&id) {
                    outbox.push(event);
                }
            }
            FromWorker::Loading { fraction } => {
                drop(self.state.send_replace(WorkerState::Loading { fraction }))
            }
            FromWorker::Loaded(info) => {
                tracing::info!(
                    model = self.name,
                    pid = self.pid,
                    backend = self.backend,
                    load_s = self.started.elapsed().as_secs_f64(),
                    "Model loaded"
                );
                self.state.send_replace(WorkerState::Ready(info));
                self.usage().last_used = Instant::now();
                self.used.notify_one();
            }
            FromWorker::LoadFailed(error) => *verdict = Some(error),
            FromWorker::Holds(holdings) => {
                *self.holdings.lock().unwrap_or_else(PoisonError::into_inner) = holdings;
            }
            // For whoever reads.
            FromWorker::Working | FromWorker::Resting => {}
            FromWorker::Fatal { message } => {
                *verdict = Some(
                    RpcError::new(
                        ErrorKind::WorkerDied,
                        format!("the worker of `{}` failed: {message}", self.name),
                    )
                    .with_hint("send the request again: the model is loaded again by itself"),
                );
            }
            FromWorker::Log { level, text } => {
                let (model, pid) = (self.name.as_str(), self.pid);
                match level {
                    // An engine says much at its info level that only its makers want to read.
                    LogLevel::Debug | LogLevel::Info => {
                        tracing::debug!(target: "hearthd::engine", model, pid, "{text}");
                    }
                    LogLevel::Warn => {
                        tracing::warn!(target: "hearthd::engine", model, pid, "{text}")
                    }
                    LogLevel::Error => {
                        tracing::error!(target: "hearthd::engine", model, pid, "{text}")
                    }
                }
            }
        }
    }

    fn stalled(&self, stall: Duration) -> RpcError {
        let (name, seconds) = (&self.name, stall.as_secs());
        RpcError::new(
            ErrorKind::WorkerDied,
            format!("the worker of `{name}` stopped responding: a step took more than {seconds} s"),
        )
        .with_hint(
            "send the request again: the model is loaded again by itself; if this machine is only slow, raise `engine.stall_seconds` in the configuration",
        )
    }

    fn died(&self, status: io::Result<ExitStatus>) -> RpcError {
        let how = ending(status);
        if self.is_loading() {
            RpcError::new(ErrorKind::LoadFailed, format!("the worker died while it loaded `{}`: {how}", self.name))
                .with_hint("the log says what it printed last: `journalctl -u hearth`, or hearthd's standard error")
        } else {
            RpcError::new(
                ErrorKind::WorkerDied,
                format!("the worker of `{}` died: {how}", self.name),
            )
            .with_hint("send the request again: the model is loaded again by itself")
        }
    }
}

/// The right to use a worker: while one exists, the model does not expire.
#[derive(Debug)]
pub(crate) struct Lease {
    worker: Arc<Worker>,
}

impl Lease {
    pub(super) fn new(worker: &Arc<Worker>) -> Self {
        worker.usage().active += 1;
        worker.used.notify_one();
        Self { worker: Arc::clone(worker) }
    }

    pub(crate) fn worker(&self) -> &Arc<Worker> {
        &self.worker
    }

    /// Begins a request, which lasts as long as the ticket.
    pub(crate) fn submit(self, owner: u32, seed: u64, job: Job) -> Ticket {
        let worker = &self.worker;
        let id = worker.next_id.fetch_add(1, Ordering::Relaxed);
        let outbox = Arc::new(Outbox::default());
        worker.requests().insert(id, Arc::clone(&outbox));
        worker.send(&ToWorker::Submit { id, owner, seed, job });
        // The process may have ended between the caller's look and the insertion above.
        if let WorkerState::Ended(error) = &*worker.state.borrow() {
            outbox.push(WorkerEvent::Failed(error.clone()));
        }
        Ticket { lease: self, id, outbox }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut usage = self.worker.usage();
        usage.active -= 1;
        usage.last_used = Instant::now();
        let is_idle = usage.active == 0;
        drop(usage);
        self.worker.used.notify_one();
        if is_idle {
            self.worker.freed.notify_one();
        }
    }
}

/// A request that runs in a worker. Dropping it cancels what has not ended.
#[derive(Debug)]
pub(crate) struct Ticket {
    lease: Lease,
    id: u64,
    outbox: Arc<Outbox>,
}

impl Ticket {
    pub(crate) async fn next(&self) -> WorkerEvent {
        self.outbox.next().await
    }

    /// Lets it think no more, but answer.
    pub(crate) fn end_thinking(&self) {
        self.lease.worker.send(&ToWorker::EndThinking { id: self.id });
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.lease.worker.requests().remove(&self.id);
        if !self.outbox.has_ended() {
            self.lease.worker.send(&ToWorker::Cancel { id: self.id });
        }
    }
}

/// How a process of ours ended, for a person.
pub(crate) fn ending(status: io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => match (status.signal(), status.code()) {
            (Some(9), _) => {
                "it was killed (signal 9), by the kernel for want of memory or by an administrator"
                    .into()
            }
            (Some(signal), _) => format!("signal {signal}{}", signal_name(signal)),
            (None, Some(code)) => format!("it ended with code {code}"),
            (None, None) => "it ended".into(),
        },
        Err(error) => format!("its end is unknown: {error}"),
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        4 => " (illegal instruction)",
        6 => " (abort)",
        7 => " (bus error)",
        8 => " (arithmetic error)",
        11 => " (segmentation fault)",
        15 => " (terminated)",
        31 => " (forbidden system call)",
        _ => "",
    }
}

async fn write(mut frames: mpsc::UnboundedReceiver<Vec<u8>>, mut writer: OwnedWriteHalf) {
    while let Some(bytes) = frames.recv().await {
        if writer.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn read_frame(
    reader: &mut BufReader<OwnedReadHalf>,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<FromWorker>> {
    let mut prefix = [0; 4];
    match reader.read_exact(&mut prefix).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        // What a process that was killed leaves behind.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
        Err(error) => return Err(error),
    }
    buffer.resize(frames::frame_len(prefix)?, 0);
    match reader.read_exact(buffer).await {
        Ok(_) => frames::decode(buffer).map(Some),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}
