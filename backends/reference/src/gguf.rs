//! Just enough GGUF to be a model file that the daemon's store accepts: metadata and one tiny tensor.
//!
//! The reader trusts no number in the file: every length is compared with what is left of it.

use crate::settings::ARCHITECTURE;
use hearth_abi::{PluginError, Result, Status};
use std::io::Write;
use std::path::Path;

const MAGIC: &[u8] = b"GGUF";
const ALIGNMENT: usize = 32;
const U32: u32 = 4;
const BOOL: u32 = 7;
const STRING: u32 = 8;
const ARRAY: u32 = 9;
const U64: u32 = 10;

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A truth value.
    Bool(bool),
    /// Any whole number that is not negative.
    Uint(u64),
    /// A string.
    Str(String),
    /// Something the plugin does not use, as text for a person.
    Other(String),
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Uint(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Str(value.to_owned())
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Uint(value) => value.fmt(f),
            Self::Str(value) | Self::Other(value) => f.write_str(value),
        }
    }
}

impl Value {
    pub(crate) fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }

    pub(crate) fn as_u64(&self) -> Option<u64> {
        if let Self::Uint(value) = self { Some(*value) } else { None }
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        if let Self::Str(value) = self { Some(value) } else { None }
    }
}

/// Writes a model. A key without a dot is one of [`Settings`](crate::Settings); one with a dot is written as it is.
pub fn write_model(path: &Path, pairs: &[(&str, Value)]) -> std::io::Result<()> {
    let mut all = vec![
        ("general.architecture".to_owned(), Value::from(ARCHITECTURE)),
        ("general.type".to_owned(), "model".into()),
        ("general.name".to_owned(), "Hearth Reference".into()),
    ];
    for (key, default) in
        [("context_length", 4096_u64), ("embedding_length", 32), ("block_count", 1)]
    {
        all.push((format!("{ARCHITECTURE}.{key}"), default.into()));
    }
    all.push(("tokenizer.ggml.model".to_owned(), "hearth-bytes".into()));
    all.push(("tokenizer.chat_template".to_owned(), crate::chat::TEMPLATE.into()));
    write(path, all, pairs)
}

/// Writes an adapter; another `lora_seed` is another adapter.
pub fn write_adapter(path: &Path, lora_seed: u64) -> std::io::Result<()> {
    let all = vec![
        ("general.architecture".to_owned(), Value::from(ARCHITECTURE)),
        ("general.type".to_owned(), "adapter".into()),
    ];
    write(path, all, &[("lora_seed", lora_seed.into())])
}

/// Writes a projector; another `projector_seed` sees other things in an image.
pub fn write_projector(path: &Path, projector_seed: u64) -> std::io::Result<()> {
    let all = vec![
        ("general.architecture".to_owned(), Value::from(ARCHITECTURE)),
        ("general.type".to_owned(), "mmproj".into()),
    ];
    write(path, all, &[("projector_seed", projector_seed.into())])
}

