//! A file that is being fetched: pieces written in any order, and known again after a crash.
//!
//! The file is the content, sparse at its full length, and behind it one slot of eight bytes for each
//! piece of a MiB: zero, or the CRC-32 of the piece and a mark. A slot is written after its piece. On
//! a resume `recover` reads what the slots claim and believes a piece only if its checksum is right,
//! so nothing has to be synced on the way: a killed process loses no whole piece (the page cache
//! outlives it), and what a power failure took is fetched again. The checksum only finds damage.
//! What the content is worth is decided by its SHA-256, which is computed in order behind the pieces
//! as they come, while they are in memory, and compared before the file gets a blob's name.
//!
//! The file is flocked as long as it is open. Nothing removes it but `publish` and `discard`.

use std::fs::{self, File};
use std::io;
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use rustix::fs::{FlockOperation, Mode, OFlags};
use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::disk;
use crate::error::StoreError;
use crate::step::{Step, step};
use crate::store::Store;

/// What is lost at most for each connection when a download is interrupted.
const PIECE_BYTES: u64 = 1 << 20;
const SLOT_BYTES: u64 = 8;
const PRESENT: u64 = 1 << 32;

#[derive(Debug)]
pub struct Partial {
    path: PathBuf,
    file: File,
    size: u64,
    /// The file has no slots: it was whole and about to get its name when the process ended.
    is_bare: bool,
    /// Held to write: the kernel lets one write to a file at a time, and those that wait for it spin.
    writing: Mutex<()>,
    present: Mutex<Present>,
    hashed: Mutex<Hashed>,
}

#[derive(Debug)]
struct Present {
    pieces: Vec<bool>,
    n_bytes: u64,
}

#[derive(Debug)]
struct Hashed {
    hasher: Sha256,
    next: u64,
    buffer: Vec<u8>,
}

/// What a partial is known by, over runs of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PartialKey {
    /// The content's own digest.
    Content(Digest),
    /// A digest of where the content comes from, and of its version there.
    Origin(Digest),
}

impl PartialKey {
    fn file_name(self) -> String {
        match self {
            Self::Content(digest) => format!("{}-pull", digest.file_name()),
            Self::Origin(digest) => format!("origin-{}-pull", digest.hex()),
        }
    }
}

impl Partial {
    /// Opens what an earlier attempt left, or begins anew. Nothing is believed until `recover`.
    pub fn open(store: &Store, key: PartialKey, size: u64) -> Result<Self, StoreError> {
        let dir = store.blobs().dir();
        disk::create_dirs(dir)?;
        let path = dir.join(key.file_name());
        let file = open_locked(&path)?;
        let metadata = file.metadata().map_err(StoreError::at("read", &path))?;
        // Before anything is made whose size follows from what a peer said.
        let needed = size.saturating_sub(metadata.blocks().saturating_mul(512));
        check_space(dir, needed)?;
        let n_pieces = size.div_ceil(PIECE_BYTES);
        let len = size + n_pieces * SLOT_BYTES;
        let is_bare = size > 0 && metadata.len() == size;
        if metadata.len() != len && !is_bare {
            let resized =
                step(Step::Grow).and_then(|()| file.set_len(0)).and_then(|()| file.set_len(len));
            resized.map_err(StoreError::at("write", &path))?;
        }
        let n_pieces = usize::try_from(n_pieces).map_err(|_| too_large(&path))?;
        let present = Mutex::new(Present { pieces: vec![false; n_pieces], n_bytes: 0 });
        let hashed = Mutex::new(Hashed { hasher: Sha256::new(), next: 0, buffer: Vec::new() });
        Ok(Self { path, file, size, is_bare, writing: Mutex::default(), present, hashed })
    }

