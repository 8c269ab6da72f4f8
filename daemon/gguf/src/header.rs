//! The GGUF header, parsed front to back: magic, counts, metadata, tensor infos.
//!
//! Limits on what is kept are here. Those on counts lie far above any real model; with the limit on
//! the header's length they bound time and memory for a hostile file of any size.

use std::collections::HashSet;
use std::io::{Read, Seek};
use std::ops::Range;

use super::cursor::Cursor;
use super::error::{GgufError, quote};
use super::types::TensorType;
use super::{Gguf, GgufValue, TensorInfo};

/// Vocabularies make up most of a header: 262,144 tokens with merges and scores take 10 to 20 MiB.
const MAX_HEADER_BYTES: u64 = 256 << 20;
/// Models have tens of keys.
const MAX_KEYS: u64 = 1 << 14;
/// Models with each expert apart have some 50,000 tensors.
const MAX_TENSORS: u64 = 1 << 18;
/// The format's own limit is 65,535.
const MAX_KEY_BYTES: u64 = 1 << 10;
/// llama.cpp's `GGML_MAX_NAME`, less the terminating zero.
const MAX_TENSOR_NAME_BYTES: u64 = 63;
const MAX_DIMS: usize = 4;
/// The longest text that is kept, and the most of all texts together.
const MAX_TEXT_BYTES: u64 = 1 << 20;
const MAX_KEPT_TEXT_BYTES: u64 = 16 << 20;
/// Of all arrays together, since whoever reads their items takes many times the bytes that they have here. XLM-V's vocabulary,
/// the largest known, has 901,629 tokens with a score and a type each.
const MAX_ITEMS: u64 = 1 << 22;
const CHAT_TEMPLATE: &str = "tokenizer.chat_template";

pub(super) const DEFAULT_ALIGNMENT: u64 = 32;
pub(super) const TYPE_UINT32: u32 = 4;
pub(super) const TYPE_STRING: u32 = 8;
pub(super) const TYPE_ARRAY: u32 = 9;

/// The least bytes a key with its value takes: a length, one letter, a type, one byte.
const MIN_KEY_BYTES: u64 = 8 + 1 + 4 + 1;
/// The least bytes a tensor info takes: a length, no name, no dimensions, a type, an offset.
const MIN_TENSOR_BYTES: u64 = 8 + 4 + 4 + 8;

pub(super) fn read(file: &mut (impl Read + Seek)) -> Result<Gguf, GgufError> {
    let mut cursor = Cursor::new(file, MAX_HEADER_BYTES)?;
    let magic = cursor.array()?;
    if magic != *b"GGUF" {
        return Err(GgufError::NotGguf { magic });
    }
    let version = cursor.u32()?;
    match version {
        2 | 3 => {}
        _ if matches!(version.swap_bytes(), 1..=3) => return Err(GgufError::BigEndian),
        _ => return Err(GgufError::Version { version }),
    }
    let n_tensors = cursor.u64()?;
    let n_keys = cursor.u64()?;
    check_limit("tensors", n_tensors, MAX_TENSORS)?;
    check_limit("metadata keys", n_keys, MAX_KEYS)?;
    cursor.check_count("tensors", n_tensors, MIN_TENSOR_BYTES)?;
    cursor.check_count("metadata keys", n_keys, MIN_KEY_BYTES)?;

    let Metadata { metadata, spans, alignment } = read_metadata(&mut cursor, n_keys)?;
    let tensors = read_tensors(&mut cursor, n_tensors)?;
    // Both are below 2^33, so this cannot overflow.
    let data_offset =
        if tensors.is_empty() { cursor.pos() } else { cursor.pos().next_multiple_of(alignment) };
    check_data(&tensors, alignment, data_offset, cursor.file_len())?;
    let file_len = cursor.file_len();
    Ok(Gguf { version, metadata, spans, tensors, alignment, data_offset, file_len })
}

/// What may still be kept.
struct Budget {
    text_bytes: u64,
    items: u64,
}

impl Budget {
    fn new(text_bytes: u64) -> Self {
        Self { text_bytes, items: MAX_ITEMS }
    }

