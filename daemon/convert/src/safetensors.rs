//! Safetensors files: where each tensor lies. Their data is read later, piece by piece.
//!
//! A header is JSON after its length. What it says of a tensor is checked here against the file, so
//! that whoever reads the data finds it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use hearth_gguf::{TensorType, quote};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::ConvertError;
use crate::folder::Folder;

/// Ten times what models with the most tensors in a file take.
const MAX_HEADER_BYTES: u64 = 16 << 20;
const LENGTH_BYTES: u64 = 8;
/// The largest models come in some 200, and each stays open.
const MAX_FILES: usize = 1 << 10;
/// Models with each expert apart have some 50,000.
const MAX_TENSORS: usize = 1 << 18;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dtype {
    F32,
    F16,
    Bf16,
}

#[derive(Debug, Clone)]
pub(crate) struct StoredTensor {
    pub(crate) name: String,
    /// As the file names it.
    dtype: String,
    /// The last is the length of a row.
    pub(crate) shape: Vec<u64>,
    /// Where its data begins in the file.
    pub(crate) begin: u64,
    pub(crate) n_bytes: u64,
    path: Arc<Path>,
    file: Arc<File>,
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Item {
    Tensor(Entry),
    /// Of what is not a tensor there is `__metadata__` only.
    Other(IgnoredAny),
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl StoredTensor {
    pub(crate) fn dtype(&self) -> Result<Dtype, ConvertError> {
        match self.dtype.as_str() {
            "F32" => Ok(Dtype::F32),
            "F16" => Ok(Dtype::F16),
            "BF16" => Ok(Dtype::Bf16),
            other => Err(ConvertError::Unsupported {
                what: format!("tensor `{}` of type `{}`", quote(&self.name), quote(other)),
            }),
        }
    }

    /// Fills `buffer` from `offset` on within the tensor's data.
    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ConvertError> {
        self.file
            .read_exact_at(buffer, self.begin + offset)
            .map_err(|error| ConvertError::read(&self.path, error))
    }

    pub(crate) fn invalid(&self, reason: &str) -> ConvertError {
        ConvertError::invalid(&self.path, format!("tensor `{}` {reason}", quote(&self.name)))
    }
}

impl Dtype {
    pub(crate) fn tensor_type(self) -> TensorType {
        match self {
            Self::F32 => TensorType::F32,
            Self::F16 => TensorType::F16,
            Self::Bf16 => TensorType::BF16,
        }
    }
}

/// The tensors of a model's files, file by file and in each by name.
pub(crate) fn model_tensors(folder: &Folder) -> Result<Vec<StoredTensor>, ConvertError> {
    const INDEX: &str = "model.safetensors.index.json";
    let index: Option<Index> = folder.json(INDEX, MAX_HEADER_BYTES)?;
    let files: BTreeSet<String> = match &index {
        Some(index) => index.weight_map.values().cloned().collect(),
        None => part_names(folder)?,
    };
    if files.len() > MAX_FILES {
        let what = format!("a model of more than {MAX_FILES} files");
        return Err(ConvertError::Unsupported { what });
    }
    let mut tensors: Vec<StoredTensor> = Vec::new();
    let mut names = BTreeSet::new();
    for file in &files {
        for tensor in file_tensors(folder, file)? {
            if !names.insert(tensor.name.clone()) {
                return Err(tensor.invalid("is in two files"));
            }
            tensors.push(tensor);
        }
        if tensors.len() > MAX_TENSORS {
            let what = format!("a model of more than {MAX_TENSORS} tensors");
            return Err(ConvertError::Unsupported { what });
        }
    }
    if let Some(name) =
        index.iter().flat_map(|index| index.weight_map.keys()).find(|name| !names.contains(*name))
    {
        return Err(ConvertError::invalid(
            &folder.path(INDEX),
            format!("it lists tensor `{}`, which is in no file", quote(name)),
        ));
    }
    Ok(tensors)
}

/// The tensors of one file, by name.
pub(crate) fn file_tensors(folder: &Folder, name: &str) -> Result<Vec<StoredTensor>, ConvertError> {
    let path: Arc<Path> = folder.path(name).into();
    let (file, file_len) =
        folder.file(name)?.ok_or_else(|| ConvertError::Missing { path: path.to_path_buf() })?;
    let file = Arc::new(file);
    let invalid = |reason: String| ConvertError::invalid(&path, reason);
    let read = |offset: u64, buffer: &mut [u8]| {
        file.read_exact_at(buffer, offset).map_err(|error| ConvertError::read(&path, error))
    };

    if file_len < LENGTH_BYTES {
        return Err(invalid("it is cut short".to_owned()));
    }
    let mut length = [0; 8];
    read(0, &mut length)?;
    let header_bytes = u64::from_le_bytes(length);
    let max = MAX_HEADER_BYTES.min(file_len - LENGTH_BYTES);
    if header_bytes > max {
        return Err(invalid(format!("its header has {header_bytes} bytes and may have {max}")));
    }
    let mut header = vec![0; usize::try_from(header_bytes).unwrap_or(0)];
    read(LENGTH_BYTES, &mut header)?;
    let header: BTreeMap<String, Item> = serde_json::from_slice(&header)
        .map_err(|error| invalid(format!("its header is not JSON: {error}")))?;

    let data = LENGTH_BYTES + header_bytes;
    let mut tensors = Vec::new();
    for (name, item) in header {
        let Entry { dtype, shape, data_offsets: (begin, end) } = match item {
            Item::Tensor(entry) => entry,
            Item::Other(_) if name == "__metadata__" => continue,
            Item::Other(_) => {
                return Err(invalid(format!("tensor `{}` is not described", quote(&name))));
            }
        };
        if begin > end || end > file_len - data {
            return Err(invalid(format!(
                "tensor `{}` ends at {end} of {} bytes: the file is cut short",
                quote(&name),
                file_len - data
            )));
        }
        let tensor = StoredTensor {
            name,
            dtype,
            shape,
            begin: data + begin,
            n_bytes: end - begin,
            path: path.clone(),
            file: file.clone(),
        };
        let n_elements =
            tensor.shape.iter().try_fold(1_u64, |product, &dim| product.checked_mul(dim));
        // Sizes of types that are not converted do not matter.
        if let Ok(dtype) = tensor.dtype()
            && n_elements.and_then(|n| dtype.tensor_type().size_of(n)) != Some(tensor.n_bytes)
        {
            return Err(tensor.invalid("has a shape that does not fit its data"));
        }
        tensors.push(tensor);
    }
    Ok(tensors)
}

fn part_names(folder: &Folder) -> Result<BTreeSet<String>, ConvertError> {
    let path = folder.path("");
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(&path).map_err(|error| ConvertError::read(&path, error))? {
        let name = entry.map_err(|error| ConvertError::read(&path, error))?.file_name();
        if let Some(name) = name.to_str()
            && name.starts_with("model")
            && name.ends_with(".safetensors")
        {
            names.insert(name.to_owned());
        }
    }
    if names.is_empty() {
        return Err(ConvertError::Missing { path: folder.path("model.safetensors") });
    }
    Ok(names)
}
