//! GGUF files: reference models, and the pieces to write broken ones.

use hearth_reference::{Value, write_model};
use std::path::{Path, PathBuf};

/// Writes a reference model into a folder. The pairs are its settings.
pub fn reference_model(folder: &Path, name: &str, settings: &[(&str, Value)]) -> PathBuf {
    let path = folder.join(format!("{name}.gguf"));
    write_model(&path, settings).unwrap();
    path
}

/// Bytes of a GGUF header, number by number, so that any of them can lie.
#[derive(Debug, Default)]
pub struct GgufText(pub Vec<u8>);

impl GgufText {
    /// Magic, version, and the two counts.
    pub fn header(n_tensors: u64, n_pairs: u64) -> Self {
        Self(b"GGUF".to_vec()).u32(3).u64(n_tensors).u64(n_pairs)
    }

    /// A number.
    #[must_use]
    pub fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    /// A number.
    #[must_use]
    pub fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    /// A string with its length.
    #[must_use]
    pub fn text(self, text: &str) -> Self {
        let mut this = self.u64(text.len() as u64);
        this.0.extend(text.as_bytes());
        this
    }
}
