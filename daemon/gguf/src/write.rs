//! Writing a GGUF file from front to back.
//!
//! The header is complete before the first byte of data, so the caller knows all shapes by then and
//! streams the data after it. Where a tensor ends and what lies between two is kept here.

use std::collections::VecDeque;
use std::io::{self, Write};

use crate::header::{DEFAULT_ALIGNMENT, TYPE_ARRAY, TYPE_STRING, TYPE_UINT32};
use crate::{GgufError, TensorInfo};

const VERSION: u32 = 3;
const TYPE_INT32: u32 = 5;
const TYPE_FLOAT32: u32 = 6;
const TYPE_BOOL: u32 = 7;

/// A metadata value, of the very type that a key's readers ask for.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Text(String),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
    Texts(Vec<String>),
}

/// A file whose header is written, and which takes its tensors' data.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    /// Bytes that each tensor still takes, the first one's being written.
    left: VecDeque<u64>,
    /// Bytes of data so far.
    n_bytes: u64,
}

impl<W: Write> Writer<W> {
    /// Writes the header. The tensors' data follow in their order; their offsets are set here.
    pub fn new(
        out: W,
        metadata: &[(String, Value)],
        tensors: &[TensorInfo],
    ) -> Result<Self, GgufError> {
        let mut keys = Vec::new();
        for (key, value) in metadata {
            push_text(&mut keys, key);
            push_value(&mut keys, value);
        }
        Self::with_keys(out, metadata.len(), &keys, tensors)
    }

    /// The same, with the bytes of so many keys as they are in another file.
    pub(crate) fn with_keys(
        mut out: W,
        n_keys: usize,
        keys: &[u8],
        tensors: &[TensorInfo],
    ) -> Result<Self, GgufError> {
        let mut header = b"GGUF".to_vec();
        header.extend(VERSION.to_le_bytes());
        push_len(&mut header, tensors.len());
        push_len(&mut header, n_keys);
        header.extend(keys);
        let mut offset = 0_u64;
        for tensor in tensors {
            push_text(&mut header, &tensor.name);
            let n_dims = u32::try_from(tensor.dims.len())
                .map_err(|_| GgufError::invalid(&tensor.name, "it has too many dimensions"))?;
            header.extend(n_dims.to_le_bytes());
            for dim in &tensor.dims {
                header.extend(dim.to_le_bytes());
            }
            header.extend(tensor.tensor_type.number.to_le_bytes());
            header.extend(offset.to_le_bytes());
            offset = offset
                .checked_add(tensor.n_bytes)
                .and_then(|end| end.checked_next_multiple_of(DEFAULT_ALIGNMENT))
                .ok_or_else(|| {
                    GgufError::invalid("the file", "it has more data than a file can hold")
                })?;
        }
        header.extend(padding(header.len() as u64));
        out.write_all(&header)?;
        let left = tensors.iter().map(|tensor| tensor.n_bytes).collect();
        let mut writer = Self { out, left, n_bytes: 0 };
        writer.end_tensors()?;
        Ok(writer)
    }

    /// Appends to the tensor that is not complete yet. A piece may not reach into the next one.
    pub fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        let n_bytes = piece.len() as u64;
        match self.left.front_mut() {
            Some(left) if *left >= n_bytes => *left -= n_bytes,
            _ if piece.is_empty() => {}
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "more data than shapes")),
        }
        self.out.write_all(piece)?;
        self.n_bytes += n_bytes;
        self.end_tensors()
    }

    /// The file is whole: every tensor has its data.
    pub fn finish(mut self) -> io::Result<W> {
        if !self.left.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "less data than shapes"));
        }
        self.out.flush()?;
        Ok(self.out)
    }

    fn end_tensors(&mut self) -> io::Result<()> {
        while self.left.front() == Some(&0) {
            self.left.pop_front();
            let padding = padding(self.n_bytes);
            self.out.write_all(padding)?;
            self.n_bytes += padding.len() as u64;
        }
        Ok(())
    }
}

/// The zeros between `len` bytes and the next aligned place.
fn padding(len: u64) -> &'static [u8] {
    static ZEROS: [u8; 32] = [0; 32];
    const { assert!(ZEROS.len() as u64 == DEFAULT_ALIGNMENT) };
    let used = usize::try_from(len % DEFAULT_ALIGNMENT).unwrap_or(0);
    if used == 0 { &[] } else { &ZEROS[used..] }
}

