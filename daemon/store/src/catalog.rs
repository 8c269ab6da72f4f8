//! The manifests folder: `<host>/<namespace>/<model>/<tag>`, one file per name.
//!
//! Names are found without regard to case, and the spelling on disk wins. What does not belong in
//! the folder is reported beside the names and never hides the others; hidden files are passed over
//! without a word, since Ollama, file managers and our own temps leave them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::disk::{self, TempNames};
use crate::error::{StoreError, quote};
use crate::manifest::Manifest;
use crate::name::ModelName;
use crate::nearest::nearest;

/// A model of one blob per tensor has thousands of layers of some 200 bytes.
const MAX_MANIFEST_BYTES: u64 = 4 << 20;
const TEMP_NAMES: TempNames = TempNames { prefix: ".", suffix: "-import" };
const N_LEVELS: usize = 4;

/// Something in a store that cannot be used, and does not keep the rest from being used.
#[derive(Debug)]
pub struct Problem {
    pub path: PathBuf,
    pub error: StoreError,
}

#[derive(Debug, Clone)]
pub(crate) struct Catalog {
    dir: PathBuf,
}

impl Catalog {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn path(&self, name: &ModelName) -> PathBuf {
        self.dir.join(name.path())
    }

    /// Every name there is, in no particular order.
    pub(crate) fn names(&self) -> (Vec<ModelName>, Vec<Problem>) {
        let mut names = Vec::new();
        let mut problems = Vec::new();
        self.walk(&mut Vec::new(), &mut names, &mut problems);
        (names, problems)
    }

    /// The name as it is spelled on disk.
    pub(crate) fn find(&self, name: &ModelName) -> Result<ModelName, StoreError> {
        if self.path(name).is_file() {
            return Ok(name.clone());
        }
        let (mut names, mut problems) = self.names();
        if let Some(idx) = names.iter().position(|existing| existing == name) {
            return Ok(names.swap_remove(idx));
        }
        // A catalog that cannot be read at all is not one without the model.
        if let Some(idx) = problems.iter().position(|problem| problem.path == self.dir) {
            return Err(problems.swap_remove(idx).error);
        }
        let nearest = nearest(name, &names).map(ToString::to_string);
        Err(StoreError::ModelNotFound { name: name.to_string(), nearest })
    }

    /// The name under which a new manifest is written.
    pub(crate) fn spell(&self, name: &ModelName) -> ModelName {
        if self.path(name).is_file() {
            return name.clone();
        }
        name.spelled_like(&self.names().0)
    }

    /// Reads the manifest of a name spelled as on disk, and when it was written.
    pub(crate) fn read(&self, name: &ModelName) -> Result<(Manifest, SystemTime), StoreError> {
        let path = self.path(name);
        let (bytes, metadata) = match disk::read_with_metadata(&path, MAX_MANIFEST_BYTES) {
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::ModelNotFound { name: name.to_string(), nearest: None });
            }
            read => read?,
        };
        let modified = metadata.modified().map_err(StoreError::at("read", &path))?;
        let manifest =
            Manifest::parse(bytes).map_err(|reason| StoreError::BadManifest { path, reason })?;
        Ok((manifest, modified))
    }

    /// Every model there is with its manifest, and all that may be one and cannot be read.
    pub(crate) fn manifests(&self) -> (Vec<(ModelName, Manifest)>, Vec<Problem>) {
        let (names, mut problems) = self.names();
        let mut manifests = Vec::new();
        for name in names {
            match self.read(&name) {
                Ok((manifest, _)) => manifests.push((name, manifest)),
                Err(error) => {
                    let path = self.path(&name);
                    // Unless it was deleted since its name was read. A dangling link was not: what
                    // it points to may be on a disk that is absent now.
                    if fs::symlink_metadata(&path).is_ok() {
                        problems.push(Problem { path, error });
                    }
                }
            }
        }
        (manifests, problems)
    }

    /// Removes the manifest of a name spelled as on disk, and the folders it leaves empty.
    pub(crate) fn remove(&self, name: &ModelName) -> Result<(), StoreError> {
        disk::remove_with_parents(&self.path(name), &self.dir)
    }

    /// Writes a manifest, replacing at once the one that has the name now. Its blobs are on disk.
    pub(crate) fn write(&self, name: &ModelName, manifest: &Manifest) -> Result<(), StoreError> {
        disk::create_dirs(&self.dir)?;
        disk::remove_stale_temps(&self.dir, TEMP_NAMES);
        let path = self.path(name);
        if let Some(parent) = path.parent() {
            disk::create_dirs(parent)?;
        }
        disk::write_file(&self.dir, TEMP_NAMES, &path, manifest.bytes())
    }

    fn walk(
        &self,
        parts: &mut Vec<String>,
        names: &mut Vec<ModelName>,
        problems: &mut Vec<Problem>,
    ) {
        let dir = parts.iter().fold(self.dir.clone(), |dir, part| dir.join(part));
        let entries = match fs::read_dir(&dir).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !dir.is_symlink() => return,
            Err(error) => {
                let error = StoreError::io("read", &dir, error);
                problems.push(Problem { path: dir, error });
                return;
            }
        };
        for entry in entries {
            let (path, file_name) = (entry.path(), entry.file_name());
            let part = file_name.to_string_lossy();
            if part.starts_with('.') {
                continue;
            }
            parts.push(part.into_owned());
            // Follows symlinks; the fixed depth keeps a loop of them finite.
            let is_dir = match entry.file_type() {
                Ok(file_type) if !file_type.is_symlink() => file_type.is_dir(),
                _ => path.is_dir(),
            };
            match (is_dir, parts.len() == N_LEVELS) {
                (true, false) => self.walk(parts, names, problems),
                (false, true) => match name_of(parts) {
                    Ok(name) => names.push(name),
                    Err(error) => problems.push(Problem { path, error }),
                },
                _ => problems.push(misplaced(&path, is_dir)),
            }
            parts.pop();
        }
    }
}

fn name_of(parts: &[String]) -> Result<ModelName, StoreError> {
    match parts {
        [host, namespace, model, tag] => ModelName::from_parts(host, namespace, model, tag),
        _ => Err(StoreError::BadName {
            name: quote(&parts.join("/")),
            reason: format!("it has {} parts, not {N_LEVELS}", parts.len()),
        }),
    }
}

fn misplaced(path: &Path, is_dir: bool) -> Problem {
    let what = if is_dir { "a folder" } else { "a file" };
    let reason = format!("{what} has no place here: manifests are at host/namespace/model/tag");
    let path = path.to_owned();
    Problem { error: StoreError::BadManifest { path: path.clone(), reason }, path }
}
