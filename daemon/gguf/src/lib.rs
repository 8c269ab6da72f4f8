//! GGUF files: headers read from files nobody vouches for, and whole files written.
//!
//! `Gguf::read` takes any bytes: it does not panic, does not trust a count or a length before
//! checking that the file could hold it, reads at most 256 MiB of header through a small buffer and
//! keeps at most a few dozen MiB of it. What it accepts is what llama.cpp accepts, with the same
//! rules for alignment, tensor order and sizes, so that a bad file is refused when it is imported
//! and not by a worker later. Tensor data is never read; only its range is checked.
//!
//! `Writer` writes a header at once and then takes the tensors' data piece by piece, in order. `join` makes one file of the parts
//! that a large model comes in.

mod cursor;
mod error;
mod groups;
mod header;
mod join;
mod kv;
mod summary;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod types;
mod write;

use std::io::{Read, Seek};
use std::ops::Range;

pub use error::{GgufError, quote};
pub use groups::TensorGroup;
pub use join::join;
pub use kv::KvShape;
pub use summary::{GgufSummary, size_label};
pub use types::{TensorType, file_type_name};
pub use write::{Value, Writer};

/// A file's header.
#[derive(Debug, Clone, PartialEq)]
pub struct Gguf {
    pub version: u32,
    /// In file order; no key appears twice.
    pub metadata: Vec<(String, GgufValue)>,
    /// Where each key with its value lies in the file.
    pub spans: Vec<Range<u64>>,
    /// In file order, which is also the order of their data.
    pub tensors: Vec<TensorInfo>,
    pub alignment: u64,
    /// Where tensor data begins in the file.
    pub data_offset: u64,
    pub file_len: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub enum GgufValue {
    Unsigned(u64),
    Signed(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    Text(String),
    /// Text too long to keep. `tokenizer.chat_template` is never one: too long, it is an error.
    LongText {
        n_bytes: u64,
    },
    /// The content of arrays is skipped; `element` names the type of its items, such as `string`.
    Array {
        element: &'static str,
        len: u64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    pub name: String,
    /// One to four; the first is the length of a row.
    pub dims: Vec<u64>,
    pub tensor_type: TensorType,
    /// From `Gguf::data_offset`.
    pub offset: u64,
    pub n_elements: u64,
    pub n_bytes: u64,
}

impl Gguf {
    /// Reads a header from the start of `file`, wherever it stands now.
    pub fn read(file: &mut (impl Read + Seek)) -> Result<Self, GgufError> {
        header::read(file)
    }

    pub fn get(&self, key: &str) -> Option<&GgufValue> {
        self.metadata.iter().find(|(known, _)| known == key).map(|(_, value)| value)
    }

    /// The items of the array at a place in `metadata`, from the file that this was read from.
    pub fn items(
        &self,
        file: &mut (impl Read + Seek),
        at: usize,
    ) -> Result<Vec<GgufValue>, GgufError> {
        header::read_items(file, self.spans[at].start)
    }

    pub fn text(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            GgufValue::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Which part of how many the file is, if it is one of several that a model was split into.
    pub fn split(&self) -> Option<(u64, u64)> {
        let count = self.number("split.count").filter(|count| *count > 1)?;
        Some((self.number("split.no").unwrap_or(0), count))
    }

    /// A whole number that is not negative, of whatever width.
    pub fn number(&self, key: &str) -> Option<u64> {
        match *self.get(key)? {
            GgufValue::Unsigned(number) => Some(number),
            GgufValue::Signed(number) => u64::try_from(number).ok(),
            _ => None,
        }
    }
}
