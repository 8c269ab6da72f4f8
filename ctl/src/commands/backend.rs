//! `ctl backend`: each backend with its state, the reason for it, and its hardware.

use super::Context;
use crate::error::CtlError;
use crate::format::bytes;
use hearth_protocol::{Backend, BackendList, BackendListMethod, BackendState, Device, Empty};

pub(super) fn run(context: &Context) -> Result<(), CtlError> {
    let mut session = context.connect()?;
    let reply = session.call::<BackendListMethod>(&Empty {})?;
    if context.out.is_json() {
        return context.out.json(&reply);
    }
    let list: BackendList = session.read(reply)?;
    if list.backends.is_empty() {
        context.out.note("no backend was found yet");
        return Ok(());
    }
    let facts: Vec<(&str, String)> =
        list.backends.iter().map(|backend| (backend.name.as_str(), describe(backend))).collect();
    context.out.facts(&facts)
}

/// State and reason on the first line; below it what is known.
fn describe(backend: &Backend) -> String {
    let state = match backend.state {
        BackendState::Chosen => "chosen",
        BackendState::Ready => "ready",
        BackendState::Absent => "absent",
        BackendState::Refused => "refused",
        BackendState::Crashed => "crashed",
    };
    let mut lines = vec![joined(": ", [state, &backend.reason])];
    lines.push(joined(", ", [backend.description.as_str(), &backend.version]));
    lines.extend(backend.devices.iter().map(describe_device));
    lines.push(backend.path.clone());
    lines.retain(|line| !line.is_empty());
    lines.join("\n")
}

fn describe_device(device: &Device) -> String {
    let kind = device.kind.replace('_', " ");
    let memory = match (device.memory_free, device.memory_total) {
        (_, 0) => String::new(),
        (0, total) => bytes(total),
        (free, total) => format!("{} of {} free", bytes(free), bytes(total)),
    };
    joined(", ", [&format!("{} `{}`: {}", kind, device.id, device.name), &device.detail, &memory])
}

fn joined<'a>(
    by: &str,
    parts: impl IntoIterator<Item = &'a (impl AsRef<str> + ?Sized + 'a)>,
) -> String {
    let parts: Vec<&str> =
        parts.into_iter().map(AsRef::as_ref).filter(|part| !part.is_empty()).collect();
    parts.join(by)
}
