//! What people and the scheduler want to know of a model, drawn from its header.

use std::collections::HashMap;

use super::types::file_type_name;
use super::{Gguf, GgufError, GgufValue, KvShape, TensorGroup};

#[derive(Debug, Clone, PartialEq)]
pub struct GgufSummary {
    pub version: u32,
    /// Such as `llama`; `clip` for a projector.
    pub architecture: String,
    pub name: Option<String>,
    /// The elements of all tensors.
    pub parameter_count: u64,
    /// The same for people, as Ollama writes it: `134.52M`.
    pub size_label: String,
    /// Such as `Q4_K_M`. Where the file does not say, the type of most of its data; else `unknown`.
    pub quantization: String,
    /// What the model was trained for.
    pub context_length: Option<u64>,
    pub embedding_length: Option<u64>,
    pub block_count: Option<u64>,
    pub chat_template: Option<String>,
    pub has_tokenizer: bool,
    pub n_tensors: usize,
    pub groups: Vec<TensorGroup>,
    pub kv: Option<KvShape>,
    pub file_len: u64,
    /// Every key in file order, for `show`.
    pub metadata: Vec<(String, GgufValue)>,
}

impl GgufSummary {
    /// The type with most bytes of those that lost something, if there is one.
    pub fn quantized_type(&self) -> Option<&'static str> {
        let lossy = self.groups.iter().filter(|group| group.tensor_type.block_elements > 1);
        lossy.max_by_key(|group| group.n_bytes).map(|group| group.tensor_type.name)
    }
}

impl Gguf {
    /// Fails only where the file names no architecture, without which nothing can load it.
    pub fn summary(&self) -> Result<GgufSummary, GgufError> {
        let architecture = self
            .text("general.architecture")
            .filter(|architecture| !architecture.is_empty())
            .ok_or_else(|| GgufError::invalid("metadata", "it names no `general.architecture`"))?;
        let of_architecture = |key: &str| self.number(&format!("{architecture}.{key}"));
        let parameter_count =
            self.tensors.iter().fold(0_u64, |sum, tensor| sum.saturating_add(tensor.n_elements));
        Ok(GgufSummary {
            version: self.version,
            architecture: architecture.to_owned(),
            name: self.text("general.name").map(str::to_owned),
            parameter_count,
            size_label: size_label(parameter_count),
            quantization: self.quantization(),
            context_length: of_architecture("context_length"),
            embedding_length: of_architecture("embedding_length"),
            block_count: of_architecture("block_count"),
            chat_template: self.text("tokenizer.chat_template").map(str::to_owned),
            has_tokenizer: self.has_tokenizer(),
            n_tensors: self.tensors.len(),
            groups: self.groups(),
            kv: self.kv_shape(architecture),
            file_len: self.file_len,
            metadata: self.metadata.clone(),
        })
    }

    fn quantization(&self) -> String {
        let stated = self.number("general.file_type").and_then(file_type_name);
        stated.or_else(|| self.commonest_type()).unwrap_or("unknown").to_owned()
    }

    fn commonest_type(&self) -> Option<&'static str> {
        let mut n_bytes_of: HashMap<&'static str, u64> = HashMap::new();
        for tensor in &self.tensors {
            let n_bytes = n_bytes_of.entry(tensor.tensor_type.name).or_default();
            *n_bytes = n_bytes.saturating_add(tensor.n_bytes);
        }
        // The name breaks ties, so that the answer does not depend on the map's order.
        n_bytes_of.into_iter().max_by_key(|&(name, n_bytes)| (n_bytes, name)).map(|(name, _)| name)
    }

    fn has_tokenizer(&self) -> bool {
        let n_tokens = match self.get("tokenizer.ggml.tokens") {
            Some(&GgufValue::Array { len, .. }) => len,
            _ => 0,
        };
        n_tokens > 0 && self.text("tokenizer.ggml.model").is_some()
    }
}

/// A count as Ollama shows it: `7B`, `6.7B`, `134.52M`, `12K`, `999`.
pub fn size_label(count: u64) -> String {
    let (unit, decimals, suffix) = match count {
        1_000_000_000.. => (1e9, 1, "B"),
        1_000_000.. => (1e6, 2, "M"),
        1_000.. => (1e3, 0, "K"),
        _ => return count.to_string(),
    };
    let number = count as f64 / unit;
    let decimals = if number.fract() == 0.0 { 0 } else { decimals };
    format!("{number:.decimals$}{suffix}")
}
