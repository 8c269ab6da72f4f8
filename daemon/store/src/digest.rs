//! SHA-256 digests, the names of blobs.
//!
//! A `Digest` can only be made from 32 bytes or from text that Ollama accepts too
//! (`sha256:` or `sha256-`, then 64 hexadecimal digits), so its file name is always safe to join.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use crate::error::{StoreError, quote};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The 64 lower-case digits alone, as Ollama's `/api/tags` shows a model's digest.
    pub fn hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = String::with_capacity(64);
        for byte in self.0 {
            hex.push(char::from(DIGITS[usize::from(byte >> 4)]));
            hex.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        hex
    }

    /// The name of the blob's file: a dash, since a colon is not allowed everywhere.
    pub fn file_name(&self) -> String {
        format!("sha256-{}", self.hex())
    }

    pub(crate) fn from_hasher(hasher: Sha256) -> Self {
        Self(hasher.finalize().into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        parse(text).ok_or_else(|| StoreError::BadDigest { text: quote(text) })
    }
}

fn parse(text: &str) -> Option<Digest> {
    let hex = text.strip_prefix("sha256:").or_else(|| text.strip_prefix("sha256-"))?.as_bytes();
    if hex.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
        *byte = (nibble(pair[0])? << 4) | nibble(pair[1])?;
    }
    Some(Digest(bytes))
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn the_digest_of_nothing_is_the_known_one() {
        let digest = Digest::of(b"");
        assert_eq!(digest.to_string(), format!("sha256:{EMPTY}"));
        assert_eq!(digest.file_name(), format!("sha256-{EMPTY}"));
    }

    #[test]
    fn both_separators_and_both_cases_are_read() {
        for text in [
            format!("sha256:{EMPTY}"),
            format!("sha256-{EMPTY}"),
            format!("sha256:{}", EMPTY.to_uppercase()),
        ] {
            assert_eq!(text.parse::<Digest>().unwrap(), Digest::of(b""));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "sha256:",
            EMPTY,
            "sha256:../../etc/passwd",
            &format!("sha256:{}", &EMPTY[1..]),
            &format!("sha256:{EMPTY}0"),
            &format!("sha256:{}g", &EMPTY[1..]),
            &format!("sha512:{EMPTY}"),
            &format!("sha256/{EMPTY}"),
            &format!("sha256-{EMPTY}-partial"),
        ] {
            assert_eq!(text.parse::<Digest>().unwrap_err().kind(), "bad_digest", "{text}");
        }
    }
}
