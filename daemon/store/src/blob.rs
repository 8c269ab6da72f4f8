//! The blobs folder: files named by the SHA-256 of what they hold.
//!
//! A blob is visible under its final name only when its content is complete, hashed and on disk.
//! A blob may be a symlink to a model file elsewhere, made by an import that links in place; then
//! its target can vanish or change, which `check` reports and nothing else looks for.
//!
//! Temps are named `sha256-<random>-import`. Ollama knows no such suffix: its own clean-up removes
//! them when they are an hour old, as it does with `-partial` files.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW};

use crate::digest::Digest;
use crate::disk::{self, Temp, TempNames};
use crate::error::StoreError;
use crate::look::{Look, PATIENCE};

const TEMP_NAMES: TempNames = TempNames { prefix: "sha256-", suffix: "-import" };

#[derive(Debug, Clone)]
pub struct BlobDir {
    dir: PathBuf,
    /// Links whose targets do not answer, with what lives until they do.
    late: Arc<Mutex<HashMap<PathBuf, Weak<()>>>>,
}

/// A blob that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blob {
    pub digest: Digest,
    pub size: u64,
}

/// What lies under a blob's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Present {
    Nothing,
    File {
        size: u64,
    },
    /// A link, whether or not its target is there.
    Link,
}

/// A file of the folder.
#[derive(Debug)]
pub(crate) struct BlobFile {
    pub(crate) path: PathBuf,
    /// `None` if it is unfinished.
    pub(crate) digest: Option<Digest>,
    /// Of a link, its own.
    pub(crate) metadata: Metadata,
}

impl BlobFile {
    /// How much of the store's disk it takes.
    pub(crate) fn bytes(&self) -> u64 {
        bytes_of(&self.metadata)
    }
}

