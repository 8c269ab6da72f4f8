//! A blob that is written from front to back, by an upload or by a converter.
//!
//! It is hashed as it comes. What is not whole, or not what it was said to be, never has a name; what ends before that
//! leaves nothing, and a killed process a temp that the next import or `prune` removes.

use std::io::{self, Write};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::blob::{Blob, BlobDir};
use crate::digest::Digest;
use crate::disk::Temp;
use crate::error::StoreError;
use crate::store::Store;

#[derive(Debug)]
pub struct NewBlob {
    blobs: BlobDir,
    temp: Temp,
    hasher: Sha256,
    size: u64,
}

impl NewBlob {
    pub fn create(store: &Store) -> Result<Self, StoreError> {
        let blobs = store.blobs().clone();
        blobs.remove_stale_temps();
        Ok(Self { temp: blobs.create_temp()?, blobs, hasher: Sha256::new(), size: 0 })
    }

    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.temp.write_all(bytes)?;
        self.hasher.update(bytes);
        self.size += u64::try_from(bytes.len()).unwrap_or_default();
        Ok(())
    }

    /// Where it lies until then.
    pub fn path(&self) -> &Path {
        self.temp.path()
    }

    /// Waits for the disk, and gives the blob its name.
    pub fn publish(self, expected: Option<Digest>) -> Result<Blob, StoreError> {
        let Self { blobs, temp, hasher, size } = self;
        let actual = Digest::from_hasher(hasher);
        if let Some(expected) = expected.filter(|expected| *expected != actual) {
            return Err(StoreError::WrongContent { expected, actual });
        }
        let blob = Blob { digest: actual, size };
        blobs.publish(temp, blob)?;
        Ok(blob)
    }
}

/// For writers of files. Each write is one of the disk's.
impl Write for NewBlob {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.append(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(StoreError::Io { source, .. }) => Err(source),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn upload(store: &Store, pieces: &[&[u8]], digest: Digest) -> Result<Blob, StoreError> {
        let mut blob = NewBlob::create(store)?;
        for piece in pieces {
            blob.append(piece)?;
        }
        blob.publish(Some(digest))
    }

    #[test]
    fn a_blob_in_pieces_has_the_digest_of_the_whole_and_is_kept_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path());
        let digest = Digest::of(b"hello");
        for pieces in [&[&b"hel"[..], b"", b"lo"][..], &[b"hello"]] {
            assert_eq!(upload(&store, pieces, digest).unwrap(), Blob { digest, size: 5 });
        }
        assert_eq!(fs::read(store.blobs().path(&digest)).unwrap(), b"hello");
        assert_eq!(store.blobs().get(&digest).unwrap().size, 5);
        assert_eq!(fs::read_dir(store.blobs().dir()).unwrap().count(), 1);
    }

    #[test]
    fn wrong_content_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path());
        let digest = Digest::of(b"hello");
        let error = upload(&store, &[b"hell"], digest).unwrap_err();
        assert_eq!(error.kind(), "wrong_content");
        assert_eq!(fs::read_dir(store.blobs().dir()).unwrap().count(), 0);
        assert_eq!(store.blobs().get(&digest).unwrap_err().kind(), "blob_missing");
    }
}
