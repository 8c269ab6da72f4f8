//! `model.load`

use super::jobs::{lease, loading, micros};
use super::model_ps::running_model;
use super::work::{Events, Request, Work};
use crate::supervisor::WorkerState;
use hearth_protocol::{LoadParams, Loaded, ModelLoad, ProgressEvent, RpcError};
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
        let lease = lease(&request.daemon, &params.model, params.keep_alive).await?;
        let mut state = lease.worker().state();
        let was_ready = matches!(*state.borrow(), WorkerState::Ready(_));
        while let Some(fraction) = loading(&mut state).await? {
            events.tell(ProgressEvent::Progress { stage: "loading".into(), fraction }).await;
        }
        let load_us = if was_ready { 0 } else { micros(since.elapsed()) };
        Ok(Loaded { model: running_model(lease.worker()), load_us })
    }
}
