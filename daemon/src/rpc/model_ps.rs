//! `model.ps`

use super::daemon_status::resident_bytes;
use super::{Daemon, Handled};
use crate::listen::Caller;
use crate::supervisor::{Worker, WorkerState};
use hearth_protocol::{Empty, ModelMemory, ModelPs, RunningModel, RunningModels};
use std::sync::Arc;
use std::time::Instant;

pub(crate) async fn handle(daemon: Arc<Daemon>, _: Caller, Empty {}: Empty) -> Handled<ModelPs> {
    Ok(RunningModels {
        models: daemon.supervisor.loaded().iter().map(|worker| running_model(worker)).collect(),
    })
}

pub(super) fn running_model(worker: &Worker) -> RunningModel {
    let (state, description, context, drafts) = match &*worker.state().borrow() {
        WorkerState::Loading { .. } => ("loading", String::new(), 0, true),
        WorkerState::Ready(info) => ("ready", info.description.clone(), info.n_ctx, info.has_draft),
        WorkerState::Ended(_) => ("stopping", String::new(), 0, true),
    };
    let (rss_bytes, mapped_bytes) = resident_bytes(&worker.pid.to_string());
    let holdings = worker.holdings();
    RunningModel {
        name: worker.name.clone(),
        id: worker.id.clone(),
        state: state.into(),
        backend: worker.backend.clone(),
        draft: worker.draft.clone().filter(|_| drafts),
        kv_type: worker.kv_type,
        flash_attention: worker.flash_attention,
        pid: worker.pid,
        description,
        context,
        active_requests: worker.n_active(),
        rss_bytes,
        memory: ModelMemory {
            mapped_bytes,
            private_bytes: rss_bytes.saturating_sub(mapped_bytes),
            context_bytes: holdings.context_bytes,
            kv_tokens: holdings.n_tokens,
            kv_reserved: holdings.n_promised,
            saved_bytes: holdings.saved_bytes,
        },
        expires_s: worker
            .expires()
            .map(|at| at.saturating_duration_since(Instant::now()).as_secs_f64()),
    }
}
