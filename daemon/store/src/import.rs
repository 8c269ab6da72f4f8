//! Importing a GGUF file: check it, hash it, put it under its digest, name it.
//!
//! The order makes every instant safe to crash in: the blob is complete and on disk before it has
//! its name, the config before the manifest, and the manifest's rename is what makes the model
//! appear or change. Until the last report before that, the caller can cancel without a trace.

use std::fs::{self, File};
use std::io::{self, Seek};
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hearth_gguf::{Gguf, GgufSummary};

use crate::blob::{Blob, BlobDir, Present};
use crate::config::ModelConfig;
use crate::digest::Digest;
use crate::disk::{self, Temp};
use crate::error::StoreError;
use crate::manifest::{CONFIG_MEDIA_TYPE, Layer, LayerKind, Manifest};
use crate::name::ModelName;
use crate::store::Store;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportMode {
    /// A reflink where the file system can, else a copy.
    Auto,
    Copy,
    /// Shares the file's blocks until one side changes; needs one Btrfs, XFS or similar for both.
    Reflink,
    /// Leaves the file where it is. The model is lost if the file is moved or changed.
    Link,
    /// The same without reading all of it, for a store that goes with its process: the digest is of what the file system says
    /// of the file, and not of what it holds, so that `verify` finds it wrong.
    LinkUnread,
}

/// What became of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    Copied,
    Reflinked,
    Linked,
    /// The store had the content already.
    Reused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportStage {
    Checking,
    Copying,
    Hashing,
    /// Waiting for the disk, which takes seconds after a large copy and cannot be interrupted.
    Syncing,
    /// The last moment to cancel.
    Finishing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportProgress {
    pub stage: ImportStage,
    pub bytes_done: u64,
    pub bytes_total: u64,
}

#[derive(Debug, Clone)]
pub struct Imported {
    /// As it is spelled on disk.
    pub name: ModelName,
    /// The digest of the manifest.
    pub id: Digest,
    pub model_digest: Digest,
    pub size: u64,
    pub placed: Placed,
    pub summary: GgufSummary,
}

/// The file being imported, with what it was like when it was opened.
struct Source {
    path: PathBuf,
    file: File,
    len: u64,
    modified: SystemTime,
}

struct Reporter<'p> {
    name: String,
    bytes_total: u64,
    progress: &'p mut dyn FnMut(ImportProgress) -> ControlFlow<()>,
}

/// Imports `source` as `name`, replacing the model that has the name now. `progress` is called from
/// this thread, at every stage and for each MiB; `Break` cancels.
pub fn import(
    store: &Store,
    source: &Path,
    name: &ModelName,
    how: ImportMode,
    progress: &mut dyn FnMut(ImportProgress) -> ControlFlow<()>,
) -> Result<Imported, StoreError> {
    let source = Source::open(source)?;
    let mut reporter = Reporter { name: name.to_string(), bytes_total: source.len, progress };
    reporter.report(ImportStage::Checking, 0)?;
    let summary = source.check_model()?;
    let blobs = store.blobs();
    let (model_digest, placed) = place_source(blobs, &source, how, None, &mut reporter)?;
    let media_type = LayerKind::Model.media_type().unwrap_or_default();
    let layers = vec![Layer::new(&media_type, model_digest, source.len)];
    let manifest = write_config(blobs, &summary, layers)?;
    let name = store.commit(name, &manifest)?;
    let (id, size) = (manifest.id(), manifest.size());
    Ok(Imported { name, id, model_digest, size, placed, summary })
}

/// Puts a GGUF file of any kind under its digest, for a model that is being created. `progress` as for `import`.
pub fn place(
    store: &Store,
    source: &Path,
    how: ImportMode,
    progress: &mut dyn FnMut(ImportProgress) -> ControlFlow<()>,
) -> Result<Blob, StoreError> {
    // What is here already stays what it is, a copy or a link.
    if let Some(blob) = store.blobs().at(source) {
        return Ok(blob);
    }
    let source = Source::open(source)?;
    let name = source.path.display().to_string();
    let mut reporter = Reporter { name, bytes_total: source.len, progress };
    reporter.report(ImportStage::Checking, 0)?;
    check_gguf(&source.path, &source.file)?;
    let (digest, _) = place_source(store.blobs(), &source, how, None, &mut reporter)?;
    Ok(Blob { digest, size: source.len })
}

