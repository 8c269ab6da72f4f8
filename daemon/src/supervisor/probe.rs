//! Finding out which backends work, without loading any of them here.
//!
//! Each plugin file is tried by `hearthd probe FILE` in a process of its own, all at the same time, with a deadline: one
//! that crashes or hangs costs nothing but its own line in `ctl backend list`.

use crate::config::Config;
use crate::plugin;
use crate::probe::ProbeReport;
use crate::sandbox::Sandbox;
use hearth_protocol::{Backend, BackendState, Device};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// Backends there can be on this system, the most wanted first, and what to say when there is no file for them.
#[cfg(target_os = "macos")]
const KNOWN: [(&str, &str); 2] = [("metal", "for Apple GPUs"), ("cpu", "for any machine")];
#[cfg(not(target_os = "macos"))]
const KNOWN: [(&str, &str); 3] = [
    ("cuda", "for NVIDIA GPUs"),
    ("vulkan", "for AMD, Intel and other GPUs"),
    ("cpu", "for any machine"),
];

/// What probing found.
#[derive(Debug, Clone, Default)]
pub(crate) struct Backends {
    pub(crate) list: Vec<Backend>,
}

impl Backends {
    pub(crate) fn chosen(&self) -> Option<&Backend> {
        self.list.iter().find(|backend| backend.state == BackendState::Chosen)
    }
}

/// Tries every plugin in the configured folders, each for no longer than its time.
pub(crate) async fn probe(executable: &Path, config: &Config) -> Backends {
    let (dirs, wanted) = (config.backend_dirs.as_slice(), config.backend.as_str());
    let deadline = config.probe;
    let tasks: Vec<_> = plugin_files(dirs)
        .into_iter()
        .map(|(name, path)| {
            let sandbox = config.sandbox.clone();
            tokio::spawn(probe_one(executable.to_path_buf(), name, path, sandbox, deadline))
        })
        .collect();
    let mut list = Vec::new();
    for task in tasks {
        if let Ok(backend) = task.await {
            list.push(backend);
        }
    }
    for (name, purpose) in KNOWN {
        if !list.iter().any(|backend| backend.name == name) {
            list.push(absent(name, purpose, dirs));
        }
    }
    list.sort_by_key(|backend| rank(&backend.name));
    choose(&mut list, wanted);
    list.sort_by_key(|backend| backend.state as u8);
    for backend in &list {
        let (name, reason) = (&backend.name, &backend.reason);
        match backend.state {
            BackendState::Chosen => tracing::info!(backend = name, "Backend chosen: {reason}"),
            BackendState::Ready | BackendState::Absent => {
                tracing::debug!(backend = name, "Backend not used: {reason}")
            }
            BackendState::Refused | BackendState::Crashed => {
                tracing::warn!(backend = name, "Backend not usable: {reason}")
            }
        }
    }
    let backends = Backends { list };
    if backends.chosen().is_none() {
        let why = super::no_backend(&backends, wanted);
        tracing::warn!("No model can be loaded: {}; `ctl backend list` says why", why.message);
    }
    backends
}

/// What is linked in, or else files named like plugins, by backend name. The first folder that has one wins.
fn plugin_files(dirs: &[PathBuf]) -> BTreeMap<String, PathBuf> {
    if let Some(name) = plugin::linked_in() {
        return BTreeMap::from([(name.to_owned(), plugin::LINKED_IN.into())]);
    }
    let mut files = BTreeMap::new();
    for dir in dirs {
        let Ok(entries) = std::fs::read_dir(dir) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| {
                name.strip_prefix("libhearth_")?.strip_suffix(std::env::consts::DLL_SUFFIX)
            });
            if let Some(name) = name {
                files.entry(name.to_string()).or_insert(path);
            }
        }
    }
    files
}

fn rank(name: &str) -> usize {
    KNOWN.iter().position(|(known, _)| *known == name).unwrap_or(KNOWN.len())
}

