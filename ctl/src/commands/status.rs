//! `ctl status`: facts about the daemon itself.

use super::Context;
use crate::error::CtlError;
use crate::format::{bytes, span};
use hearth_protocol::{DaemonStatus, Empty, Status};

pub(super) fn run(context: &Context) -> Result<(), CtlError> {
    let mut session = context.connect()?;
    let reply = session.call::<DaemonStatus>(&Empty {})?;
    if context.out.is_json() {
        return context.out.json(&reply);
    }
    let status: Status = session.read(reply)?;
    let backend = match (&status.backend, status.probed) {
        (Some(backend), _) => backend.clone(),
        (None, true) => "none can run here; `ctl backend` says why".into(),
        (None, false) => "still looking at the hardware".into(),
    };
    let http = if status.http.is_empty() { "off".into() } else { status.http.join(", ") };
    context.out.facts(&[
        ("version", status.version),
        ("process", status.pid.to_string()),
        ("up for", span(status.uptime_s)),
        ("socket", status.socket),
        ("http", http),
        ("models", status.models_dir),
        ("backend", backend),
        ("loaded", status.loaded_models.to_string()),
        ("requests", status.active_requests.to_string()),
        ("memory", format!("{} (without the models)", bytes(status.rss_bytes))),
    ])
}
