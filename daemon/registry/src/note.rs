//! What is remembered of an upload, so that the next push goes on where one was interrupted.
//!
//! A note is a small file in the daemon's state folder. It is locked as long as its upload runs, so that no two go on with the
//! same one, and gone when that has ended. Losing one costs sending again, so nothing waits for the disk; and a registry that
//! has forgotten the upload, or has other ideas of it, makes the note worth nothing.

use crate::upload::Session;
use hearth_store::Digest;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Registries forget uploads sooner.
const FORGOTTEN: Duration = Duration::from_secs(14 * 24 * 60 * 60);

#[derive(Debug)]
pub(crate) struct Note {
    file: File,
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Written {
    url: String,
    n_bytes: u64,
    parts: Vec<[u8; 16]>,
}

impl Note {
    /// The note of a blob's way into a repository. None while another upload has it, and where there is no place for notes.
    pub(crate) fn open(folder: &Path, base: &Url, repository: &str, blob: Digest) -> Option<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).ok()?;
        remove_forgotten(folder);
        let way = format!("{base}\n{repository}\n{blob}");
        let path = folder.join(Digest::of(way.as_bytes()).hex());
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).ok()?;
        file.try_lock().ok()?;
        Some(Self { file, path })
    }

    /// Where the upload stood, to be believed once the registry says the same.
    pub(crate) fn read(&self) -> Option<Session> {
        let mut text = String::new();
        (&self.file).read_to_string(&mut text).ok()?;
        let Written { url, n_bytes, parts } = serde_json::from_str(&text).ok()?;
        let url = Url::parse(&url).ok()?;
        Some(Session { url, n_bytes, is_sure: false, is_noted: true, parts })
    }

    pub(crate) fn write(&self, session: &Session) {
        let Session { url, n_bytes, parts, .. } = session;
        let written = Written { url: url.to_string(), n_bytes: *n_bytes, parts: parts.clone() };
        let result = serde_json::to_vec(&written).map_err(io::Error::other).and_then(|text| {
            self.file.set_len(0)?;
            self.file.write_all_at(&text, 0)
        });
        if let Err(error) = result {
            tracing::debug!(%error, "Cannot note how far an upload is");
        }
    }

    /// The upload has ended.
    pub(crate) fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn remove_forgotten(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let written = entry.metadata().and_then(|metadata| metadata.modified());
        let age = written.ok().and_then(|written| written.elapsed().ok());
        if age.is_some_and(|age| age > FORGOTTEN) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