fn absent(name: &str, purpose: &str, dirs: &[PathBuf]) -> Backend {
    let dirs: Vec<_> = dirs.iter().map(|dir| format!("`{}`", dir.display())).collect();
    let file = format!("libhearth_{name}{}", std::env::consts::DLL_SUFFIX);
    let reason = match dirs.as_slice() {
        [] => format!("no folder to look for `{file}` in ({purpose})"),
        dirs => format!("there is no `{file}` ({purpose}) in {}", dirs.join(", ")),
    };
    empty(name, BackendState::Absent, reason, String::new())
}

fn empty(name: &str, state: BackendState, reason: String, path: String) -> Backend {
    let (version, description) = (String::new(), String::new());
    Backend { name: name.into(), state, reason, version, description, path, devices: Vec::new() }
}

async fn probe_one(
    executable: PathBuf,
    name: String,
    path: PathBuf,
    sandbox: Option<Sandbox>,
    deadline: Duration,
) -> Backend {
    let shown = path.display().to_string();
    let mut command = Command::new(executable);
    command.arg0("hearthd").arg("probe").arg(&path);
    if let Some(sandbox) = sandbox.and_then(|sandbox| serde_json::to_string(&sandbox).ok()) {
        command.arg("--sandbox").arg(sandbox);
    }
    let child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output();
    let output = match tokio::time::timeout(deadline, child).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => {
            return empty(
                &name,
                BackendState::Crashed,
                format!("its probe did not start: {error}"),
                shown,
            );
        }
        Err(_) => {
            let reason = format!(
                "its probe took longer than {} s (`probe_seconds` in the configuration) and was ended",
                deadline.as_secs()
            );
            return empty(&name, BackendState::Crashed, reason, shown);
        }
    };
    match serde_json::from_slice::<ProbeReport>(&output.stdout) {
        Ok(ProbeReport::Works { name, version, description, devices }) => {
            let devices: Vec<Device> = devices.into_iter().map(Into::into).collect();
            Backend {
                name,
                state: BackendState::Ready,
                reason: String::new(),
                version,
                description,
                path: shown,
                devices,
            }
        }
        Ok(ProbeReport::NoDevice { reason }) => empty(&name, BackendState::Absent, reason, shown),
        Ok(ProbeReport::Refused { reason }) => empty(&name, BackendState::Refused, reason, shown),
        Err(_) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let last =
                said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
            empty(
                &name,
                BackendState::Crashed,
                format!("its probe ended with {}: {last}", output.status),
                shown,
            )
        }
    }
}

/// Marks the backend to load models with, and says of the others why not.
fn choose(list: &mut [Backend], wanted: &str) {
    let chosen = list.iter().position(|backend| {
        backend.state == BackendState::Ready && (wanted == "auto" || backend.name == wanted)
    });
    let chosen_name = chosen.map(|at| list[at].name.clone());
    for (at, backend) in list.iter_mut().enumerate() {
        if Some(at) == chosen {
            backend.state = BackendState::Chosen;
            backend.reason = if wanted == "auto" {
                "the most wanted one that works here".into()
            } else {
                format!("`backend = \"{wanted}\"` in the configuration")
            };
        } else if backend.state == BackendState::Ready {
            backend.reason = match &chosen_name {
                Some(name) if wanted == "auto" => format!("works, and `{name}` is preferred"),
                _ => format!("works, and the configuration wants `{wanted}`"),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(name: &str) -> Backend {
        empty(name, BackendState::Ready, String::new(), String::new())
    }

    #[test]
    fn the_first_that_works_is_chosen_and_a_wanted_one_before_it() {
        let mut list = vec![
            empty("cuda", BackendState::Crashed, "x".into(), String::new()),
            ready("vulkan"),
            ready("cpu"),
        ];
        choose(&mut list, "auto");
        assert_eq!(list[1].state, BackendState::Chosen);
        assert_eq!(list[2].reason, "works, and `vulkan` is preferred");
        assert_eq!(list[0].reason, "x");

        let mut list = vec![ready("vulkan"), ready("cpu")];
        choose(&mut list, "cpu");
        assert_eq!(list[1].state, BackendState::Chosen);
    }
}
