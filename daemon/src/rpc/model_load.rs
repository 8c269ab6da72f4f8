//! `model.load`

use super::model_ps::running_model;
use super::work::{lease, micros, ready};
use super::{Daemon, Handled, Source};
use crate::listen::Caller;
use crate::supervisor::{Lease, WorkerState};
use hearth_protocol::{LoadParams, Loaded, ModelLoad, ProgressEvent, RpcError};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;

pub(super) async fn handle(
    daemon: Arc<Daemon>,
    caller: Caller,
    params: LoadParams,
) -> Handled<ModelLoad> {
    let mut load = start(daemon, caller, params);
    loop {
        if let Some(loaded) = load.step().await?.1 {
            return Ok(loaded);
        }
    }
}

pub(super) fn start(daemon: Arc<Daemon>, _: Caller, params: LoadParams) -> Load {
    Load { daemon, params, loading: None, ended: false }
}

pub(super) struct Load {
    daemon: Arc<Daemon>,
    params: LoadParams,
    loading: Option<(Lease, watch::Receiver<WorkerState>, Instant)>,
    ended: bool,
}

impl Load {
    /// How far it is, or what is loaded now.
    async fn step(&mut self) -> Result<(f32, Option<Loaded>), RpcError> {
        if self.loading.is_none() {
            let since = Instant::now();
            let lease = lease(&self.daemon, &self.params.model, self.params.keep_alive).await?;
            let state = lease.worker().state();
            self.loading = Some((lease, state, since));
        }
        let Some((lease, state, since)) = &mut self.loading else { return Ok((0.0, None)) };
        let was_ready = matches!(*state.borrow(), WorkerState::Ready(_));
        if let Some(fraction) = ready(state).await? {
            return Ok((fraction, None));
        }
        let load_us = if was_ready { 0 } else { micros(since.elapsed()) };
        Ok((1.0, Some(Loaded { model: running_model(lease.worker()), load_us })))
    }
}

impl Source<ProgressEvent<Loaded>> for Load {
    async fn next(&mut self) -> Option<ProgressEvent<Loaded>> {
        if self.ended {
            return None;
        }
        let event = match self.step().await {
            Ok((fraction, None)) => {
                return Some(ProgressEvent::Progress { stage: "loading".into(), fraction });
            }
            Ok((_, Some(reply))) => ProgressEvent::Done { reply },
            Err(error) => ProgressEvent::Error { error },
        };
        self.ended = true;
        Some(event)
    }
}
