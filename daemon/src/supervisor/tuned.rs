//! Settings that were measured to be faster than the defaults, and the file that keeps them.
//!
//! `tuned.json` in the state folder has one entry per file of weights, with the machine that it was found on: its
//! processors, and the build of the plugin. On another machine, or with another build, the entry counts for nothing.

use hearth_protocol::{Backend, Tuning};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::UNIX_EPOCH;

#[derive(Debug)]
pub(crate) struct Tuned {
    /// `None`: there is no state folder.
    file: Option<PathBuf>,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    /// By the digest of the weights.
    kept: BTreeMap<String, Kept>,
    /// What is measured just now, for one model.
    trial: Option<(String, Tuning)>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Kept {
    machine: String,
    settings: Tuning,
}

impl Tuned {
    /// Reads what was kept. A file that cannot be read is as none: nothing in it was promised to anybody.
    pub(crate) fn open(state: Option<&Path>) -> Self {
        let file = state.map(|state| state.join("tuned.json"));
        let kept = match file.as_deref().map(fs::read) {
            Some(Ok(bytes)) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!("Settings found by `ctl bench --tune` cannot be read: {error}");
                BTreeMap::new()
            }),
            _ => BTreeMap::new(),
        };
        Self { file, entries: Mutex::new(Entries { kept, trial: None }) }
    }

    /// What to load a model with.
    pub(crate) fn get(&self, weights: &str, machine: &str) -> Tuning {
        let entries = self.entries();
        match &entries.trial {
            Some((of, settings)) if of == weights => *settings,
            _ => entries
                .kept
                .get(weights)
                .filter(|kept| kept.machine == machine)
                .map(|kept| kept.settings)
                .unwrap_or_default(),
        }
    }

    /// Loads of this model have these settings as long as the trial lasts. There is one at a time.
    pub(crate) fn try_out(&self, weights: &str, settings: Tuning) -> Trial<'_> {
        self.entries().trial = Some((weights.into(), settings));
        Trial { tuned: self }
    }

    /// Keeps settings for the loads to come, also after a restart.
    pub(crate) fn keep(&self, weights: &str, machine: &str, settings: Tuning) -> io::Result<()> {
        let mut entries = self.entries();
        if settings == Tuning::default() {
            entries.kept.remove(weights);
        } else {
            entries.kept.insert(weights.into(), Kept { machine: machine.into(), settings });
        }
        let Some(file) = &self.file else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "there is no state folder"));
        };
        let folder = file.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder)?;
        let temp = file.with_extension("new");
        let mut written = File::create(&temp)?;
        written.write_all(&serde_json::to_vec_pretty(&entries.kept)?)?;
        written.sync_all()?;
        fs::rename(&temp, file)
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// While it exists, a model is loaded with the settings that are tried.
#[derive(Debug)]
pub(crate) struct Trial<'a> {
    tuned: &'a Tuned,
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        self.tuned.entries().trial = None;
    }
}

/// What settings depend on: the processors, and the very file of the plugin.
pub(crate) fn machine(backend: &Backend) -> String {
    let n_processors = n_processors();
    let devices: Vec<_> = backend
        .devices
        .iter()
        .map(|device| format!("{} {} {}", device.id, device.name, device.detail))
        .collect();
    let build = fs::metadata(&backend.path).and_then(|file| Ok((file.len(), file.modified()?)));
    let build = build.map(|(len, modified)| {
        let seconds = modified.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        format!("{len} bytes of {seconds}")
    });
    let Backend { name, version, description, .. } = backend;
    let (devices, build) = (devices.join(", "), build.unwrap_or_default());
    format!("{n_processors} processors; {devices}; {name} {version}, {description}, {build}")
}

/// That this process may use.
pub(crate) fn n_processors() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE_THREAD: Tuning =
        Tuning { threads: Some(1), spin: None, batch: None, kv_type: None, flash_attention: None };

    #[test]
    fn what_is_kept_is_used_after_a_restart_on_the_same_machine_only() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let tuned = Tuned::open(Some(&state));
        tuned.keep("a", "this", ONE_THREAD).unwrap();
        let tuned = Tuned::open(Some(&state));
        assert_eq!(tuned.get("a", "this"), ONE_THREAD);
        assert_eq!(tuned.get("a", "another"), Tuning::default());
        assert_eq!(tuned.get("b", "this"), Tuning::default());
        tuned.keep("a", "this", Tuning::default()).unwrap();
        assert_eq!(Tuned::open(Some(&state)).get("a", "this"), Tuning::default());
    }

    #[test]
    fn a_trial_goes_before_what_is_kept_and_ends() {
        let folder = tempfile::tempdir().unwrap();
        let tuned = Tuned::open(Some(folder.path()));
        tuned.keep("a", "this", ONE_THREAD).unwrap();
        let tried = Tuning { batch: Some(64), ..Tuning::default() };
        let trial = tuned.try_out("a", tried);
        assert_eq!(tuned.get("a", "this"), tried);
        assert_eq!(tuned.get("b", "this"), Tuning::default());
        drop(trial);
        assert_eq!(tuned.get("a", "this"), ONE_THREAD);
    }

    #[test]
    fn a_broken_file_is_as_none_and_a_missing_folder_is_said() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("tuned.json"), "{").unwrap();
        assert_eq!(Tuned::open(Some(folder.path())).get("a", "this"), Tuning::default());
        assert!(Tuned::open(None).keep("a", "this", ONE_THREAD).is_err());
    }

    #[test]
    fn another_build_of_the_plugin_is_another_machine() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libhearth_x.so");
        fs::write(&path, "one").unwrap();
        let mut backend = Backend {
            name: "x".into(),
            state: hearth_protocol::BackendState::Chosen,
            reason: String::new(),
            version: "1".into(),
            description: String::new(),
            path: path.display().to_string(),
            devices: Vec::new(),
        };
        let before = machine(&backend);
        assert_eq!(machine(&backend), before);
        fs::write(&path, "another").unwrap();
        assert_ne!(machine(&backend), before);
        let before = machine(&backend);
        backend.version = "2".into();
        assert_ne!(machine(&backend), before);
    }
}