impl BlobDir {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir, late: Arc::default() }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a blob is written. Nothing need be there.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.file_name())
    }

    /// The path of a blob that is there with the size its manifest gives. The content is not
    /// hashed: that would take seconds per gigabyte.
    pub fn check(&self, digest: &Digest, size: u64) -> Result<PathBuf, StoreError> {
        let (path, is_link, actual) = self.measured(digest)?;
        if actual == size {
            Ok(path)
        } else if is_link {
            Err(StoreError::LinkChanged { target: target_of(&path), expected: size, actual })
        } else {
            Err(StoreError::BlobSize { path, expected: size, actual })
        }
    }

    /// The path of a blob that is there, whether it is a link, and its size.
    fn measured(&self, digest: &Digest) -> Result<(PathBuf, bool, u64), StoreError> {
        let (path, is_link) = self.find(digest)?;
        match self.metadata(&path, is_link) {
            Ok(metadata) if metadata.is_file() => Ok((path, is_link, metadata.len())),
            Ok(_) => Err(StoreError::NotAFile { path }),
            Err(error) if is_link && is_gone(&error) => {
                let target = target_of(&path);
                Err(StoreError::LinkBroken { link: path, target })
            }
            Err(error) => Err(StoreError::io("read", &path, error)),
        }
    }

    /// A link may point to a disk that has gone away.
    fn metadata(&self, path: &Path, is_link: bool) -> io::Result<Metadata> {
        if !is_link {
            return fs::metadata(path);
        }
        let late = || self.late.lock().unwrap_or_else(PoisonError::into_inner);
        let no_answer = || io::Error::new(io::ErrorKind::TimedOut, "its disk does not answer");
        late().retain(|_, running| running.strong_count() > 0);
        if late().contains_key(path) {
            return Err(no_answer());
        }
        let link = path.to_owned();
        let look = Look::begin(move || fs::metadata(link))?;
        look.answer(PATIENCE).unwrap_or_else(|running| {
            late().insert(path.to_owned(), running);
            Err(no_answer())
        })
    }

    /// A blob whose size nobody has said.
    pub fn get(&self, digest: &Digest) -> Result<Blob, StoreError> {
        let (_, _, size) = self.measured(digest)?;
        Ok(Blob { digest: *digest, size })
    }

    /// The blob that a path names.
    pub(crate) fn at(&self, path: &Path) -> Option<Blob> {
        let is_here = fs::canonicalize(path.parent()?).ok()? == fs::canonicalize(&self.dir).ok()?;
        let digest = path.file_name()?.to_str()?.parse().ok().filter(|_| is_here)?;
        self.get(&digest).ok()
    }

    /// Fails unless a blob is there and its content is what its name says. Reads all of it; `progress`
    /// gets the bytes read so far, and can end it.
    pub fn verify(
        &self,
        digest: &Digest,
        size: u64,
        progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let path = self.check(digest, size)?;
        let (_, actual) =
            disk::hash(&disk::open_file(&path)?, &path, |_, n_read| match progress(n_read) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(StoreError::Cancelled { name: digest.to_string() }),
            })?;
        check_digest(path, digest, actual)
    }

    /// Everything in the folder that may be a blob, was one, or was to become one.
    pub(crate) fn files(&self) -> Result<Vec<BlobFile>, StoreError> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(StoreError::at("read", &self.dir))?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry.map_err(StoreError::at("read", &self.dir))?;
            let file_name = entry.file_name();
            let Some(file_name) = file_name.to_str() else { continue };
            let digest = file_name.parse().ok();
            if digest.is_none() && !is_unfinished(file_name) {
                continue;
            }
            // It was removed since its name was read.
            let Ok(metadata) = entry.metadata() else { continue };
            if !metadata.is_dir() {
                files.push(BlobFile { path: entry.path(), digest, metadata });
            }
        }
        Ok(files)
    }

    /// Removes a blob, or the link that it is. Says how much room that makes.
    pub(crate) fn remove(&self, digest: &Digest) -> Result<u64, StoreError> {
        let (path, _) = match self.find(digest) {
            Err(StoreError::BlobMissing { .. }) => return Ok(0),
            found => found?,
        };
        let metadata = fs::symlink_metadata(&path).map_err(StoreError::at("read", &path))?;
        disk::remove_file(&path)?;
        Ok(bytes_of(&metadata))
    }

    /// The content of a small blob, checked against its digest.
    pub(crate) fn read(&self, digest: &Digest, max_bytes: u64) -> Result<Vec<u8>, StoreError> {
        let (path, _) = self.find(digest)?;
        let bytes = disk::read_file(&path, max_bytes)?;
        check_digest(path, digest, Digest::of(&bytes)).map(|()| bytes)
    }

    /// Stores a small blob. One that is there already is kept, and marked as recently used.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        if self.read(&digest, u64::try_from(bytes.len()).unwrap_or(u64::MAX)).is_ok() {
            self.touch(&digest);
            return Ok(digest);
        }
        disk::create_dirs(&self.dir)?;
        disk::write_file(&self.dir, TEMP_NAMES, &self.path(&digest), bytes)?;
        Ok(digest)
    }

    pub(crate) fn create_temp(&self) -> Result<Temp, StoreError> {
        disk::create_dirs(&self.dir)?;
        Temp::create(&self.dir, TEMP_NAMES)
    }

    /// Gives what was written its name once it is on disk, unless the same is there already.
    pub(crate) fn publish(&self, temp: Temp, blob: Blob) -> Result<(), StoreError> {
        if self.present(&blob.digest) == (Present::File { size: blob.size }) {
            self.touch(&blob.digest);
            return Ok(());
        }
        temp.sync()?;
        temp.publish(&self.path(&blob.digest))
    }

    pub(crate) fn link(&self, digest: &Digest, target: &Path) -> Result<(), StoreError> {
        disk::create_dirs(&self.dir)?;
        disk::write_symlink(&self.dir, TEMP_NAMES, &self.path(digest), target)
    }

    pub(crate) fn remove_stale_temps(&self) {
        disk::remove_stale_temps(&self.dir, TEMP_NAMES);
    }

    pub(crate) fn present(&self, digest: &Digest) -> Present {
        match fs::symlink_metadata(self.path(digest)) {
            Ok(metadata) if metadata.is_symlink() => Present::Link,
            Ok(metadata) if metadata.is_file() => Present::File { size: metadata.len() },
            _ => Present::Nothing,
        }
    }

    /// Sets a blob's time to now, which keeps Ollama's clean-up of unreferenced blobs away from it
    /// until its manifest is written. Ollama spares what is younger than an hour.
    pub fn touch(&self, digest: &Digest) {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        let _ = rustix::fs::utimensat(CWD, self.path(digest), &times, AtFlags::SYMLINK_NOFOLLOW);
    }

    /// The path under which a blob lies and whether it is a link. Stores from before 2024 name
    /// blobs with a colon; Ollama renames them at its start, and a read-only store keeps them.
    pub(crate) fn find(&self, digest: &Digest) -> Result<(PathBuf, bool), StoreError> {
        for path in [self.path(digest), self.dir.join(digest.to_string())] {
            match fs::symlink_metadata(&path) {
                Ok(metadata) => return Ok((path, metadata.is_symlink())),
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(StoreError::io("read", &path, error)),
            }
        }
        Err(StoreError::BlobMissing { digest: *digest, path: self.path(digest) })
    }
}

