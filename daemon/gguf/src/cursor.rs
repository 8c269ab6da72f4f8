//! A forward-only reader that knows how much file is left.
//!
//! Every read is checked against the end first, so a length from the file can be used to allocate
//! only when the file has that many bytes. Skipping seeks, and reads nothing.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

use super::error::GgufError;

const BUFFER_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Cursor<R> {
    reader: BufReader<R>,
    pos: u64,
    file_len: u64,
    /// Where reading must stop even if the file goes on.
    max_pos: u64,
}

impl<R: Read + Seek> Cursor<R> {
    pub(super) fn new(mut file: R, max_pos: u64) -> Result<Self, GgufError> {
        let file_len = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(0))?;
        Ok(Self { reader: BufReader::with_capacity(BUFFER_BYTES, file), pos: 0, file_len, max_pos })
    }

    pub(super) fn pos(&self) -> u64 {
        self.pos
    }

    pub(super) fn file_len(&self) -> u64 {
        self.file_len
    }

    pub(super) fn u32(&mut self) -> Result<u32, GgufError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, GgufError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// `len` bytes. The caller has bounded `len`; that the file holds them is checked here.
    pub(super) fn bytes(&mut self, len: u64) -> Result<Vec<u8>, GgufError> {
        self.end_after(len)?;
        let len = usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let mut bytes = vec![0; len];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn skip(&mut self, len: u64) -> Result<(), GgufError> {
        let end = self.end_after(len)?;
        // A file's length fits an i64, and so does any distance within it.
        let distance = i64::try_from(len).map_err(io::Error::other)?;
        self.reader.seek_relative(distance)?;
        self.pos = end;
        Ok(())
    }

    /// Refuses a count of things of at least `min_bytes` each that what is left cannot hold.
    pub(super) fn check_count(
        &self,
        what: &'static str,
        claimed: u64,
        min_bytes: u64,
    ) -> Result<(), GgufError> {
        let left = self.file_len.min(self.max_pos).saturating_sub(self.pos);
        let max = left / min_bytes;
        if claimed > max {
            return Err(GgufError::ImpossibleCount { what, claimed, max });
        }
        Ok(())
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), GgufError> {
        let end = self.end_after(u64::try_from(bytes.len()).unwrap_or(u64::MAX))?;
        match self.reader.read_exact(bytes) {
            Ok(()) => {
                self.pos = end;
                Ok(())
            }
            // The file was cut while it was being read.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(GgufError::CutShort { expected: end, actual: self.pos })
            }
            Err(error) => Err(error.into()),
        }
    }

    fn end_after(&self, len: u64) -> Result<u64, GgufError> {
        let end = self.pos.saturating_add(len);
        if end > self.file_len {
            Err(GgufError::CutShort { expected: end, actual: self.file_len })
        } else if end > self.max_pos {
            Err(GgufError::HeaderTooLong { max: self.max_pos })
        } else {
            Ok(end)
        }
    }
}
