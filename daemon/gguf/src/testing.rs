//! A tiny GGUF writer for tests. It writes what it is told, also what is wrong.

use crate::{Gguf, TensorInfo};
use std::io::Cursor;

#[derive(Debug, Clone)]
pub struct Writer {
    version: u32,
    n_keys: u64,
    n_tensors: u64,
    metadata: Vec<u8>,
    tensors: Vec<u8>,
    data_len: u64,
    last_end: u64,
    alignment: u64,
}

impl Writer {
    #[expect(clippy::new_without_default, reason = "a test says what it begins with")]
    pub fn new() -> Self {
        Self {
            version: 3,
            n_keys: 0,
            n_tensors: 0,
            metadata: Vec::new(),
            tensors: Vec::new(),
            data_len: 0,
            last_end: 0,
            alignment: 32,
        }
    }

    /// A small but complete language model: 64 * 4 elements of Q4_1 and 5 of F32.
    pub fn model() -> Self {
        Self::new()
            .text("general.architecture", "llama")
            .text("general.name", "Tiny")
            .u32("general.file_type", 3)
            .u32("llama.context_length", 2048)
            .value("llama.embedding_length", 10, &64_u64.to_le_bytes())
            .value("llama.block_count", 5, &2_i32.to_le_bytes())
            .value("llama.attention.layer_norm_rms_epsilon", 6, &1e-5_f32.to_le_bytes())
            .value("tokenizer.ggml.add_bos_token", 7, &[1])
            .text("tokenizer.ggml.model", "gpt2")
            .texts("tokenizer.ggml.tokens", &["a", "", "bc"])
            .array("tokenizer.ggml.token_type", 5, 3, &[0; 12])
            .text("tokenizer.chat_template", "{{ messages }}")
            .tensor("token_embd.weight", &[64, 4], 3, 160)
            .tensor("output_norm.weight", &[5], 0, 20)
    }

    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    pub fn claim_keys(mut self, n_keys: u64) -> Self {
        self.n_keys = n_keys;
        self
    }

    pub fn claim_tensors(mut self, n_tensors: u64) -> Self {
        self.n_tensors = n_tensors;
        self
    }

    pub fn value(mut self, key: &str, number: u32, bytes: &[u8]) -> Self {
        self.n_keys += 1;
        push_text(&mut self.metadata, key);
        self.metadata.extend(number.to_le_bytes());
        self.metadata.extend(bytes);
        self
    }

    pub fn u32(self, key: &str, value: u32) -> Self {
        self.value(key, 4, &value.to_le_bytes())
    }

    pub fn alignment(mut self, alignment: u32) -> Self {
        self.alignment = alignment.into();
        self.u32("general.alignment", alignment)
    }

    pub fn text(self, key: &str, value: &str) -> Self {
        let mut bytes = Vec::new();
        push_text(&mut bytes, value);
        self.value(key, 8, &bytes)
    }

    pub fn texts(self, key: &str, values: &[&str]) -> Self {
        let mut bytes = Vec::new();
        for value in values {
            push_text(&mut bytes, value);
        }
        self.array(key, 8, u64::try_from(values.len()).unwrap(), &bytes)
    }

    pub fn array(self, key: &str, number: u32, len: u64, content: &[u8]) -> Self {
        let mut bytes = number.to_le_bytes().to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend(content);
        self.value(key, 9, &bytes)
    }

    pub fn tensor(mut self, name: &str, dims: &[u64], number: u32, n_bytes: u64) -> Self {
        let offset = self.data_len;
        self.last_end = offset + n_bytes;
        self.data_len = self.last_end.next_multiple_of(self.alignment);
        self.tensor_at(name, dims, number, offset)
    }

    /// A tensor info that brings no data.
    pub fn tensor_at(mut self, name: &str, dims: &[u64], number: u32, offset: u64) -> Self {
        self.n_tensors += 1;
        push_text(&mut self.tensors, name);
        self.tensors.extend(u32::try_from(dims.len()).unwrap().to_le_bytes());
        for dim in dims {
            self.tensors.extend(dim.to_le_bytes());
        }
        self.tensors.extend(number.to_le_bytes());
        self.tensors.extend(offset.to_le_bytes());
        self
    }

    /// The file, ending with the last tensor's last byte.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(self.n_tensors.to_le_bytes());
        bytes.extend(self.n_keys.to_le_bytes());
        bytes.extend(&self.metadata);
        bytes.extend(&self.tensors);
        if self.last_end > 0 {
            let alignment = usize::try_from(self.alignment).unwrap();
            let data_offset = bytes.len().next_multiple_of(alignment);
            // Data that differs from byte to byte, so that a copy of the wrong range shows.
            bytes.resize(data_offset, 0);
            bytes.extend((0..self.last_end).map(|n| n.to_le_bytes()[0]));
        }
        bytes
    }
}

/// A model in so many parts, each with its share of the tensors, as `llama-gguf-split` makes them. A
/// part may have none.
pub fn split(bytes: &[u8], n_parts: usize) -> Vec<Vec<u8>> {
    let gguf = Gguf::read(&mut Cursor::new(bytes)).unwrap();
    let range = |start: u64, len: u64| {
        &bytes[usize::try_from(start).unwrap()..usize::try_from(start + len).unwrap()]
    };
    let n_tensors = gguf.tensors.len();
    let part = |no: usize| {
        let tensors: &[TensorInfo] =
            &gguf.tensors[no * n_tensors / n_parts..(no + 1) * n_tensors / n_parts];
        let numbers = Writer::new()
            .value("split.no", 2, &u16::try_from(no).unwrap().to_le_bytes())
            .value("split.count", 2, &u16::try_from(n_parts).unwrap().to_le_bytes())
            .value(
                "split.tensors.count",
                5,
                &i32::try_from(gguf.tensors.len()).unwrap().to_le_bytes(),
            );
        let (mut n_keys, mut keys) = (3, numbers.metadata);
        for ((key, _), span) in std::iter::zip(&gguf.metadata, &gguf.spans) {
            // They are written with the usual alignment.
            if no == 0 && key != "general.alignment" {
                n_keys += 1;
                keys.extend(range(span.start, span.end - span.start));
            }
        }
        let mut writer = crate::Writer::with_keys(Vec::new(), n_keys, &keys, tensors).unwrap();
        for tensor in tensors {
            writer.write(range(gguf.data_offset + tensor.offset, tensor.n_bytes)).unwrap();
        }
        writer.finish().unwrap()
    };
    (0..n_parts).map(part).collect()
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend(u64::try_from(text.len()).unwrap().to_le_bytes());
    bytes.extend(text.as_bytes());
}
