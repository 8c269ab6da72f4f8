//! Why a folder cannot be converted.

use std::io;
use std::path::{Path, PathBuf};

use hearth_gguf::{GgufError, quote};

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    #[error("there is no `{}`", path.display())]
    Missing { path: PathBuf },

    /// A model of a kind that is not known here, which may be perfectly good.
    #[error("{what} is not supported")]
    Unsupported { what: String },

    #[error("`{}`: {reason}", path.display())]
    Invalid { path: PathBuf, reason: String },

    #[error("the converted model would not be a GGUF file: {0}")]
    Gguf(#[source] GgufError),

    #[error("cannot read `{}`: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },

    #[error("cannot write the converted model: {0}")]
    Write(io::Error),

    #[error("the conversion was cancelled")]
    Cancelled,
}

impl From<GgufError> for ConvertError {
    fn from(error: GgufError) -> Self {
        match error {
            GgufError::Io(source) => Self::Write(source),
            other => Self::Gguf(other),
        }
    }
}

impl ConvertError {
    /// A stable name for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "not_found",
            Self::Unsupported { .. } => "unsupported",
            Self::Invalid { .. } | Self::Gguf(_) => "bad_model",
            Self::Read { .. } | Self::Write(_) => "io",
            Self::Cancelled => "cancelled",
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { .. } => {
                Some("the folder must hold the whole model as it is published".to_owned())
            }
            Self::Unsupported { .. } => Some(
                "look for a GGUF file of this model, or make one with llama.cpp's convert_hf_to_gguf.py"
                    .to_owned(),
            ),
            Self::Invalid { .. } => {
                Some("the file is damaged or unfinished; fetch it again".to_owned())
            }
            Self::Gguf(error) => error.hint(),
            Self::Read { path, .. } => {
                Some(format!("the daemon's user has to be able to read `{}`", path.display()))
            }
            Self::Write(source) if source.kind() == io::ErrorKind::StorageFull => {
                Some("free some space".to_owned())
            }
            Self::Write(_) => Some("see that the store's disk can be written".to_owned()),
            Self::Cancelled => None,
        }
    }

    pub(crate) fn invalid(path: &Path, reason: impl Into<String>) -> Self {
        Self::Invalid { path: path.to_owned(), reason: reason.into() }
    }

    pub(crate) fn read(path: &Path, source: io::Error) -> Self {
        Self::Read { path: path.to_owned(), source }
    }

    /// `what` names a thing, `name` is what the model calls it.
    pub(crate) fn unsupported(what: &str, name: &str) -> Self {
        Self::Unsupported { what: format!("{what} `{}`", quote(name)) }
    }
}