fn check_digest(path: PathBuf, expected: &Digest, actual: Digest) -> Result<(), StoreError> {
    if actual == *expected {
        return Ok(());
    }
    Err(StoreError::BadBlob { path, reason: format!("its content has digest `{actual}`") })
}

/// An import's temp, or a download that did not end: ours, or Ollama's with its parts.
fn is_unfinished(file_name: &str) -> bool {
    TEMP_NAMES.matches(file_name)
        || file_name.ends_with("-pull")
        || file_name.starts_with("sha256-") && file_name.contains("-partial")
}

/// A link takes nothing; a file with holes takes less than its length.
fn bytes_of(metadata: &Metadata) -> u64 {
    if metadata.is_symlink() { 0 } else { metadata.len().min(metadata.blocks() * 512) }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn target_of(link: &Path) -> PathBuf {
    fs::read_link(link).unwrap_or_else(|_| link.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blobs() -> (tempfile::TempDir, BlobDir) {
        let dir = tempfile::tempdir().unwrap();
        let blobs = BlobDir::new(dir.path().join("blobs"));
        (dir, blobs)
    }

    #[test]
    fn a_written_blob_is_read_back_and_written_once() {
        let (_dir, blobs) = blobs();
        let digest = blobs.write(b"hello").unwrap();
        assert_eq!(blobs.write(b"hello").unwrap(), digest);
        assert_eq!(blobs.read(&digest, 5).unwrap(), b"hello");
        assert_eq!(blobs.check(&digest, 5).unwrap(), blobs.path(&digest));
        assert_eq!(fs::read_dir(blobs.dir()).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_blob_is_reported_and_can_be_written_again() {
        let (_dir, blobs) = blobs();
        let digest = blobs.write(b"hello").unwrap();
        fs::write(blobs.path(&digest), b"hell").unwrap();
        assert_eq!(blobs.check(&digest, 5).unwrap_err().kind(), "blob_changed");
        assert_eq!(blobs.read(&digest, 9).unwrap_err().kind(), "bad_blob");
        blobs.write(b"hello").unwrap();
        assert!(blobs.check(&digest, 5).is_ok());
    }

    #[test]
    fn a_missing_blob_is_named_with_its_path() {
        let (dir, blobs) = blobs();
        let digest = Digest::of(b"none");
        let error = blobs.check(&digest, 4).unwrap_err();
        assert_eq!(error.kind(), "blob_missing");
        assert!(error.to_string().contains(dir.path().to_str().unwrap()), "{error}");
    }

    #[test]
    fn a_link_whose_disk_does_not_answer_is_not_followed_until_it_does() {
        let (dir, blobs) = blobs();
        let (digest, target) = (Digest::of(b"hello"), dir.path().join("target"));
        fs::write(&target, b"hello").unwrap();
        blobs.link(&digest, &target).unwrap();
        let look = Arc::new(());
        blobs.late.lock().unwrap().insert(blobs.path(&digest), Arc::downgrade(&look));
        let error = blobs.check(&digest, 5).unwrap_err();
        assert!(error.to_string().contains("does not answer") && error.hint().is_some(), "{error}");
        drop(look);
        blobs.check(&digest, 5).unwrap();
        assert_eq!(blobs.get(&digest).unwrap().size, 5);
        fs::remove_file(&target).unwrap();
        for error in [blobs.check(&digest, 5).unwrap_err(), blobs.get(&digest).unwrap_err()] {
            assert!(matches!(error, StoreError::LinkBroken { .. }), "{error}");
        }
    }

    #[test]
    fn the_old_name_with_a_colon_is_found() {
        let (_dir, blobs) = blobs();
        let digest = blobs.write(b"hello").unwrap();
        let old = blobs.dir().join(digest.to_string());
        fs::rename(blobs.path(&digest), &old).unwrap();
        assert_eq!(blobs.check(&digest, 5).unwrap(), old);
    }

    #[test]
    fn a_temp_is_no_digest() {
        let (_dir, blobs) = blobs();
        let temp = blobs.create_temp().unwrap();
        let name = temp.path().file_name().unwrap().to_str().unwrap().to_owned();
        assert!(TEMP_NAMES.matches(&name), "{name}");
        assert!(name.parse::<Digest>().is_err());
        assert!(!TEMP_NAMES.matches(&Digest::of(b"").file_name()));
    }
}
