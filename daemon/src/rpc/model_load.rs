//! `model.load`

use super::jobs::{lease, loading, micros};
use super::model_ps::running_model;
use super::work::{Events, Request, Work};
use crate::supervisor::{Worker, WorkerState, parse_name};
use hearth_protocol::{ErrorKind, LoadParams, Loaded, ModelLoad, ProgressEvent, RpcError};
use hearth_store::ModelName;
use std::sync::Arc;
use std::time::Instant;

impl Work for ModelLoad {
    type Event = ProgressEvent<Loaded>;

    fn name(params: &mut LoadParams) -> Option<String> {
        params.request.take()
    }

    async fn run(
        request: Request,
        params: LoadParams,
        events: Events<Self::Event>,
    ) -> Result<Loaded, RpcError> {
        let since = Instant::now();
        let draft = params.draft.as_deref().map(parse_name).transpose()?;
        let lease =
            lease(&request.daemon, &params.model, draft.as_ref(), params.keep_alive).await?;
        if let Some(draft) = draft {
            check_draft(&request, lease.worker(), &draft)?;
        }
        let mut state = lease.worker().state();
        let was_ready = matches!(*state.borrow(), WorkerState::Ready(_));
        while let Some(fraction) = loading(&mut state).await? {
            events.tell(ProgressEvent::Progress { stage: "loading".into(), fraction }).await;
        }
        let load_us = if was_ready { 0 } else { micros(since.elapsed()) };
        // From here on the time that it stays is counted, and told.
        let worker = Arc::clone(lease.worker());
        drop(lease);
        Ok(Loaded { model: running_model(&worker), load_us })
    }
}

/// A loaded model keeps the draft it has: others may be using it.
fn check_draft(request: &Request, worker: &Worker, wanted: &ModelName) -> Result<(), RpcError> {
    let has = worker.draft.as_deref();
    if has == Some(wanted.to_string().as_str()) {
        return Ok(());
    }
    if !request.daemon.config().engine.speculate {
        return Err(RpcError::new(ErrorKind::Unsupported, "guessing ahead is off here")
            .with_hint("set `engine.speculate` to true in the configuration"));
    }
    let has = has.map_or("without a draft".into(), |draft| format!("with the draft `{draft}`"));
    let message = format!("the model `{}` is loaded {has}, not with `{wanted}`", worker.name);
    Err(RpcError::new(ErrorKind::Unsupported, message)
        .with_hint(format!("unload it first: `ctl stop {}`", worker.name)))
}
