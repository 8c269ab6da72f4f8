//! Methods that a model's worker answers: find the model, have it loaded, submit the job, pass on what the worker says.

use super::work::{Events, Request, Work};
use super::{Daemon, blocking};
use crate::random;
use crate::supervisor::{Lease, Ticket, WorkerState, parse_name};
use crate::worker::frames::{Job, Piece, Reply, WorkerEvent};
use hearth_protocol::{
    Detokenize, DetokenizeParams, Embed, EmbedParams, ErrorKind, Event, Generate, GenerateParams,
    KeepAlive, Method, Rerank, RerankParams, RpcError, Score, ScoreParams, Tokenize,
    TokenizeParams,
};
use hearth_store::ModelName;
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// What a worker is asked.
pub(super) struct Ask {
    pub(super) model: String,
    pub(super) keep_alive: Option<KeepAlive>,
    pub(super) job: Job,
    pub(super) timeout: Option<Duration>,
}

/// A method that is one job of a worker.
pub(super) trait ByWorker: Method {
    fn name(_: &mut Self::Params) -> Option<String> {
        None
    }

    fn ask(params: Self::Params) -> Ask;

    /// `None` for a reply to something else.
    fn reply(reply: Reply, request: String, load_us: u64) -> Option<Self::Reply>;
}

impl ByWorker for Generate {
    fn name(params: &mut GenerateParams) -> Option<String> {
        params.request.take()
    }

    fn ask(params: GenerateParams) -> Ask {
        let (model, keep_alive) = (params.model.clone(), params.keep_alive);
        let timeout = params.timeout_ms.map(Duration::from_millis);
        Ask { model, keep_alive, job: Job::Generate(Box::new(params)), timeout }
    }

    fn reply(reply: Reply, request: String, load_us: u64) -> Option<Self::Reply> {
        let Reply::Generate(mut reply) = reply else { return None };
        reply.request = request;
        reply.timings.load_us = load_us;
        Some(reply)
    }
}

impl ByWorker for Embed {
    fn ask(params: EmbedParams) -> Ask {
        let (model, keep_alive) = (params.model.clone(), params.keep_alive);
        Ask { model, keep_alive, job: Job::Embed(params), timeout: None }
    }

    fn reply(reply: Reply, _: String, _: u64) -> Option<Self::Reply> {
        if let Reply::Embed(reply) = reply { Some(reply) } else { None }
    }
}

impl ByWorker for Rerank {
    fn ask(params: RerankParams) -> Ask {
        let (model, keep_alive) = (params.model.clone(), params.keep_alive);
        Ask { model, keep_alive, job: Job::Rerank(params), timeout: None }
    }

    fn reply(reply: Reply, _: String, _: u64) -> Option<Self::Reply> {
        if let Reply::Rerank(reply) = reply { Some(reply) } else { None }
    }
}

impl ByWorker for Score {
    fn ask(params: ScoreParams) -> Ask {
        let (model, keep_alive) = (params.model.clone(), params.keep_alive);
        Ask { model, keep_alive, job: Job::Score(params), timeout: None }
    }

    fn reply(reply: Reply, _: String, _: u64) -> Option<Self::Reply> {
        if let Reply::Score(reply) = reply { Some(reply) } else { None }
    }
}

impl ByWorker for Tokenize {
    fn ask(params: TokenizeParams) -> Ask {
        let model = params.model.clone();
        Ask { model, keep_alive: None, job: Job::Tokenize(params), timeout: None }
    }

    fn reply(reply: Reply, _: String, _: u64) -> Option<Self::Reply> {
        if let Reply::Tokenize(reply) = reply { Some(reply) } else { None }
    }
}

impl ByWorker for Detokenize {
    fn ask(params: DetokenizeParams) -> Ask {
        let model = params.model.clone();
        Ask { model, keep_alive: None, job: Job::Detokenize(params), timeout: None }
    }

    fn reply(reply: Reply, _: String, _: u64) -> Option<Self::Reply> {
        if let Reply::Detokenize(reply) = reply { Some(reply) } else { None }
    }
}

impl<M: ByWorker> Work for M
where
    M::Reply: Sync,
{
    type Event = Event<M::Reply>;

    fn name(params: &mut M::Params) -> Option<String> {
        <M as ByWorker>::name(params)
    }

    async fn run(
        request: Request,
        params: M::Params,
        events: Events<Event<M::Reply>>,
    ) -> Result<M::Reply, RpcError> {
        let (reply, load_us) = ask(&request, M::ask(params), &events).await?;
        M::reply(reply, request.name, load_us).ok_or_else(unexpected)
    }
}

