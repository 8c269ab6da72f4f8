//! Durable writes and bounded reads, the only ways this crate touches a store's files.
//!
//! A file appears under its final name by rename, after its content is on disk, and the folder is
//! synced after that; so a crash leaves the old state, the new state, or a leftover temp. A temp is
//! flocked for as long as its writer lives, which is how a leftover is told from a live one.

use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, Mode, OFlags};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::digest::Digest;
use crate::error::StoreError;
use crate::step::{Step, step};

/// A temp younger than this is never taken for a leftover. The lock is what protects a live one;
/// this covers the instant between its creation and its locking, and temps that are symlinks,
/// which cannot be locked but live for microseconds.
const STALE_AFTER: Duration = Duration::from_secs(600);
/// How much is read between two reports, and so how soon a cancel is seen.
const CHUNK_BYTES: usize = 1 << 20;
/// How much is written at once. Larger writes get larger folios in the page cache, whose memory a virtual machine often has
/// to get back from its host first: 2.1 s for a GiB in writes of a MiB, 0.6 s in these.
const WRITE_BYTES: usize = 32 << 10;

/// How temps are named in one folder: `<prefix><random><suffix>`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TempNames {
    pub(crate) prefix: &'static str,
    pub(crate) suffix: &'static str,
}

/// A file that does not have its final name yet. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Temp {
    named: NamedTempFile,
}

impl Temp {
    pub(crate) fn create(dir: &Path, names: TempNames) -> Result<Self, StoreError> {
        step(Step::Grow).map_err(StoreError::at("create a file in", dir))?;
        let named = names
            .builder()
            .permissions(Permissions::from_mode(0o644))
            .tempfile_in(dir)
            .map_err(StoreError::at("create a file in", dir))?;
        // File systems without locks leave the temp unlocked; a cleaner cannot lock it there
        // either, and keeps it.
        let _ = rustix::fs::flock(named.as_file(), FlockOperation::NonBlockingLockExclusive);
        Ok(Self { named })
    }

    pub(crate) fn file(&self) -> &File {
        self.named.as_file()
    }

    pub(crate) fn path(&self) -> &Path {
        self.named.path()
    }

    pub(crate) fn write_all(&self, bytes: &[u8]) -> Result<(), StoreError> {
        let mut chunks = bytes.chunks(WRITE_BYTES);
        let written = step(Step::Grow)
            .and_then(|()| chunks.try_for_each(|chunk| self.file().write_all(chunk)));
        written.map_err(StoreError::at("write", self.path()))
    }

    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        let synced = step(Step::Grow).and_then(|()| self.file().sync_all());
        synced.map_err(StoreError::at("sync", self.path()))
    }

    /// Gives the file its final name, replacing what had it. The caller has synced the content.
    pub(crate) fn publish(self, path: &Path) -> Result<(), StoreError> {
        step(Step::Grow).map_err(StoreError::at("write", path))?;
        self.named.persist(path).map_err(|error| StoreError::io("write", path, error.error))?;
        sync_parent(path)
    }
}

impl TempNames {
    pub(crate) fn matches(self, name: &str) -> bool {
        name.len() > self.prefix.len() + self.suffix.len()
            && name.starts_with(self.prefix)
            && name.ends_with(self.suffix)
    }

    fn builder(self) -> tempfile::Builder<'static, 'static> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(self.prefix).suffix(self.suffix).rand_bytes(16);
        builder
    }
}

/// Writes a small file in one go; `dir` is where its temp lies, on the same file system.
pub(crate) fn write_file(
    dir: &Path,
    names: TempNames,
    path: &Path,
    bytes: &[u8],
) -> Result<(), StoreError> {
    let temp = Temp::create(dir, names)?;
    temp.write_all(bytes)?;
    temp.sync()?;
    temp.publish(path)
}

/// Makes `path` a symlink to `target`, replacing what was there.
pub(crate) fn write_symlink(
    dir: &Path,
    names: TempNames,
    path: &Path,
    target: &Path,
) -> Result<(), StoreError> {
    step(Step::Grow).map_err(StoreError::at("create a link in", dir))?;
    let temp = names
        .builder()
        .make_in(dir, |temp| symlink(target, temp))
        .map_err(StoreError::at("create a link in", dir))?;
    step(Step::Grow).map_err(StoreError::at("write", path))?;
    temp.persist(path).map_err(|error| StoreError::io("write", path, error.error))?;
    sync_parent(path)
}