impl Store {
    /// Brings a blob in from elsewhere, if its content is what its name says. `progress` gets the
    /// bytes read so far, and can end it.
    pub fn take(
        &self,
        digest: &Digest,
        from: &Path,
        how: ImportMode,
        progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Placed, StoreError> {
        let source = Source::open(from)?;
        let mut progress = |now: ImportProgress| progress(now.bytes_done);
        let (name, bytes_total) = (digest.to_string(), source.len);
        let mut reporter = Reporter { name, bytes_total, progress: &mut progress };
        place_source(self.blobs(), &source, how, Some(digest), &mut reporter)
            .map(|(_, placed)| placed)
    }
}

impl Source {
    fn open(path: &Path) -> Result<Self, StoreError> {
        let path = fs::canonicalize(path).map_err(StoreError::at("open", path))?;
        let file = disk::open_file(&path)?;
        let metadata = file.metadata().map_err(StoreError::at("read", &path))?;
        let modified = metadata.modified().map_err(StoreError::at("read", &path))?;
        Ok(Self { len: metadata.len(), path, file, modified })
    }

    fn check_model(&self) -> Result<GgufSummary, StoreError> {
        let (kind, summary) = check_gguf(&self.path, &self.file)?;
        let unsupported = |reason: &str, hint| {
            let (path, reason) = (self.path.clone(), reason.to_owned());
            Err(StoreError::UnsupportedFile { path, reason, hint })
        };
        match kind {
            LayerKind::Adapter => unsupported(
                "it is a LoRA adapter, which needs a model to go with",
                "make a model of both by `ctl create`, with `ADAPTER FILE` in its Modelfile",
            ),
            LayerKind::Projector => unsupported(
                "it is a projector, which needs a model to go with",
                "import the folder that holds both",
            ),
            _ => Ok(summary),
        }
    }

    /// Fails if the file is not as it was when it was opened.
    fn check_unchanged(&self) -> Result<(), StoreError> {
        let metadata = self.file.metadata().map_err(StoreError::at("read", &self.path))?;
        let modified = metadata.modified().map_err(StoreError::at("read", &self.path))?;
        if metadata.len() == self.len && modified == self.modified {
            return Ok(());
        }
        Err(StoreError::SourceChanged { path: self.path.clone() })
    }

    /// A digest for a file that is not read: another one whenever it is another file, or was written to.
    fn stand_in(&self) -> Result<Digest, StoreError> {
        let metadata = self.file.metadata().map_err(StoreError::at("read", &self.path))?;
        let (device, inode) = (metadata.dev(), metadata.ino());
        let said = format!("{:?} {device} {inode} {} {:?}", self.path, self.len, self.modified);
        Ok(Digest::of(said.as_bytes()))
    }

    fn changed(&self) -> StoreError {
        StoreError::SourceChanged { path: self.path.clone() }
    }
}

impl Reporter<'_> {
    fn report(&mut self, stage: ImportStage, bytes_done: u64) -> Result<(), StoreError> {
        let bytes_total = self.bytes_total;
        match (self.progress)(ImportProgress { stage, bytes_done, bytes_total }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(StoreError::Cancelled { name: self.name.clone() }),
        }
    }
}

fn place_source(
    blobs: &BlobDir,
    source: &Source,
    how: ImportMode,
    expected: Option<&Digest>,
    reporter: &mut Reporter<'_>,
) -> Result<(Digest, Placed), StoreError> {
    blobs.remove_stale_temps();
    match how {
        ImportMode::Link | ImportMode::LinkUnread => {
            place_link(blobs, source, how, expected, reporter)
        }
        _ => place_file(blobs, source, how, expected, reporter),
    }
}

fn check_expected(expected: Option<&Digest>, actual: Digest) -> Result<(), StoreError> {
    match expected {
        Some(&expected) if expected != actual => Err(StoreError::WrongContent { expected, actual }),
        _ => Ok(()),
    }
}

fn place_file(
    blobs: &BlobDir,
    source: &Source,
    how: ImportMode,
    expected: Option<&Digest>,
    reporter: &mut Reporter<'_>,
) -> Result<(Digest, Placed), StoreError> {
    let temp = blobs.create_temp()?;
    let reflinked = match how {
        ImportMode::Copy => false,
        _ => match reflink(temp.file(), &source.file) {
            Ok(()) => true,
            Err(_) if how == ImportMode::Auto => false,
            Err(error) => {
                let (path, store) = (source.path.clone(), blobs.dir().to_owned());
                return Err(StoreError::NoReflink { path, store, source: error });
            }
        },
    };
    let digest = if reflinked {
        // The clone is hashed, and not the source, which may have changed since.
        hash(temp.file(), temp.path(), source, reporter, ImportStage::Hashing, None)?
    } else {
        hash(&source.file, &source.path, source, reporter, ImportStage::Copying, Some(&temp))?
    };
    source.check_unchanged()?;
    check_expected(expected, digest)?;

    // A link is replaced: what was asked for is a file that is the store's own.
    if blobs.present(&digest) == (Present::File { size: source.len }) {
        reporter.report(ImportStage::Finishing, source.len)?;
        blobs.touch(&digest);
        return Ok((digest, Placed::Reused));
    }
    reporter.report(ImportStage::Syncing, source.len)?;
    temp.sync()?;
    reporter.report(ImportStage::Finishing, source.len)?;
    temp.publish(&blobs.path(&digest))?;
    Ok((digest, if reflinked { Placed::Reflinked } else { Placed::Copied }))
}