/// The worker's reply, and the microseconds that the model took to load.
pub(super) async fn ask<R: Serialize>(
    request: &Request,
    asked: Ask,
    events: &Events<Event<R>>,
) -> Result<(Reply, u64), RpcError> {
    let timeout = asked.timeout;
    let answer = answer(request, asked, events);
    match timeout {
        None => answer.await,
        // What is dropped gives its place in the engine back.
        Some(timeout) => {
            tokio::time::timeout(timeout, answer).await.unwrap_or_else(|_| Err(too_late(timeout)))
        }
    }
}

async fn answer<R: Serialize>(
    request: &Request,
    Ask { model, keep_alive, job, .. }: Ask,
    events: &Events<Event<R>>,
) -> Result<(Reply, u64), RpcError> {
    let lease = lease(&request.daemon, &model, None, keep_alive).await?;
    let mut state = lease.worker().state();
    let since = Instant::now();
    while let Some(fraction) = loading(&mut state).await? {
        events.tell(Event::Loading { fraction }).await;
    }
    let load_us = micros(since.elapsed());
    // The seed is for callers who give none.
    let ticket = lease.submit(request.caller.uid, random::number(), job);
    let hurry = async {
        request.wishes.clone().answer().await;
        ticket.end_thinking();
        std::future::pending().await
    };
    tokio::select! {
        reply = tell(&ticket, events) => Ok((reply?, load_us)),
        never = hurry => never,
    }
}

/// Passes on what the worker says, up to its reply.
async fn tell<R: Serialize>(ticket: &Ticket, events: &Events<Event<R>>) -> Result<Reply, RpcError> {
    loop {
        events
            .tell(match ticket.next().await {
                WorkerEvent::Done(reply) => return Ok(*reply),
                WorkerEvent::Failed(error) => return Err(error),
                WorkerEvent::Queued { place, wait_ms } => Event::Queued { place, wait_ms },
                WorkerEvent::Prefill { done, cached, total } => {
                    Event::Prefill { done, cached, total }
                }
                WorkerEvent::Reasoning(Piece { candidate, text, logprobs }) => {
                    Event::Reasoning { candidate, text, logprobs }
                }
                WorkerEvent::Delta(Piece { candidate, text, logprobs }) => {
                    Event::Delta { candidate, text, logprobs }
                }
                WorkerEvent::ToolCallDelta { candidate, delta } => {
                    Event::ToolCallDelta { candidate, delta }
                }
                WorkerEvent::ToolCall { candidate, call } => Event::ToolCall { candidate, call },
            })
            .await;
    }
}

/// A model by name, loaded or being loaded. If it is loaded now, it is with this draft, or else the configured one.
pub(super) async fn lease(
    daemon: &Arc<Daemon>,
    model: &str,
    draft: Option<&ModelName>,
    keep_alive: Option<KeepAlive>,
) -> Result<Lease, RpcError> {
    let name = parse_name(model)?;
    let config = daemon.config();
    let configured = || config.of_model.get(&name)?.draft.as_ref();
    let draft = draft.or_else(configured).cloned();
    let resolve = |name: ModelName| {
        let stores = Arc::clone(&daemon.stores);
        blocking(move || stores.resolve(&name))
    };
    let resolved = resolve(name).await?;
    let draft = match draft {
        Some(draft) => resolve(draft).await.map(Some),
        None => Ok(None),
    };
    let keep_alive = keep_alive.map(|KeepAlive(seconds)| crate::config::keep_alive(seconds));
    daemon.supervisor.worker(&resolved, draft, keep_alive).await
}

/// Waits for news of a load: a fraction, or `None` once the model is ready.
pub(super) async fn loading(
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

fn too_late(timeout: Duration) -> RpcError {
    RpcError::new(
        ErrorKind::DeadlineExceeded,
        format!("the request did not end within its {} ms", timeout.as_millis()),
    )
    .with_hint("give it more `timeout_ms`, or ask for fewer tokens with `max_tokens`")
}

pub(super) fn unexpected() -> RpcError {
    RpcError::new(ErrorKind::Internal, "the worker answered something else than it was asked")
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
