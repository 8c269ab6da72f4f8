//! The folder being converted: regular files by their plain names, each no larger than expected.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Component, Path, PathBuf};

use hearth_gguf::quote;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::ConvertError;

/// Configurations take kilobytes, a template in one of them a few dozen.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

pub(crate) type Object = Map<String, Value>;

#[derive(Debug, Clone)]
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(crate) fn open(path: &Path) -> Result<Self, ConvertError> {
        let metadata = fs::metadata(path).map_err(|source| match source.kind() {
            ErrorKind::NotFound => ConvertError::Missing { path: path.to_owned() },
            _ => ConvertError::read(path, source),
        })?;
        if !metadata.is_dir() {
            return Err(ConvertError::invalid(path, "it is not a folder"));
        }
        Ok(Self { path: path.to_owned() })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A regular file with its length, or `None` if there is none. Files in folders of a model say
    /// names of others, which must not lead out of the folder.
    pub(crate) fn file(&self, name: &str) -> Result<Option<(File, u64)>, ConvertError> {
        let path = self.path(name);
        if !Path::new(name).components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(ConvertError::invalid(
                &self.path,
                format!("it refers to `{}`, outside of it", quote(name)),
            ));
        }
        // Opening anything but a regular file may wait forever.
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => {}
            Ok(_) => return Err(ConvertError::invalid(&path, "it is not a regular file")),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ConvertError::read(&path, error)),
        }
        let open = || {
            let file = File::open(&path)?;
            let len = file.metadata()?.len();
            Ok((file, len))
        };
        open().map(Some).map_err(|error| ConvertError::read(&path, error))
    }

    pub(crate) fn bytes(&self, name: &str, max: u64) -> Result<Option<Vec<u8>>, ConvertError> {
        let Some((file, len)) = self.file(name)? else { return Ok(None) };
        let path = self.path(name);
        if len > max {
            return Err(ConvertError::invalid(
                &path,
                format!("it has {len} bytes and may have {max}"),
            ));
        }
        let mut bytes = Vec::new();
        // It may have grown since.
        file.take(max).read_to_end(&mut bytes).map_err(|error| ConvertError::read(&path, error))?;
        Ok(Some(bytes))
    }

    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, ConvertError> {
        let Some(bytes) = self.bytes(name, MAX_CONFIG_BYTES)? else { return Ok(None) };
        let text = String::from_utf8(bytes)
            .map_err(|_| ConvertError::invalid(&self.path(name), "it is not UTF-8"))?;
        Ok(Some(text))
    }

    pub(crate) fn json<T: DeserializeOwned>(
        &self,
        name: &str,
        max: u64,
    ) -> Result<Option<T>, ConvertError> {
        let Some(bytes) = self.bytes(name, max)? else { return Ok(None) };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| ConvertError::invalid(&self.path(name), error.to_string()))
    }

    pub(crate) fn object(&self, name: &str) -> Result<Option<Object>, ConvertError> {
        self.json(name, MAX_CONFIG_BYTES)
    }
}