fn place_link(
    blobs: &BlobDir,
    source: &Source,
    how: ImportMode,
    expected: Option<&Digest>,
    reporter: &mut Reporter<'_>,
) -> Result<(Digest, Placed), StoreError> {
    let digest = match how {
        ImportMode::LinkUnread => source.stand_in()?,
        _ => hash(&source.file, &source.path, source, reporter, ImportStage::Hashing, None)?,
    };
    source.check_unchanged()?;
    check_expected(expected, digest)?;
    reporter.report(ImportStage::Finishing, source.len)?;
    let reusable = match blobs.present(&digest) {
        Present::File { size } => size == source.len,
        Present::Link => {
            fs::canonicalize(blobs.path(&digest)).is_ok_and(|target| target == source.path)
        }
        Present::Nothing => false,
    };
    if reusable {
        blobs.touch(&digest);
        return Ok((digest, Placed::Reused));
    }
    blobs.link(&digest, &source.path)?;
    Ok((digest, Placed::Linked))
}

/// For files without weights.
pub(crate) const OTHER_FILE: &str = "name the file that holds the model's weights";

/// What a GGUF file is to a model, if it can be a part of one.
pub(crate) fn check_gguf(
    path: &Path,
    mut file: &File,
) -> Result<(LayerKind, GgufSummary), StoreError> {
    let bad = |source| StoreError::BadGguf { path: path.to_owned(), source };
    let gguf = Gguf::read(&mut file).map_err(bad)?;
    let summary = gguf.summary().map_err(bad)?;
    let unsupported = |reason: &str, hint| {
        let (path, reason) = (path.to_owned(), reason.to_owned());
        Err(StoreError::UnsupportedFile { path, reason, hint })
    };
    if gguf.number("split.count").is_some_and(|n_files| n_files > 1) {
        return unsupported(
            "it is one part of a split model",
            "join the parts first: `llama-gguf-split --merge FIRST-PART OUTPUT`",
        );
    }
    if gguf.text("general.type") == Some("adapter") {
        return Ok((LayerKind::Adapter, summary));
    }
    if summary.architecture == "clip" || gguf.text("general.type") == Some("mmproj") {
        return Ok((LayerKind::Projector, summary));
    }
    if gguf.tensors.is_empty() {
        return unsupported("it holds no weights", OTHER_FILE);
    }
    Ok((LayerKind::Model, summary))
}

/// The same of a file wherever it lies.
pub fn file_kind(path: &Path) -> Result<LayerKind, StoreError> {
    Ok(check_gguf(path, &disk::open_file(path)?)?.0)
}

/// Reads `from` from its start to its end, which must come at the source's length, and writes what
/// was read to `copy`.
fn hash(
    mut from: &File,
    from_path: &Path,
    source: &Source,
    reporter: &mut Reporter<'_>,
    stage: ImportStage,
    copy: Option<&Temp>,
) -> Result<Digest, StoreError> {
    from.rewind().map_err(StoreError::at("read", from_path))?;
    reporter.report(stage, 0)?;
    let (n_done, digest) = disk::hash(from, from_path, |chunk, n_done| {
        if n_done > source.len {
            return Err(source.changed());
        }
        if let Some(copy) = copy {
            copy.write_all(chunk)?;
        }
        reporter.report(stage, n_done)
    })?;
    if n_done != source.len {
        return Err(source.changed());
    }
    Ok(digest)
}

/// A manifest for a model's layers, with the config that goes with its weights.
pub(crate) fn write_config(
    blobs: &BlobDir,
    summary: &GgufSummary,
    layers: Vec<Layer>,
) -> Result<Manifest, StoreError> {
    let config = config_layer(blobs, &ModelConfig::of_gguf(summary))?;
    Ok(Manifest::new(config, layers))
}

pub(crate) fn config_layer(blobs: &BlobDir, config: &ModelConfig) -> Result<Layer, StoreError> {
    let config = config.to_json();
    let size = u64::try_from(config.len()).unwrap_or(u64::MAX);
    Ok(Layer::new(CONFIG_MEDIA_TYPE, blobs.write(&config)?, size))
}

#[cfg(target_os = "linux")]
fn reflink(to: &File, from: &File) -> io::Result<()> {
    Ok(rustix::fs::ioctl_ficlone(to, from)?)
}

// APFS clones by path and only to a name that does not exist, which a locked temp has already.
#[cfg(not(target_os = "linux"))]
fn reflink(_to: &File, _from: &File) -> io::Result<()> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

#[cfg(test)]
mod tests;
