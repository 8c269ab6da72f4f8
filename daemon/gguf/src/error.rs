//! Why a file is not a GGUF file that can be loaded.
//!
//! Messages continue "`path` is not a usable GGUF file: ...", which the caller knows how to say.

use std::io;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    #[error("it begins with `{}`, not `GGUF`", magic.escape_ascii())]
    NotGguf { magic: [u8; 4] },

    #[error("it is GGUF version {version}; versions 2 and 3 are supported")]
    Version { version: u32 },

    #[error("it is written for big-endian machines")]
    BigEndian,

    #[error("it is cut short: it needs at least {expected} bytes and has {actual}, so {} or more are missing", expected - actual)]
    CutShort { expected: u64, actual: u64 },

    #[error("its header goes on after {max} bytes")]
    HeaderTooLong { max: u64 },

    #[error("it claims {claimed} {what}, more than the {max} there can be")]
    ImpossibleCount { what: &'static str, claimed: u64, max: u64 },

    #[error("the {what} has {len} bytes and may have {max}")]
    TooLong { what: String, len: u64, max: u64 },

    #[error("{what} has the unknown type {number}")]
    UnknownType { what: String, number: u32 },

    #[error("{what}: {reason}")]
    Invalid { what: String, reason: String },

    #[error("cannot read it: {0}")]
    Io(#[from] io::Error),
}

impl GgufError {
    pub(crate) fn invalid(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), reason: reason.into() }
    }

    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotGguf { .. } => Some(
                "a model in a folder of safetensors files is converted by `ctl create`".to_owned(),
            ),
            Self::CutShort { .. } => {
                Some("the download or copy did not finish; fetch the file again".to_owned())
            }
            Self::Version { version: 1 } => {
                Some("look for a newer conversion of this model".to_owned())
            }
            Self::Version { .. } | Self::UnknownType { .. } => {
                Some("the file may be newer than this release of Hearth".to_owned())
            }
            Self::BigEndian => {
                Some("convert it with llama.cpp's gguf_convert_endian.py".to_owned())
            }
            Self::HeaderTooLong { .. }
            | Self::ImpossibleCount { .. }
            | Self::TooLong { .. }
            | Self::Invalid { .. } => Some(
                "the file is damaged; fetch it again, and compare its sha256 with the one at its source"
                    .to_owned(),
            ),
            Self::Io(_) => Some("see that the file and its disk can be read".to_owned()),
        }
    }
}

/// At most 80 characters of `text`, with what cannot be printed escaped.
pub fn quote(text: &str) -> String {
    const MAX_CHARS: usize = 80;
    let mut quoted: String = text.chars().take(MAX_CHARS).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX_CHARS).is_some() {
        quoted.push_str("...");
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_text_is_short_and_printable() {
        assert_eq!(quote("a\nb\u{1b}[1m"), "a\\nb\\u{1b}[1m");
        assert_eq!(quote(&"x".repeat(200)), format!("{}...", "x".repeat(80)));
        assert_eq!(quote(&"x".repeat(80)), "x".repeat(80));
    }
}