fn push_value(bytes: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U32(number) => push(bytes, TYPE_UINT32, &number.to_le_bytes()),
        Value::I32(number) => push(bytes, TYPE_INT32, &number.to_le_bytes()),
        Value::F32(number) => push(bytes, TYPE_FLOAT32, &number.to_le_bytes()),
        Value::Bool(value) => push(bytes, TYPE_BOOL, &[u8::from(*value)]),
        Value::Text(text) => {
            push(bytes, TYPE_STRING, &[]);
            push_text(bytes, text);
        }
        Value::I32s(items) => {
            push_array(bytes, TYPE_INT32, items.len());
            bytes.extend(items.iter().flat_map(|item| item.to_le_bytes()));
        }
        Value::F32s(items) => {
            push_array(bytes, TYPE_FLOAT32, items.len());
            bytes.extend(items.iter().flat_map(|item| item.to_le_bytes()));
        }
        Value::Texts(items) => {
            push_array(bytes, TYPE_STRING, items.len());
            for item in items {
                push_text(bytes, item);
            }
        }
    }
}

fn push(bytes: &mut Vec<u8>, number: u32, value: &[u8]) {
    bytes.extend(number.to_le_bytes());
    bytes.extend(value);
}

fn push_array(bytes: &mut Vec<u8>, item: u32, len: usize) {
    push(bytes, TYPE_ARRAY, &item.to_le_bytes());
    push_len(bytes, len);
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    push_len(bytes, text.len());
    bytes.extend(text.as_bytes());
}

fn push_len(bytes: &mut Vec<u8>, len: usize) {
    bytes.extend((len as u64).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::{Gguf, GgufValue, TensorType};

    fn tensor(name: &str, dims: &[u64]) -> TensorInfo {
        TensorInfo::new(name.to_owned(), dims.to_vec(), TensorType::F32).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let metadata = [
            ("a.u32", Value::U32(7)),
            ("a.i32", Value::I32(-7)),
            ("a.f32", Value::F32(0.5)),
            ("a.bool", Value::Bool(true)),
            ("a.text", Value::Text("é".to_owned())),
            ("a.i32s", Value::I32s(vec![1, -2])),
            ("a.f32s", Value::F32s(vec![])),
            ("a.texts", Value::Texts(vec!["x".to_owned(), String::new()])),
        ]
        .map(|(key, value)| (key.to_owned(), value));
        let tensors = [tensor("a", &[3, 2]), tensor("none", &[0]), tensor("b", &[1])];
        let mut writer = Writer::new(Vec::new(), &metadata, &tensors).unwrap();
        writer.write(&[1; 20]).unwrap();
        writer.write(&[1; 4]).unwrap();
        writer.write(&[2; 4]).unwrap();
        let bytes = writer.finish().unwrap();

        let gguf = Gguf::read(&mut Cursor::new(&bytes)).unwrap();
        let values: Vec<_> = gguf.metadata.iter().map(|(_, value)| value.clone()).collect();
        assert_eq!(
            values,
            [
                GgufValue::Unsigned(7),
                GgufValue::Signed(-7),
                GgufValue::F32(0.5),
                GgufValue::Bool(true),
                GgufValue::Text("é".to_owned()),
                GgufValue::Array { element: "int32", len: 2 },
                GgufValue::Array { element: "float32", len: 0 },
                GgufValue::Array { element: "string", len: 2 },
            ]
        );
        let offsets: Vec<_> = gguf.tensors.iter().map(|tensor| tensor.offset).collect();
        assert_eq!(offsets, [0, 32, 32]);
        assert_eq!(gguf.tensors[0].dims, [3, 2]);
        let data = &bytes[usize::try_from(gguf.data_offset).unwrap()..];
        assert_eq!(data, [[1; 24].as_slice(), &[0; 8], &[2; 4], &[0; 28]].concat());
    }

    #[test]
    fn data_that_does_not_fit_the_shapes_is_an_error() {
        let tensors = [tensor("a", &[2]), tensor("b", &[2])];
        let new = || Writer::new(Vec::new(), &[], &tensors).unwrap();
        assert!(new().write(&[0; 9]).is_err());
        let mut short = new();
        short.write(&[0; 8]).unwrap();
        assert!(short.finish().is_err());
        let mut long = new();
        long.write(&[0; 8]).unwrap();
        long.write(&[0; 8]).unwrap();
        assert!(long.write(&[0; 1]).is_err());
    }
}