pub(crate) fn write_all_at(file: &File, bytes: &[u8], mut at: u64) -> io::Result<()> {
    step(Step::Grow)?;
    for chunk in bytes.chunks(WRITE_BYTES) {
        file.write_all_at(chunk, at)?;
        at += chunk.len() as u64;
    }
    Ok(())
}

/// Gives a file that is on disk its final name, replacing what had it.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    step(Step::Grow).and_then(|()| fs::rename(from, to)).map_err(StoreError::at("write", to))?;
    sync_parent(to)
}

/// Creates a folder and those above it with mode 0755, each on disk before the next.
pub(crate) fn create_dirs(dir: &Path) -> Result<(), StoreError> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        create_dirs(parent)?;
    }
    match step(Step::Grow).and_then(|()| DirBuilder::new().mode(0o755).create(dir)) {
        Ok(()) => sync_parent(dir),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(error) => Err(StoreError::io("create", dir, error)),
    }
}

/// Opens a regular file without waiting for a writer, as opening a named pipe would.
pub(crate) fn open_file(path: &Path) -> Result<File, StoreError> {
    open_with_metadata(path).map(|(file, _)| file)
}

fn open_with_metadata(path: &Path) -> Result<(File, Metadata), StoreError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::open(path, flags, Mode::empty())
        .map(File::from)
        .map_err(|errno| StoreError::io("open", path, errno.into()))?;
    let metadata = file.metadata().map_err(StoreError::at("read", path))?;
    if metadata.is_file() {
        Ok((file, metadata))
    } else {
        Err(StoreError::NotAFile { path: path.to_owned() })
    }
}

/// The content of a regular file, or an error if it has more than `max_bytes`.
pub fn read_file(path: &Path, max_bytes: u64) -> Result<Vec<u8>, StoreError> {
    read_with_metadata(path, max_bytes).map(|(bytes, _)| bytes)
}

/// The same, with what the file was like when it was opened.
pub(crate) fn read_with_metadata(
    path: &Path,
    max_bytes: u64,
) -> Result<(Vec<u8>, Metadata), StoreError> {
    let (file, metadata) = open_with_metadata(path)?;
    // One byte more than there are, so that one read sees the end.
    let expected = metadata.len().min(max_bytes).saturating_add(1);
    let mut bytes = Vec::with_capacity(usize::try_from(expected).unwrap_or_default());
    file.take(max_bytes.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(StoreError::at("read", path))?;
    if u64::try_from(bytes.len()).is_ok_and(|n_bytes| n_bytes <= max_bytes) {
        return Ok((bytes, metadata));
    }
    let reason = format!("it has more than the {max_bytes} bytes that are read of such a file");
    Err(StoreError::BadBlob { path: path.to_owned(), reason })
}

/// Reads a file from where it stands to its end. Answers how many bytes that were and their digest; `each` gets every chunk,
/// and how many bytes there were with it.
pub(crate) fn hash(
    mut file: &File,
    path: &Path,
    mut each: impl FnMut(&[u8], u64) -> Result<(), StoreError>,
) -> Result<(u64, Digest), StoreError> {
    let (mut hasher, mut n_bytes) = (Sha256::new(), 0_u64);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok((n_bytes, Digest::from_hasher(hasher))),
            Ok(n_read) => {
                let chunk = &chunk[..n_read];
                hasher.update(chunk);
                n_bytes += chunk.len() as u64;
                each(chunk, n_bytes)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(StoreError::io("read", path, error)),
        }
    }
}

/// Removes a file's name; `sync_dir` makes that last.
pub(crate) fn remove_file(path: &Path) -> Result<(), StoreError> {
    step(Step::Other).and_then(|()| fs::remove_file(path)).map_err(StoreError::at("remove", path))
}

