//! GGUF files: reference models, and the pieces to write adapters and broken files.

use hearth_reference::{Value, write_model};
use std::path::{Path, PathBuf};

const ALIGNMENT: usize = 32;

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

    /// A metadata pair.
    #[must_use]
    pub fn text_pair(self, key: &str, value: &str) -> Self {
        self.text(key).u32(8).text(value)
    }

    /// A metadata pair.
    #[must_use]
    pub fn f32_pair(self, key: &str, value: f32) -> Self {
        self.text(key).u32(6).u32(value.to_bits())
    }

    /// A metadata pair.
    #[must_use]
    pub fn true_pair(self, key: &str) -> Self {
        let mut this = self.text(key).u32(7);
        this.0.push(1);
        this
    }

    /// The tensors after all metadata pairs, and so the rest of the file.
    #[must_use]
    pub fn tensors(mut self, tensors: &[Tensor]) -> Self {
        let mut offset = 0;
        for Tensor { name, columns, values } in tensors {
            // The filters of an image's patches are squares in three colours.
            let is_filter = name.contains("patch_embd");
            let side = if is_filter { (columns / 3).isqrt() } else { 0 };
            let rows = values.len() / columns;
            let shape = if is_filter { vec![side, side, 3, rows] } else { vec![*columns, rows] };
            self = self.text(name).u32(u32::try_from(shape.len()).unwrap());
            self = shape.iter().fold(self, |text, length| text.u64(*length as u64));
            // Type 0 is F32.
            self = self.u32(0).u64(offset);
            offset += (values.len() * 4).next_multiple_of(ALIGNMENT) as u64;
        }
        for Tensor { values, .. } in tensors {
            self.0.resize(self.0.len().next_multiple_of(ALIGNMENT), 0);
            self.0.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
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

/// A matrix of floats, row after row.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Length of a row.
    pub columns: usize,
    /// All rows.
    pub values: Vec<f32>,
}
