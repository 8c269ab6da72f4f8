//! `ctl pull SOURCE [NAME]`: fetch a model.
//!
//! On a terminal each blob has a line of its own with a bar; elsewhere each gets a line when it is done. The daemon does the
//! work: Ctrl-C cancels it there, unless somebody else waits for the same, and what was fetched is kept.

use super::{Context, import};
use crate::answer::request_name;
use crate::args::ImportModeArgs;
use crate::bars::{Bars, bar};
use crate::error::CtlError;
use crate::format::{bytes, percent, span};
use crate::session::Session;
use crate::status_line::StatusLine;
use crate::wire::pull_event;
use hearth_protocol::{
    ErrorKind, ModelPull, PullBlob, PullEvent, PullParams, PullState, Pulled, RpcError,
};
use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

const DELAY: Duration = Duration::from_millis(200);

pub(super) fn run(context: &Context, source: String, name: Option<String>) -> Result<(), CtlError> {
    if let Some(file) = local_file(&source) {
        let mode = ImportModeArgs { copy: false, reflink: false, link: false };
        return import::run(context, file, name, &mode);
    }
    let mut session = context.connect()?;
    let request = request_name();
    let params = PullParams { source, name, request: Some(request.clone()) };
    let end = follow(context, &mut session, &params, &request)?;
    match end {
        Some(Ok(_)) if context.out.is_json() => Ok(()),
        Some(Ok(pulled)) => context.out.line(&format!(
            "`{}` pulled, {}; `ctl run {0}` runs it",
            pulled.name,
            bytes(pulled.size_bytes)
        )),
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

/// A path is no name of a model: it begins with `/` or `.`, or a GGUF file is there.
fn local_file(source: &str) -> Option<&Path> {
    let path = source.strip_prefix("file://").unwrap_or(source);
    let is_path = path.starts_with('/')
        || path.starts_with("./")
        || path.starts_with("../")
        || (path.ends_with(".gguf") && Path::new(path).is_file());
    is_path.then(|| Path::new(path))
}

fn follow(
    context: &Context,
    session: &mut Session,
    params: &PullParams,
    request: &str,
) -> Result<Option<Result<Pulled, RpcError>>, CtlError> {
    let mut waiting = StatusLine::start(&context.out, DELAY, "asking for the manifest");
    let mut bars = Bars::new(&context.out);
    let mut told = HashSet::new();
    let mut end = None;
    session.stream::<ModelPull>(params, Some(request), |event, watch| {
        let known = pull_event(&event)?;
        if context.out.is_json() {
            context.out.json_line(&event)?;
        }
        match known {
            Some(PullEvent::Accepted { .. }) => watch.accepted(),
            Some(PullEvent::Progress { blobs }) => {
                waiting.finish();
                if bars.can_draw() {
                    let lines: Vec<String> = largest_first(&blobs).map(line).collect();
                    bars.draw(&lines);
                } else if !context.out.is_json() {
                    for (idx, blob) in blobs.iter().enumerate() {
                        if blob.state == PullState::Done && told.insert(idx) {
                            context.out.note(&line(blob));
                        }
                    }
                }
            }
            Some(PullEvent::Done { reply }) => end = Some(Ok(reply)),
            Some(PullEvent::Error { error }) => end = Some(Err(error)),
            None => {}
        }
        Ok(())
    })?;
    Ok(end)
}

fn largest_first(blobs: &[PullBlob]) -> impl Iterator<Item = &PullBlob> {
    let mut sorted: Vec<&PullBlob> = blobs.iter().collect();
    sorted.sort_by_key(|blob| std::cmp::Reverse(blob.size_bytes));
    sorted.into_iter()
}

fn line(blob: &PullBlob) -> String {
    let digest = blob.digest.as_deref().and_then(|digest| digest.get(7..19)).unwrap_or("");
    let what = format!("{:9} {digest:12}", blob.kind);
    let size = bytes(blob.size_bytes);
    let fraction = match blob.size_bytes {
        0 => 1.0,
        size => blob.done_bytes as f32 / size as f32,
    };
    let bar = format!("{} {:>5}", bar(fraction), percent(fraction));
    match blob.state {
        PullState::Waiting => format!("{what} {} waiting, {size}", self::bar(0.0)),
        PullState::Checking => format!("{what} {bar}  {size}, checking what is here"),
        PullState::Fetching => {
            let rate = blob.bytes_per_second;
            let left = (blob.size_bytes - blob.done_bytes.min(blob.size_bytes))
                .checked_div(rate)
                .map(|seconds| format!(", {} left", span(seconds)))
                .unwrap_or_default();
            format!("{what} {bar}  {} of {size}, {}/s{left}", bytes(blob.done_bytes), bytes(rate))
        }
        PullState::Finishing => format!("{what} {bar}  {size}, writing to disk"),
        PullState::Done => format!("{what} {bar}  {size}"),
        PullState::Unknown => format!("{what} {bar}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_a_blob_is() {
        let mut blob = PullBlob {
            digest: Some(format!("sha256:{}", "ab".repeat(32))),
            kind: "model".into(),
            state: PullState::Fetching,
            size_bytes: 100_000_000,
            done_bytes: 25_000_000,
            bytes_per_second: 5_000_000,
        };
        assert_eq!(
            line(&blob),
            "model     abababababab ██████░░░░░░░░░░░░░░░░░░  25 %  25.0 MB of 100.0 MB, 5.0 MB/s, 15 seconds left"
        );
        (blob.state, blob.bytes_per_second) = (PullState::Waiting, 0);
        assert_eq!(
            line(&blob),
            "model     abababababab ░░░░░░░░░░░░░░░░░░░░░░░░ waiting, 100.0 MB"
        );
    }

    #[test]
    fn paths_are_told_from_names() {
        for path in ["/m/x.gguf", "./x", "../x.gguf", "file:///m/x"] {
            assert!(local_file(path).is_some(), "{path}");
        }
        for name in ["smollm2", "hf.co/u/r:q", "https://h/x.gguf", "x.gguf"] {
            assert!(local_file(name).is_none(), "{name}");
        }
    }
}
