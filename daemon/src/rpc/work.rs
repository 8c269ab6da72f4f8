//! One request for a model, from its acceptance to its end: find the model, have it loaded, run the job, pass events on.
//!
//! [`Work`] is a state machine driven by `next`, so that dropping it at any point (a closed connection, an unsubscribe)
//! gives everything back: the place in the worker, the lease on the model, the entry among the requests.

use super::requests::Registered;
use super::{Daemon, blocking};
use crate::listen::Caller;
use crate::supervisor::{Lease, Ticket, WorkerState, parse_name};
use crate::worker::frames::{Job, Piece, Reply, WorkerEvent};
use hearth_protocol::{ErrorKind, Event, KeepAlive, RpcError};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// What `next` answers. `Accepted` is first, `Done` or `Failed` last.
pub(super) enum Step {
    Accepted { request: String },
    Loading { fraction: f32 },
    News(WorkerEvent),
    Done { reply: Reply, request: String, load_us: u64 },
    Failed(RpcError),
}

pub(super) struct Work {
    daemon: Arc<Daemon>,
    caller: Caller,
    model: String,
    keep_alive: Option<KeepAlive>,
    job: Option<Job>,
    stage: Stage,
    registered: Option<Registered>,
    load_us: u64,
}

enum Stage {
    Begin { name: Option<String> },
    Find,
    Wait { lease: Option<Lease>, state: watch::Receiver<WorkerState>, since: Instant },
    Run { ticket: Ticket },
    Ended,
}

impl Work {
    pub(super) fn new(
        daemon: Arc<Daemon>,
        caller: Caller,
        model: String,
        keep_alive: Option<KeepAlive>,
        request: Option<String>,
        job: Job,
    ) -> Self {
        let stage = Stage::Begin { name: request };
        Self {
            daemon,
            caller,
            model,
            keep_alive,
            job: Some(job),
            stage,
            registered: None,
            load_us: 0,
        }
    }

    /// The next step; `None` after the last.
    pub(super) async fn next(&mut self) -> Option<Step> {
        if let Stage::Ended = self.stage {
            return None;
        }
        let registered = self.registered.as_ref().map(Registered::cancelled);
        let cancelled = async {
            match registered {
                Some(cancelled) => cancelled.await,
                None => std::future::pending().await,
            }
        };
        let step = tokio::select! {
            biased;
            () = cancelled => Err(RpcError::new(ErrorKind::Cancelled, "the request was cancelled")),
            step = self.advance() => step,
        };
        let step = step.unwrap_or_else(Step::Failed);
        if let Step::Done { .. } | Step::Failed(_) = step {
            self.stage = Stage::Ended;
            self.registered = None;
        }
        Some(step)
    }

    async fn advance(&mut self) -> Result<Step, RpcError> {
        loop {
            match &mut self.stage {
                Stage::Begin { name } => {
                    let registered = self.daemon.requests.register(self.caller, name.take())?;
                    let request = registered.name().to_string();
                    self.registered = Some(registered);
                    self.stage = Stage::Find;
                    return Ok(Step::Accepted { request });
                }
                Stage::Find => {
                    let lease = lease(&self.daemon, &self.model, self.keep_alive).await?;
                    let state = lease.worker().state();
                    self.stage = Stage::Wait { lease: Some(lease), state, since: Instant::now() };
                }
                Stage::Wait { lease, state, since } => match ready(state).await? {
                    Some(fraction) => return Ok(Step::Loading { fraction }),
                    None => {
                        if let (Some(lease), Some(job)) = (lease.take(), self.job.take()) {
                            self.load_us = micros(since.elapsed());
                            let ticket = lease.submit(self.caller.uid, random(), job);
                            self.stage = Stage::Run { ticket };
                        }
                    }
                },
                Stage::Run { ticket } => {
                    let request = || {
                        self.registered
                            .as_ref()
                            .map(|entry| entry.name().to_string())
                            .unwrap_or_default()
                    };
                    return match ticket.next().await {
                        WorkerEvent::Done(reply) => Ok(Step::Done {
                            reply: *reply,
                            request: request(),
                            load_us: self.load_us,
                        }),
                        WorkerEvent::Failed(error) => Err(error),
                        event => Ok(Step::News(event)),
                    };
                }
                Stage::Ended => {
                    return Err(RpcError::new(ErrorKind::Internal, "the request has ended"));
                }
            }
        }
    }

    /// The next step as an event of the wire.
    pub(super) async fn next_event<R>(
        &mut self,
        finished: fn(Reply, String, u64) -> Result<R, RpcError>,
    ) -> Option<Event<R>> {
        Some(match self.next().await? {
            Step::Accepted { request } => Event::Accepted { request },
            Step::Loading { fraction } => Event::Loading { fraction },
            Step::Done { reply, request, load_us } => match finished(reply, request, load_us) {
                Ok(reply) => Event::Done { reply },
                Err(error) => Event::Error { error },
            },
            Step::Failed(error) => Event::Error { error },
            Step::News(WorkerEvent::Queued { place, wait_ms }) => Event::Queued { place, wait_ms },
            Step::News(WorkerEvent::Prefill { done, total }) => Event::Prefill { done, total },
            Step::News(WorkerEvent::Reasoning(Piece { text, logprobs })) => {
                Event::Reasoning { text, logprobs }
            }
            Step::News(WorkerEvent::Delta(Piece { text, logprobs })) => {
                Event::Delta { text, logprobs }
            }
            Step::News(WorkerEvent::ToolCall(call)) => Event::ToolCall { call },
            Step::News(WorkerEvent::Failed(error)) => Event::Error { error },
            Step::News(WorkerEvent::Done(_)) => Event::Error { error: unexpected() },
        })
    }

    /// The result alone.
    pub(super) async fn finish(mut self) -> Result<(Reply, String, u64), RpcError> {
        loop {
            match self.next().await {
                Some(Step::Done { reply, request, load_us }) => {
                    return Ok((reply, request, load_us));
                }
                Some(Step::Failed(error)) => return Err(error),
                Some(_) => {}
                None => return Err(unexpected()),
            }
        }
    }
}

/// A model by name, loaded or being loaded.
pub(super) async fn lease(
    daemon: &Arc<Daemon>,
    model: &str,
    keep_alive: Option<KeepAlive>,
) -> Result<Lease, RpcError> {
    let name = parse_name(model)?;
    let store = Arc::clone(&daemon.store);
    let resolved = blocking(move || store.resolve(&name)).await?;
    let keep_alive = keep_alive.map(|KeepAlive(seconds)| crate::config::keep_alive(seconds));
    daemon.supervisor.worker(&resolved, keep_alive).await
}

/// Waits for news of a load: a fraction, or `None` once the model is ready.
pub(super) async fn ready(
    state: &mut watch::Receiver<WorkerState>,
) -> Result<Option<f32>, RpcError> {
    match &*state.borrow_and_update() {
        WorkerState::Ready(_) => return Ok(None),
        WorkerState::Ended(error) => return Err(error.clone()),
        WorkerState::Loading { .. } => {}
    }
    if state.changed().await.is_err() {
        return Err(unexpected());
    }
    match &*state.borrow() {
        WorkerState::Ready(_) => Ok(None),
        WorkerState::Ended(error) => Err(error.clone()),
        WorkerState::Loading { fraction } => Ok(Some(*fraction)),
    }
}

/// For a reply of another kind than the job's.
pub(super) fn unexpected() -> RpcError {
    RpcError::new(ErrorKind::Internal, "the worker answered something else than it was asked")
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A seed for callers who give none: the hasher's keys are random and differ each time.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}