    fn take_items(&mut self, len: u64) -> Result<(), GgufError> {
        let claimed = (MAX_ITEMS - self.items).saturating_add(len);
        check_limit("array items", claimed, MAX_ITEMS)?;
        self.items = MAX_ITEMS - claimed;
        Ok(())
    }
}

struct Metadata {
    metadata: Vec<(String, GgufValue)>,
    spans: Vec<Range<u64>>,
    alignment: u64,
}

fn read_metadata<R: Read + Seek>(
    cursor: &mut Cursor<R>,
    n_keys: u64,
) -> Result<Metadata, GgufError> {
    let mut metadata = Vec::new();
    let mut spans = Vec::new();
    let mut seen = HashSet::new();
    let mut alignment = DEFAULT_ALIGNMENT;
    let mut budget = Budget::new(MAX_KEPT_TEXT_BYTES);
    for idx in 0..n_keys {
        let start = cursor.pos();
        let key = read_name(cursor, &format!("metadata key {idx}"), MAX_KEY_BYTES)?;
        if key.is_empty() {
            return Err(GgufError::invalid(format!("metadata key {idx}"), "it is empty"));
        }
        if !seen.insert(key.clone()) {
            return Err(GgufError::invalid(key_label(&key), "it appears twice"));
        }
        let number = cursor.u32()?;
        let value = read_value(cursor, &key, number, &mut budget)?;
        if key == "general.alignment" {
            alignment = check_alignment(number, &value)?;
        }
        metadata.push((key, value));
        spans.push(start..cursor.pos());
    }
    Ok(Metadata { metadata, spans, alignment })
}

fn read_value<R: Read + Seek>(
    cursor: &mut Cursor<R>,
    key: &str,
    number: u32,
    budget: &mut Budget,
) -> Result<GgufValue, GgufError> {
    Ok(match number {
        0 => GgufValue::Unsigned(cursor.array::<1>()?[0].into()),
        1 => GgufValue::Signed(i8::from_le_bytes(cursor.array()?).into()),
        2 => GgufValue::Unsigned(u16::from_le_bytes(cursor.array()?).into()),
        3 => GgufValue::Signed(i16::from_le_bytes(cursor.array()?).into()),
        TYPE_UINT32 => GgufValue::Unsigned(cursor.u32()?.into()),
        5 => GgufValue::Signed(i32::from_le_bytes(cursor.array()?).into()),
        6 => GgufValue::F32(f32::from_le_bytes(cursor.array()?)),
        7 => GgufValue::Bool(cursor.array::<1>()?[0] != 0),
        TYPE_STRING => read_text(cursor, key, budget)?,
        TYPE_ARRAY => read_array(cursor, key, budget)?,
        10 => GgufValue::Unsigned(cursor.u64()?),
        11 => GgufValue::Signed(i64::from_le_bytes(cursor.array()?)),
        12 => GgufValue::F64(f64::from_le_bytes(cursor.array()?)),
        _ => return Err(GgufError::UnknownType { what: key_label(key), number }),
    })
}

fn read_text<R: Read + Seek>(
    cursor: &mut Cursor<R>,
    key: &str,
    budget: &mut Budget,
) -> Result<GgufValue, GgufError> {
    let n_bytes = cursor.u64()?;
    let max = MAX_TEXT_BYTES.min(budget.text_bytes);
    if n_bytes > max {
        // That the file holds the text is checked first: a cut file is the likelier cause.
        cursor.skip(n_bytes)?;
        if key == CHAT_TEMPLATE {
            let what = "chat template".to_owned();
            return Err(GgufError::TooLong { what, len: n_bytes, max });
        }
        return Ok(GgufValue::LongText { n_bytes });
    }
    budget.text_bytes -= n_bytes;
    let bytes = cursor.bytes(n_bytes)?;
    // llama.cpp takes any bytes here, and licences in old encodings do occur.
    Ok(GgufValue::Text(String::from_utf8_lossy(&bytes).into_owned()))
}

