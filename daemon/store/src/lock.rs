//! The lock of a store, which excludes other threads and other processes.
//!
//! It is held for moments: while blobs are checked and their manifest is written, or while manifests
//! are read and what they do not need is deleted. So a manifest never names a blob that was just
//! deleted, and no download or copy ever waits for another. Readers take no lock.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::error::StoreError;
use crate::step::{Step, step};

const FILE_NAME: &str = ".hearth-lock";

/// Held until it is dropped, or its process ends in whatever way. The file stays: to remove it would
/// let two processes lock two files of one name.
#[derive(Debug)]
pub(crate) struct StoreLock {
    _file: File,
}

impl StoreLock {
    /// Waits for the lock of an existing store.
    pub(crate) fn acquire(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(FILE_NAME);
        let file = open(&path).map_err(StoreError::at("open", &path))?;
        loop {
            match file.lock() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Some network and FUSE file systems have no locks. What then protects a new
                // model's blobs is their age: nothing prunes them within an hour.
                Err(error) if error.kind() == io::ErrorKind::Unsupported => break,
                result => {
                    result.map_err(StoreError::at("lock", &path))?;
                    break;
                }
            }
        }
        Ok(Self { _file: file })
    }
}

fn open(path: &Path) -> io::Result<File> {
    step(if path.exists() { Step::Other } else { Step::Grow })?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::open(path, flags, Mode::from_raw_mode(0o644))?.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::TryLockError;

    #[test]
    fn nobody_else_has_the_lock_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let lock = StoreLock::acquire(dir.path()).unwrap();
        // A second open of the file is to the kernel what another process is.
        let other = File::open(dir.path().join(FILE_NAME)).unwrap();
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
        drop(lock);
        other.try_lock().unwrap();
    }
}
