//! `daemon.status`

use super::{Daemon, Handled};
use crate::listen::Caller;
use hearth_protocol::{DaemonStatus, Empty, Status};
use std::sync::Arc;

pub(super) async fn handle(
    daemon: Arc<Daemon>,
    _: Caller,
    Empty {}: Empty,
) -> Handled<DaemonStatus> {
    let backends = daemon.supervisor.backends_now();
    Ok(Status {
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        uptime_s: daemon.started.elapsed().as_secs(),
        socket: daemon.config().socket.display().to_string(),
        http: daemon.addresses.clone(),
        models_dir: daemon.store.dir().display().to_string(),
        probed: backends.is_some(),
        backend: backends
            .and_then(|backends| backends.chosen().map(|backend| backend.name.clone())),
        loaded_models: u32::try_from(daemon.supervisor.loaded().len()).unwrap_or(u32::MAX),
        active_requests: daemon.requests.n_running(),
        rss_bytes: resident_bytes("self").0,
    })
}

/// Resident bytes of a process, and how many of these are pages of files, from Linux's `/proc`; 0 where that is unknown.
pub(super) fn resident_bytes(process: &str) -> (u64, u64) {
    let statm = std::fs::read_to_string(format!("/proc/{process}/statm")).unwrap_or_default();
    let mut pages = statm.split(' ').skip(1).map(|field| field.parse::<u64>().unwrap_or(0));
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    let mut next = || pages.next().unwrap_or(0) * page;
    (next(), next())
}
