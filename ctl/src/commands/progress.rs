//! What the commands share that take a while, such as `ctl load` and `ctl import`: a stream of progress, shown as a bar, and the
//! reply at its end.
//!
//! Ctrl-C ends the connection, and with it the work in the daemon.

use super::Context;
use crate::error::CtlError;
use crate::format::percent;
use crate::session::Session;
use crate::status_line::StatusLine;
use crate::wire::progress_event;
use hearth_protocol::{ProgressEvent, StreamMethod};
use serde_json::Value;
use std::time::Duration;

/// These commands are started to be watched, so the bar comes sooner than a chat's waiting line.
pub(super) const DELAY: Duration = Duration::from_millis(200);
const BAR_CELLS: usize = 30;

/// The reply as it came.
pub(super) fn watch<M: StreamMethod>(
    context: &Context,
    session: &mut Session,
    params: &M::Params,
) -> Result<Value, CtlError> {
    let mut status = StatusLine::start(&context.out, DELAY, "waiting for the daemon");
    let mut reply = Value::Null;
    let result = session.stream::<M>(params, None, |mut event, _| {
        match progress_event::<Value>(&event)? {
            Some(ProgressEvent::Progress { stage, fraction }) => status.set(bar(&stage, fraction)),
            Some(ProgressEvent::Done { .. }) => reply = event["reply"].take(),
            Some(ProgressEvent::Error { error }) => {
                return Err(CtlError::Rpc { error, hint: None }.into());
            }
            Some(ProgressEvent::Accepted { .. }) | None => {}
        }
        Ok(())
    });
    status.finish();
    result.map(|()| reply)
}

pub(super) fn bar(stage: &str, fraction: f32) -> String {
    // From 0 to BAR_CELLS, since the fraction is clamped.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    let full = (fraction.clamp(0.0, 1.0) * BAR_CELLS as f32) as usize;
    let (full, empty) = ("█".repeat(full), "░".repeat(BAR_CELLS - full));
    format!("{stage} {full}{empty} {}", percent(fraction))
}
