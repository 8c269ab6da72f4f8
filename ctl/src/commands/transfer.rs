//! What `ctl pull` and `ctl push` share: how far each blob is, and how it ended.
//!
//! On a terminal each blob has a line of its own with a bar; elsewhere each gets a line when it is done.

use super::Context;
use crate::bars::{Bars, bar};
use crate::error::CtlError;
use crate::format::{bytes, percent, span};
use crate::status_line::StatusLine;
use crate::wire::transfer_event;
use hearth_protocol::{ErrorKind, StreamMethod, TransferBlob, TransferEvent, TransferState};
use std::collections::HashSet;
use std::time::Duration;

const DELAY: Duration = Duration::from_millis(200);

/// Shows a transfer until it ends. Its reply, unless it is on stdout as JSON already.
pub(super) fn follow<M: StreamMethod>(
    context: &Context,
    params: &M::Params,
    request: &str,
) -> Result<Option<M::Reply>, CtlError> {
    let mut session = context.connect()?;
    let mut waiting = StatusLine::start(&context.out, DELAY, "waiting for the registry");
    let mut bars = Bars::new(&context.out);
    let mut told = HashSet::new();
    let mut end = None;
    session.stream::<M>(params, Some(request), |event, watch| {
        let known = transfer_event::<M::Reply>(&event)?;
        if context.out.is_json() {
            context.out.json_line(&event)?;
        }
        match known {
            Some(TransferEvent::Accepted { .. }) => watch.accepted(),
            Some(TransferEvent::Progress { blobs }) => {
                waiting.finish();
                if bars.can_draw() {
                    let lines: Vec<String> = largest_first(&blobs).map(line).collect();
                    bars.draw(&lines);
                } else if !context.out.is_json() {
                    for (idx, blob) in blobs.iter().enumerate() {
                        if blob.state == TransferState::Done && told.insert(idx) {
                            context.out.note(&line(blob));
                        }
                    }
                }
            }
            Some(TransferEvent::Done { reply }) => end = Some(Ok(reply)),
            Some(TransferEvent::Error { error }) => end = Some(Err(error)),
            None => {}
        }
        Ok(())
    })?;
    match end {
        Some(Ok(_)) if context.out.is_json() => Ok(None),
        Some(Ok(reply)) => Ok(Some(reply)),
        Some(Err(error)) if error.kind() == Some(ErrorKind::Cancelled) && session.interrupted() => {
            Err(CtlError::Interrupted)
        }
        // It is on stdout already, as the last event.
        Some(Err(error)) if context.out.is_json() => {
            Err(CtlError::Failed { hint: error.hint().map(str::to_owned), message: error.message })
        }
        Some(Err(error)) => Err(CtlError::Rpc { error, hint: None }),
        None => Err(CtlError::Disconnected),
    }
}

fn largest_first(blobs: &[TransferBlob]) -> impl Iterator<Item = &TransferBlob> {
    let mut sorted: Vec<&TransferBlob> = blobs.iter().collect();
    sorted.sort_by_key(|blob| std::cmp::Reverse(blob.size_bytes));
    sorted.into_iter()
}

fn line(blob: &TransferBlob) -> String {
    let digest = blob.digest.as_deref().and_then(|digest| digest.get(7..19)).unwrap_or("");
    let what = format!("{:9} {digest:12}", blob.kind);
    let size = bytes(blob.size_bytes);
    let fraction = match blob.size_bytes {
        0 => 1.0,
        size => blob.done_bytes as f32 / size as f32,
    };
    let bar = format!("{} {:>5}", bar(fraction), percent(fraction));
    match blob.state {
        TransferState::Waiting => format!("{what} {} waiting, {size}", self::bar(0.0)),
        TransferState::Checking => format!("{what} {bar}  {size}, checking what is there"),
        TransferState::Fetching | TransferState::Sending => {
            let rate = blob.bytes_per_second;
            let left = (blob.size_bytes - blob.done_bytes.min(blob.size_bytes))
                .checked_div(rate)
                .map(|seconds| format!(", {} left", span(seconds)))
                .unwrap_or_default();
            format!("{what} {bar}  {} of {size}, {}/s{left}", bytes(blob.done_bytes), bytes(rate))
        }
        TransferState::Finishing => format!("{what} {bar}  {size}, finishing"),
        TransferState::Done => format!("{what} {bar}  {size}"),
        TransferState::Unknown => format!("{what} {bar}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_a_blob_is() {
        let mut blob = TransferBlob {
            digest: Some(format!("sha256:{}", "ab".repeat(32))),
            kind: "model".into(),
            state: TransferState::Fetching,
            size_bytes: 100_000_000,
            done_bytes: 25_000_000,
            bytes_per_second: 5_000_000,
        };
        assert_eq!(
            line(&blob),
            "model     abababababab ██████░░░░░░░░░░░░░░░░░░  25 %  25.0 MB of 100.0 MB, 5.0 MB/s, 15 seconds left"
        );
        (blob.state, blob.bytes_per_second) = (TransferState::Waiting, 0);
        assert_eq!(
            line(&blob),
            "model     abababababab ░░░░░░░░░░░░░░░░░░░░░░░░ waiting, 100.0 MB"
        );
    }
}