    /// Reads what the file claims to have and keeps what is so. `progress` gets the bytes found.
    pub fn recover(
        &self,
        progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut buffer = Vec::new();
        for piece in 0..self.n_pieces() {
            let slot = if self.is_bare { PRESENT } else { self.slot(piece)? };
            if slot == 0 {
                continue;
            }
            self.read(piece, &mut buffer)?;
            if self.is_bare || slot == checksum(&buffer) {
                self.mark(piece);
                self.hash_on((piece, &buffer))?;
                if progress(self.n_bytes()).is_break() {
                    let name = self.path.display().to_string();
                    return Err(StoreError::Cancelled { name });
                }
            }
        }
        Ok(())
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn n_pieces(&self) -> u64 {
        self.size.div_ceil(PIECE_BYTES)
    }

    /// The bytes of all pieces that are there.
    pub fn n_bytes(&self) -> u64 {
        self.present().n_bytes
    }

    /// The first run of missing pieces among these.
    pub fn missing(&self, among: Range<u64>) -> Range<u64> {
        let present = self.present();
        let is_there = |piece: &u64| {
            usize::try_from(*piece).ok().and_then(|idx| present.pieces.get(idx)) != Some(&false)
        };
        let start = among.clone().find(|piece| !is_there(piece)).unwrap_or(among.end);
        let end = (start..among.end).find(is_there).unwrap_or(among.end);
        start..end
    }

    /// Where pieces lie in the content.
    pub fn bytes_of(&self, pieces: Range<u64>) -> Range<u64> {
        (pieces.start * PIECE_BYTES).min(self.size)..(pieces.end * PIECE_BYTES).min(self.size)
    }

    /// Stores a whole piece.
    pub fn put(&self, piece: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let range = self.bytes_of(piece..piece + 1);
        assert_eq!(u64::try_from(bytes.len()).ok(), Some(range.end - range.start), "a whole piece");
        let slot = checksum(bytes).to_le_bytes();
        {
            let _writing = lock(&self.writing);
            let mut written = disk::write_all_at(&self.file, bytes, range.start);
            if !self.is_bare {
                let at = self.size + piece * SLOT_BYTES;
                written = written.and_then(|()| disk::write_all_at(&self.file, &slot, at));
            }
            written.map_err(StoreError::at("write", &self.path))?;
        }
        self.mark(piece);
        self.hash_on((piece, bytes))
    }

    /// Brings to disk what has been put, so that `publish` finds little to wait for.
    pub fn sync(&self) -> Result<(), StoreError> {
        let synced = step(Step::Grow).and_then(|()| self.file.sync_data());
        synced.map_err(StoreError::at("write", &self.path))
    }

    /// Gives the content a blob's name, if it is whole and what was expected. If it is not, the
    /// partial is removed: which of its bytes are wrong cannot be known.
    pub fn publish(&self, store: &Store, expected: Option<Digest>) -> Result<Digest, StoreError> {
        let mut hashed = lock(&self.hashed);
        self.hash_more(&mut hashed, None)?;
        assert_eq!(hashed.next, self.n_pieces(), "all pieces are there");
        let actual = Digest::from_hasher(hashed.hasher.clone());
        if let Some(expected) = expected.filter(|expected| *expected != actual) {
            self.discard()?;
            return Err(StoreError::WrongContent { expected, actual });
        }
        let cut = step(Step::Other).and_then(|()| self.file.set_len(self.size));
        let synced = cut.and_then(|()| step(Step::Grow)).and_then(|()| self.file.sync_all());
        synced.map_err(StoreError::at("write", &self.path))?;
        disk::rename(&self.path, &store.blobs().path(&actual))?;
        Ok(actual)
    }

    /// Removes the file.
    pub fn discard(&self) -> Result<(), StoreError> {
        disk::remove_file(&self.path)
    }

    fn mark(&self, piece: u64) {
        let range = self.bytes_of(piece..piece + 1);
        let mut present = self.present();
        let Present { pieces, n_bytes } = &mut *present;
        let there = usize::try_from(piece).ok().and_then(|idx| pieces.get_mut(idx));
        if let Some(there @ false) = there {
            *there = true;
            *n_bytes += range.end - range.start;
        }
    }

    /// Hashes as far as there is no gap, unless another thread does. What that one does not see any
    /// more is left to the next piece, or to `publish`. `held` need not be read again.
    fn hash_on(&self, held: (u64, &[u8])) -> Result<(), StoreError> {
        match self.hashed.try_lock() {
            Ok(mut hashed) => self.hash_more(&mut hashed, Some(held)),
            Err(TryLockError::WouldBlock) => Ok(()),
            Err(TryLockError::Poisoned(poisoned)) => {
                self.hash_more(&mut poisoned.into_inner(), Some(held))
            }
        }
    }

    fn hash_more(&self, hashed: &mut Hashed, held: Option<(u64, &[u8])>) -> Result<(), StoreError> {
        while self.missing(hashed.next..hashed.next + 1).is_empty() && hashed.next < self.n_pieces()
        {
            match held {
                Some((piece, bytes)) if piece == hashed.next => hashed.hasher.update(bytes),
                _ => {
                    self.read(hashed.next, &mut hashed.buffer)?;
                    hashed.hasher.update(&hashed.buffer);
                }
            }
            hashed.next += 1;
        }
        Ok(())
    }

    fn slot(&self, piece: u64) -> Result<u64, StoreError> {
        let mut slot = [0; 8];
        let read = self.file.read_exact_at(&mut slot, self.size + piece * SLOT_BYTES);
        read.map_err(StoreError::at("read", &self.path))?;
        Ok(u64::from_le_bytes(slot))
    }

    fn read(&self, piece: u64, buffer: &mut Vec<u8>) -> Result<(), StoreError> {
        let range = self.bytes_of(piece..piece + 1);
        buffer.resize(usize::try_from(range.end - range.start).unwrap_or_default(), 0);
        self.file.read_exact_at(buffer, range.start).map_err(StoreError::at("read", &self.path))
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        lock(&self.present)
    }
}

impl Drop for Partial {
    /// Closing would not do: a process that is just being forked has the file too, until it is another program.
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn checksum(bytes: &[u8]) -> u64 {
    u64::from(crc32fast::hash(bytes)) | PRESENT
}

/// The lock belongs to the file and not to its name, which another process may have taken away (by
/// publishing or discarding) between the open and the lock.
fn open_locked(path: &Path) -> Result<File, StoreError> {
    loop {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let opened = step(if path.exists() { Step::Other } else { Step::Grow })
            .and_then(|()| Ok(rustix::fs::open(path, flags, Mode::from_raw_mode(0o644))?));
        let file = opened.map(File::from).map_err(StoreError::at("open", path))?;
        // On file systems without locks it is left to the hash to find out.
        let locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
        if locked == Err(rustix::io::Errno::WOULDBLOCK) {
            return Err(StoreError::Busy { path: path.to_owned() });
        }
        let ours = file.metadata().map_err(StoreError::at("read", path))?;
        match fs::symlink_metadata(path) {
            Ok(named) if (named.dev(), named.ino()) == (ours.dev(), ours.ino()) => return Ok(file),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::io("read", path, error)),
        }
    }
}

fn check_space(dir: &Path, needed: u64) -> Result<(), StoreError> {
    let stat =
        rustix::fs::statvfs(dir).map_err(|errno| StoreError::io("read", dir, errno.into()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if needed <= free {
        return Ok(());
    }
    Err(StoreError::NoSpace { dir: dir.to_owned(), needed, free })
}

fn too_large(path: &Path) -> StoreError {
    StoreError::io("create", path, io::Error::from(io::ErrorKind::FileTooLarge))
}

#[cfg(test)]
mod tests;
