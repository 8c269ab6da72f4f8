//! Durable writes and bounded reads, the only ways this crate touches a store's files.
//!
//! A file appears under its final name by rename, after its content is on disk, and the folder is
//! synced after that; so a crash leaves the old state, the new state, or a leftover temp. A temp is
//! flocked for as long as its writer lives, which is how a leftover is told from a live one.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, Mode, OFlags};
use tempfile::NamedTempFile;

use crate::error::StoreError;

/// A temp younger than this is never taken for a leftover. The lock is what protects a live one;
/// this covers the instant between its creation and its locking, and temps that are symlinks,
/// which cannot be locked but live for microseconds.
const STALE_AFTER: Duration = Duration::from_secs(600);

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

    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.named.write_all(bytes).map_err(StoreError::at("write", self.named.path()))
    }

    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.file().sync_all().map_err(StoreError::at("sync", self.path()))
    }

    /// Gives the file its final name, replacing what had it. The caller has synced the content.
    pub(crate) fn publish(self, path: &Path) -> Result<(), StoreError> {
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
    let mut temp = Temp::create(dir, names)?;
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
    let temp = names
        .builder()
        .make_in(dir, |temp| symlink(target, temp))
        .map_err(StoreError::at("create a link in", dir))?;
    temp.persist(path).map_err(|error| StoreError::io("write", path, error.error))?;
    sync_parent(path)
}

/// Gives a file that is on disk its final name, replacing what had it.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(StoreError::at("write", to))?;
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
    match DirBuilder::new().mode(0o755).create(dir) {
        Ok(()) => sync_parent(dir),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(error) => Err(StoreError::io("create", dir, error)),
    }
}

/// Opens a regular file without waiting for a writer, as opening a named pipe would.
pub(crate) fn open_file(path: &Path) -> Result<File, StoreError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::open(path, flags, Mode::empty())
        .map(File::from)
        .map_err(|errno| StoreError::io("open", path, errno.into()))?;
    if file.metadata().map_err(StoreError::at("read", path))?.is_file() {
        Ok(file)
    } else {
        Err(StoreError::NotAFile { path: path.to_owned() })
    }
}

/// The content of a file, or an error if it has more than `max_bytes`.
pub(crate) fn read_file(path: &Path, max_bytes: u64) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::new();
    open_file(path)?
        .take(max_bytes.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(StoreError::at("read", path))?;
    if u64::try_from(bytes.len()).is_ok_and(|n_bytes| n_bytes <= max_bytes) {
        return Ok(bytes);
    }
    let reason = format!("it has more than the {max_bytes} bytes that are read of such a file");
    Err(StoreError::BadBlob { path: path.to_owned(), reason })
}

/// Removes what crashed writers left in `dir`. Nothing depends on it, so failures are ignored.
pub(crate) fn remove_stale_temps(dir: &Path, names: TempNames) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(|name| names.matches(name)) {
            remove_if_stale(&entry.path());
        }
    }
}

fn remove_if_stale(path: &Path) {
    let Ok(metadata) = fs::symlink_metadata(path) else { return };
    let age = metadata.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
    if age.is_none_or(|age| age < STALE_AFTER) {
        return;
    }
    if metadata.is_symlink() {
        let _ = fs::remove_file(path);
        return;
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let Ok(file) = rustix::fs::open(path, flags, Mode::empty()) else { return };
    // The lock is held while the name is removed. A writer that published in between has renamed
    // its temp, whose random name nothing else takes, so the removal finds nothing.
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
        let _ = fs::remove_file(path);
    }
}

fn sync_parent(path: &Path) -> Result<(), StoreError> {
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Ok(()),
    };
    match File::open(parent).and_then(|dir| dir.sync_all()) {
        // Some network and FUSE file systems refuse to sync a folder, and have no way to be asked.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        result => result.map_err(StoreError::at("sync", parent)),
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