fn write(
    path: &Path,
    mut all: Vec<(String, Value)>,
    pairs: &[(&str, Value)],
) -> std::io::Result<()> {
    for (key, value) in pairs {
        let key =
            if key.contains('.') { (*key).to_owned() } else { format!("{ARCHITECTURE}.{key}") };
        all.retain(|(known, _)| *known != key);
        all.push((key, value.clone()));
    }
    let mut out = Vec::new();
    out.extend(MAGIC);
    out.extend(3_u32.to_le_bytes());
    out.extend(1_u64.to_le_bytes());
    out.extend((all.len() as u64).to_le_bytes());
    for (key, value) in &all {
        put_text(&mut out, key);
        match value {
            Value::Bool(value) => {
                out.extend(BOOL.to_le_bytes());
                out.push(u8::from(*value));
            }
            // The keys that every reader of GGUF knows are u32 by convention.
            Value::Uint(value) => match u32::try_from(*value) {
                Ok(value) => {
                    out.extend(U32.to_le_bytes());
                    out.extend(value.to_le_bytes());
                }
                Err(_) => {
                    out.extend(U64.to_le_bytes());
                    out.extend(value.to_le_bytes());
                }
            },
            Value::Str(value) | Value::Other(value) => {
                out.extend(STRING.to_le_bytes());
                put_text(&mut out, value);
            }
        }
    }
    // One F32 tensor of 8 elements at offset 0.
    put_text(&mut out, "token_embd.weight");
    out.extend(1_u32.to_le_bytes());
    out.extend(8_u64.to_le_bytes());
    out.extend(0_u32.to_le_bytes());
    out.extend(0_u64.to_le_bytes());
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    out.extend([0; 32]);
    std::fs::File::create(path)?.write_all(&out)
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// The metadata of a file, in file order, when it is a whole GGUF file of our architecture.
pub(crate) fn read(path: &Path) -> Result<Vec<(String, Value)>> {
    let bytes = std::fs::read(path).map_err(|error| {
        PluginError::new(Status::NotFound, format!("cannot read `{}`: {error}", path.display()))
    })?;
    let bad = |why: &str| PluginError::new(Status::BadModel, format!("`{}` {why}", path.display()));
    let mut reader = Reader { rest: &bytes };
    if reader.take(4) != Some(MAGIC) {
        return Err(bad("is not a GGUF file"));
    }
    let pairs = reader.body(bytes.len()).ok_or_else(|| bad("is truncated or damaged"))?;
    match pairs.iter().find(|(key, _)| key == "general.architecture") {
        Some((_, Value::Str(found))) if found == ARCHITECTURE => Ok(pairs),
        Some((_, found)) => {
            Err(bad(&format!("has architecture `{found}`, and this plugin runs `{ARCHITECTURE}`")))
        }
        None => Err(bad("names no architecture")),
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(n)?;
        self.rest = rest;
        Some(taken)
    }

    fn number(&mut self, n_bytes: usize) -> Option<u64> {
        let bytes = self.take(n_bytes)?;
        Some(bytes.iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
    }

    fn text(&mut self) -> Option<String> {
        let len = usize::try_from(self.number(8)?).ok()?;
        String::from_utf8(self.take(len)?.to_vec()).ok()
    }

    fn body(&mut self, file_len: usize) -> Option<Vec<(String, Value)>> {
        let _version = self.number(4).filter(|version| (2..=3).contains(version))?;
        let n_tensors = self.number(8)?;
        let n_pairs = self.number(8)?;
        let mut pairs = Vec::new();
        for _ in 0..n_pairs {
            let key = self.text()?;
            let kind = self.number(4)?;
            pairs.push((key, self.value(kind)?));
        }
        let mut ends = vec![0_usize];
        for _ in 0..n_tensors {
            self.text()?;
            let n_dimensions = self.number(4)?;
            let mut n_bytes = 4_usize;
            for _ in 0..n_dimensions {
                n_bytes = n_bytes.checked_mul(usize::try_from(self.number(8)?).ok()?)?;
            }
            let is_f32 = self.number(4)? == 0;
            ends.push(usize::try_from(self.number(8)?).ok()?.checked_add(if is_f32 {
                n_bytes
            } else {
                0
            })?);
        }
        let data_start = (file_len - self.rest.len()).next_multiple_of(ALIGNMENT);
        let end = data_start.checked_add(ends.into_iter().max()?)?;
        (n_tensors == 0 || end <= file_len).then_some(pairs)
    }

    fn value(&mut self, kind: u64) -> Option<Value> {
        Some(match u32::try_from(kind).ok()? {
            0 => Value::Uint(self.number(1)?),
            2 => Value::Uint(self.number(2)?),
            U32 => Value::Uint(self.number(4)?),
            U64 => Value::Uint(self.number(8)?),
            BOOL => Value::Bool(self.number(1)? != 0),
            STRING => Value::Str(self.text()?),
            ARRAY => {
                let kind = self.number(4)?;
                let n = self.number(8)?;
                if kind == u64::from(ARRAY) {
                    return None;
                }
                for _ in 0..n {
                    self.value(kind)?;
                }
                Value::Other(format!("{n} values"))
            }
            1 => Value::Other(format!("0x{:02x}", self.number(1)?)),
            3 => Value::Other(format!("0x{:04x}", self.number(2)?)),
            5 | 6 => Value::Other(format!("0x{:08x}", self.number(4)?)),
            11 | 12 => Value::Other(format!("0x{:016x}", self.number(8)?)),
            _ => return None,
        })
    }
}