/// Removes a file for good, and the folders up to `root` that it leaves empty.
pub(crate) fn remove_with_parents(path: &Path, root: &Path) -> Result<(), StoreError> {
    remove_file(path)?;
    let mut changed = path.parent();
    while let Some(dir) = changed.filter(|dir| *dir != root && dir.starts_with(root)) {
        // One that is not empty stays, and so do those above it.
        if step(Step::Other).and_then(|()| fs::remove_dir(dir)).is_err() {
            break;
        }
        changed = dir.parent();
    }
    changed.map_or(Ok(()), sync_dir)
}

/// Removes what crashed writers left in `dir`. Nothing depends on it, so failures are ignored.
pub(crate) fn remove_stale_temps(dir: &Path, names: TempNames) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(|name| names.matches(name))
            && let Some(leftover) = Leftover::seize(&entry.path(), STALE_AFTER)
        {
            let _ = leftover.remove();
        }
    }
}

/// A temp whose writer is gone, and that nobody can take up while this lives.
#[derive(Debug)]
pub(crate) struct Leftover {
    path: PathBuf,
    _lock: Option<File>,
}

impl Leftover {
    /// Nothing if the temp is younger than `age` or in use.
    pub(crate) fn seize(path: &Path, age: Duration) -> Option<Self> {
        let metadata = fs::symlink_metadata(path).ok()?;
        if !is_older(&metadata, age) {
            return None;
        }
        let path = path.to_owned();
        if metadata.is_symlink() {
            return Some(Self { path, _lock: None });
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
        let file = File::from(rustix::fs::open(&path, flags, Mode::empty()).ok()?);
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
        Some(Self { path, _lock: Some(file) })
    }

    /// A writer that published in between has renamed its temp, whose random name nothing else
    /// takes; then there is nothing to remove, which is an error.
    pub(crate) fn remove(self) -> Result<(), StoreError> {
        remove_file(&self.path)
    }
}

/// Whether a file was last written longer ago than `age`. One from the future was not.
pub(crate) fn is_older(metadata: &Metadata, age: Duration) -> bool {
    let modified = metadata.modified().ok();
    modified.and_then(|at| SystemTime::now().duration_since(at).ok()).is_some_and(|is| is >= age)
}

fn sync_parent(path: &Path) -> Result<(), StoreError> {
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Ok(()),
    };
    sync_dir(parent)
}

/// Waits until what was created, renamed and removed in a folder is on disk.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    match step(Step::Other).and_then(|()| File::open(dir)?.sync_all()) {
        // Some network and FUSE file systems refuse to sync a folder, and have no way to be asked.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        result => result.map_err(StoreError::at("sync", dir)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: TempNames = TempNames { prefix: "t-", suffix: "-import" };

    fn make_old(path: &Path) {
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - STALE_AFTER * 2).unwrap();
    }

    #[test]
    fn only_old_unlocked_temps_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let live = Temp::create(dir.path(), NAMES).unwrap();
        make_old(live.path());
        let (crashed, young, other) = ("t-crashed-import", "t-young-import", "sha256-old-partial");
        for name in [crashed, young, other] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        make_old(&dir.path().join(crashed));
        make_old(&dir.path().join(other));

        remove_stale_temps(dir.path(), NAMES);

        assert!(live.path().exists());
        assert!(dir.path().join(young).exists());
        assert!(dir.path().join(other).exists());
        assert!(!dir.path().join(crashed).exists());

        let path = live.path().to_owned();
        drop(live);
        assert!(!path.exists());
    }

    #[test]
    fn a_published_file_replaces_and_leaves_no_temp() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for content in ["one", "two"] {
            write_file(dir.path(), NAMES, &path, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o600, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

        write_symlink(dir.path(), NAMES, &path, Path::new("elsewhere")).unwrap();
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("elsewhere"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn reads_are_bounded_and_only_of_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read_file(&path, 5).unwrap(), b"12345");
        assert_eq!(read_file(&path, 4).unwrap_err().kind(), "bad_blob");
        assert_eq!(read_file(dir.path(), 5).unwrap_err().kind(), "not_a_file");
        assert_eq!(read_file(&dir.path().join("none"), 5).unwrap_err().kind(), "io");
    }
}