fn read_array<R: Read + Seek>(
    cursor: &mut Cursor<R>,
    key: &str,
    budget: &mut Budget,
) -> Result<GgufValue, GgufError> {
    let number = cursor.u32()?;
    let len = cursor.u64()?;
    let Some((element, n_bytes)) = element_type(number) else {
        return Err(match number {
            TYPE_ARRAY => GgufError::invalid(key_label(key), "it is an array of arrays"),
            _ => GgufError::UnknownType { what: key_label(key), number },
        });
    };
    cursor.check_count("array items", len, n_bytes)?;
    budget.take_items(len)?;
    if number == TYPE_STRING {
        for _ in 0..len {
            let n_bytes = cursor.u64()?;
            cursor.skip(n_bytes)?;
        }
    } else {
        // The count was checked against the file, so the product is at most its length.
        cursor.skip(len * n_bytes)?;
    }
    Ok(GgufValue::Array { element, len })
}

/// The items of an array, where its key begins in a file that was read before.
pub(super) fn read_items(
    file: &mut (impl Read + Seek),
    start: u64,
) -> Result<Vec<GgufValue>, GgufError> {
    let mut cursor = Cursor::new(file, MAX_HEADER_BYTES)?;
    cursor.skip(start)?;
    let key = read_name(&mut cursor, "metadata key", MAX_KEY_BYTES)?;
    let (array, number, len) = (cursor.u32()?, cursor.u32()?, cursor.u64()?);
    let Some((_, n_bytes)) = element_type(number).filter(|_| array == TYPE_ARRAY) else {
        return Err(GgufError::invalid(key_label(&key), "it is no array any more"));
    };
    cursor.check_count("array items", len, n_bytes)?;
    let mut budget = Budget::new(MAX_HEADER_BYTES);
    budget.take_items(len)?;
    (0..len).map(|_| read_value(&mut cursor, &key, number, &mut budget)).collect()
}

/// The name of an array item's type and the least bytes an item takes.
fn element_type(number: u32) -> Option<(&'static str, u64)> {
    Some(match number {
        0 => ("uint8", 1),
        1 => ("int8", 1),
        2 => ("uint16", 2),
        3 => ("int16", 2),
        TYPE_UINT32 => ("uint32", 4),
        5 => ("int32", 4),
        6 => ("float32", 4),
        7 => ("bool", 1),
        TYPE_STRING => ("string", 8),
        10 => ("uint64", 8),
        11 => ("int64", 8),
        12 => ("float64", 8),
        _ => return None,
    })
}

fn read_tensors<R: Read + Seek>(
    cursor: &mut Cursor<R>,
    n_tensors: u64,
) -> Result<Vec<TensorInfo>, GgufError> {
    // Again, because metadata has used up what the first check counted on.
    cursor.check_count("tensors", n_tensors, MIN_TENSOR_BYTES)?;
    let mut tensors: Vec<TensorInfo> = Vec::new();
    let mut seen = HashSet::new();
    for idx in 0..n_tensors {
        let tensor = read_tensor(cursor, idx)?;
        if !seen.insert(tensor.name.clone()) {
            return Err(GgufError::invalid(tensor_label(&tensor.name), "it appears twice"));
        }
        tensors.push(tensor);
    }
    Ok(tensors)
}

fn read_tensor<R: Read + Seek>(cursor: &mut Cursor<R>, idx: u64) -> Result<TensorInfo, GgufError> {
    let name = read_name(cursor, &format!("name of tensor {idx}"), MAX_TENSOR_NAME_BYTES)?;
    let n_dims = cursor.u32()?;
    if usize::try_from(n_dims).is_ok_and(|n_dims| n_dims > MAX_DIMS) {
        return Err(GgufError::invalid(
            tensor_label(&name),
            format!("it has {n_dims} dimensions, and {MAX_DIMS} are supported"),
        ));
    }
    let mut dims = Vec::with_capacity(MAX_DIMS);
    for _ in 0..n_dims {
        dims.push(cursor.u64()?);
    }
    let number = cursor.u32()?;
    let offset = cursor.u64()?;

    let tensor_type = TensorType::from_number(number)
        .ok_or_else(|| GgufError::UnknownType { what: tensor_label(&name), number })?;
    TensorInfo::new(name, dims, tensor_type).map(|tensor| TensorInfo { offset, ..tensor })
}

impl TensorInfo {
    /// A tensor at offset 0, if its name and shape are within the limits of the format.
    pub fn new(name: String, dims: Vec<u64>, tensor_type: TensorType) -> Result<Self, GgufError> {
        let invalid = |reason: String| GgufError::invalid(tensor_label(&name), reason);
        let name_bytes = u64::try_from(name.len()).unwrap_or(u64::MAX);
        if name_bytes > MAX_TENSOR_NAME_BYTES {
            return Err(GgufError::TooLong {
                what: format!("name of {}", tensor_label(&name)),
                len: name_bytes,
                max: MAX_TENSOR_NAME_BYTES,
            });
        }
        if dims.len() > MAX_DIMS {
            let n_dims = dims.len();
            return Err(invalid(format!(
                "it has {n_dims} dimensions, and {MAX_DIMS} are supported"
            )));
        }
        // ggml counts in i64, and multiplies the dimensions in order, so that a zero among them
        // does not excuse the others.
        let n_elements = dims
            .iter()
            .filter(|&&dim| dim != 0)
            .try_fold(1_u64, |product, &dim| product.checked_mul(dim))
            .filter(|&product| i64::try_from(product).is_ok())
            .map(|product| if dims.contains(&0) { 0 } else { product })
            .ok_or_else(|| invalid(format!("its shape {dims:?} has too many elements")))?;
        let row = dims.first().copied().unwrap_or(1);
        let block = tensor_type.block_elements;
        if row % block != 0 {
            let type_name = tensor_type.name;
            return Err(invalid(format!(
                "its rows have {row} elements, and {type_name} needs a multiple of {block}"
            )));
        }
        let n_bytes = tensor_type
            .size_of(n_elements)
            .ok_or_else(|| invalid(format!("its shape {dims:?} takes too many bytes")))?;
        Ok(Self { name, dims, tensor_type, offset: 0, n_elements, n_bytes })
    }
}

/// Tensors follow one another without gaps but for alignment, and end within the file. Padding
/// after the last one may be absent, as some writers leave it out.
fn check_data(
    tensors: &[TensorInfo],
    alignment: u64,
    data_offset: u64,
    file_len: u64,
) -> Result<(), GgufError> {
    let mut next_offset = 0_u64;
    let mut end = data_offset;
    for tensor in tensors {
        let invalid = |reason: String| GgufError::invalid(tensor_label(&tensor.name), reason);
        if tensor.offset != next_offset {
            let offset = tensor.offset;
            return Err(invalid(format!(
                "its data is at offset {offset} and not at {next_offset}"
            )));
        }
        let overflow = || invalid("its data ends beyond what a file can hold".to_owned());
        let tensor_end = next_offset.checked_add(tensor.n_bytes).ok_or_else(overflow)?;
        next_offset = tensor_end.checked_next_multiple_of(alignment).ok_or_else(overflow)?;
        end = data_offset.checked_add(tensor_end).ok_or_else(overflow)?;
    }
    if end > file_len {
        return Err(GgufError::CutShort { expected: end, actual: file_len });
    }
    Ok(())
}

fn check_alignment(number: u32, value: &GgufValue) -> Result<u64, GgufError> {
    match *value {
        GgufValue::Unsigned(alignment) if number == TYPE_UINT32 && alignment.is_power_of_two() => {
            Ok(alignment)
        }
        GgufValue::Unsigned(alignment) if number == TYPE_UINT32 => Err(GgufError::invalid(
            key_label("general.alignment"),
            format!("{alignment} is not a power of two"),
        )),
        _ => Err(GgufError::invalid(key_label("general.alignment"), "it is not a uint32")),
    }
}

fn read_name<R: Read + Seek>(
    cursor: &mut Cursor<R>,
    what: &str,
    max: u64,
) -> Result<String, GgufError> {
    let len = cursor.u64()?;
    if len > max {
        return Err(GgufError::TooLong { what: what.to_owned(), len, max });
    }
    String::from_utf8(cursor.bytes(len)?)
        .map_err(|_| GgufError::invalid(format!("the {what}"), "it is not UTF-8"))
}

fn check_limit(what: &'static str, claimed: u64, max: u64) -> Result<(), GgufError> {
    if claimed > max {
        return Err(GgufError::ImpossibleCount { what, claimed, max });
    }
    Ok(())
}

fn key_label(key: &str) -> String {
    format!("metadata key `{}`", quote(key))
}

fn tensor_label(name: &str) -> String {
    format!("tensor `{}`", quote(name))
}
