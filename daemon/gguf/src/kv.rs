//! How much a model remembers of each token, from the shapes of its tensors and a few keys.
//!
//! Known for attention whose keys and values are kept as they are; layers that look only so far back keep no more than that. Of
//! models that compress them, or have a running state, nothing is said rather than something wrong.

use super::{Gguf, GgufValue};

/// The numbers that keys and values take for each token, over all layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvShape {
    /// In layers that keep every token.
    pub whole: u64,
    /// In layers that keep the last `window` tokens.
    pub windowed: u64,
    pub window: u64,
}

/// One in so many layers keeps every token, where the file does not say so: llama.cpp knows it by the architecture.
const PERIODS: [(&str, u64); 7] = [
    ("cohere2", 4),
    ("exaone4", 4),
    ("gemma2", 2),
    ("gemma3", 6),
    ("gemma3n", 5),
    ("gpt-oss", 2),
    ("olmo2", 4),
];

/// Cells come in blocks of so many.
const CELLS: u64 = 256;

impl KvShape {
    /// Numbers that a memory of `n_ctx` tokens holds, shared by `n_sequences` and filled in steps of `n_step` tokens.
    pub fn numbers(&self, n_ctx: u64, n_sequences: u64, n_step: u64) -> u64 {
        let cells = n_ctx.saturating_add(CELLS - 1) / CELLS * CELLS;
        let window = self.window.saturating_mul(n_sequences).saturating_add(n_step);
        let window_cells = (window.saturating_add(CELLS - 1) / CELLS * CELLS).min(cells);
        let whole = self.whole.saturating_mul(cells);
        whole.saturating_add(self.windowed.saturating_mul(window_cells))
    }
}

impl Gguf {
    /// Nothing if this model keeps no keys and values, or keeps them in another way.
    pub fn kv_shape(&self, architecture: &str) -> Option<KvShape> {
        let number = |key: &str| self.number(&format!("{architecture}.{key}"));
        let prefix = format!("{architecture}.");
        let has_state = self.metadata.iter().any(|(key, _)| {
            let own = key.strip_prefix(&prefix).unwrap_or_default();
            own.starts_with("ssm.") || own.starts_with("wkv.") || own == "attention.kv_lora_rank"
        });
        let is_encoder = architecture.contains("bert") && number("pooling_type").is_some();
        let causal = self.get(&format!("{architecture}.attention.causal"));
        if has_state || is_encoder || causal == Some(&GgufValue::Bool(false)) {
            return None;
        }
        let n_layer = number("block_count")?;
        // The last layers of some models use the memory of earlier ones.
        let n_own = n_layer.saturating_sub(number("attention.shared_kv_layers").unwrap_or(0));
        let said = self.said_width(architecture);
        let window = number("attention.sliding_window").filter(|_| architecture != "phi3");
        let period = number("attention.sliding_window_pattern")
            .or_else(|| PERIODS.iter().find(|(name, _)| *name == architecture).map(|(_, n)| *n));
        let mut shape = KvShape { whole: 0, windowed: 0, window: window.unwrap_or(0) };
        for (layer, width) in (0..).zip(self.layer_widths(n_own)) {
            let width = width.or(said)?;
            let keeps_all = match (window, period) {
                (Some(1..), Some(period @ 1..)) => layer % period == period - 1,
                // More than it takes, perhaps: which layers look back only so far is not known.
                _ => true,
            };
            let sum = if keeps_all { &mut shape.whole } else { &mut shape.windowed };
            *sum = sum.saturating_add(width);
        }
        (shape.whole > 0 || shape.windowed > 0).then_some(shape)
    }

    /// The rows of each layer's key and value weights together, where it has both.
    fn layer_widths(&self, n_layer: u64) -> Vec<Option<u64>> {
        let n_layer = usize::try_from(n_layer.min(MAX_LAYERS)).unwrap_or_default();
        let mut rows = vec![[None; 2]; n_layer];
        for tensor in &self.tensors {
            let Some((layer, what)) =
                tensor.name.strip_prefix("blk.").and_then(|name| name.split_once('.'))
            else {
                continue;
            };
            let at = match what {
                "attn_k.weight" => 0,
                "attn_v.weight" => 1,
                _ => continue,
            };
            if let Some(layer) = layer.parse().ok().and_then(|layer: usize| rows.get_mut(layer)) {
                layer[at] = tensor.dims.get(1).copied();
            }
        }
        rows.into_iter().map(|[keys, values]| Some(keys?.saturating_add(values?))).collect()
    }

    /// By the counts of heads, for models that keep the weights of keys and values in one tensor.
    fn said_width(&self, architecture: &str) -> Option<u64> {
        let number = |key: &str| self.number(&format!("{architecture}.{key}"));
        let n_head = number("attention.head_count").filter(|n_head| *n_head > 0)?;
        let n_head_kv = match self.get(&format!("{architecture}.attention.head_count_kv")) {
            None => n_head,
            // Where each layer has its own number, those without weights of their own may keep something else.
            Some(_) => number("attention.head_count_kv")?,
        };
        let of_head = || number("embedding_length").map(|n_embd| n_embd / n_head);
        let keys = number("attention.key_length").or_else(of_head)?;
        let values = number("attention.value_length").or_else(of_head)?;
        Some(n_head_kv.saturating_mul(keys.saturating_add(values)))
    }
}

/// llama.cpp's own limit; more are a lie that would take time.
const MAX_LAYERS: u64 = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Writer;
    use std::io::Cursor;

    fn shape(architecture: &str, numbers: &[(&str, u32)], widths: &[u64]) -> Option<KvShape> {
        let mut file = Writer::new().text("general.architecture", architecture);
        for (key, value) in numbers {
            file = file.u32(&format!("{architecture}.{key}"), *value);
        }
        for (layer, width) in widths.iter().enumerate() {
            for what in ["attn_k", "attn_v"] {
                let name = format!("blk.{layer}.{what}.weight");
                file = file.tensor(&name, &[8, *width], 0, 8 * width * 4);
            }
        }
        Gguf::read(&mut Cursor::new(file.bytes())).unwrap().kv_shape(architecture)
    }

    const HEADS: [(&str, u32); 4] = [
        ("block_count", 30),
        ("embedding_length", 576),
        ("attention.head_count", 9),
        ("attention.head_count_kv", 3),
    ];

    #[test]
    fn plain_attention_keeps_every_token() {
        let said = shape("llama", &HEADS, &[]).unwrap();
        assert_eq!(said, KvShape { whole: 30 * 3 * 128, windowed: 0, window: 0 });
        assert_eq!(said.numbers(4096, 16, 512), 4096 * 30 * 3 * 128);
        assert_eq!(said.numbers(1, 16, 512), 256 * 30 * 3 * 128);
        // Each layer's own shape goes before what the keys say of all.
        assert_eq!(shape("llama", &[("block_count", 2)], &[4, 6]).unwrap().whole, 20);
    }

    #[test]
    fn windows_keep_no_more_than_they_see() {
        let keys = [("block_count", 6), ("attention.sliding_window", 512)];
        let found = shape("gemma3", &keys, &[1; 6]).unwrap();
        assert_eq!(found, KvShape { whole: 2, windowed: 10, window: 512 });
        // 2 sequences of 512 and a step of 512, of 32,768.
        assert_eq!(found.numbers(32_768, 2, 512), 2 * 32_768 + 10 * 1536);
        assert_eq!(found.numbers(1024, 2, 512), 12 * 1024);
        // Of an architecture that is not known, more rather than less.
        assert_eq!(shape("new", &keys, &[1; 6]).unwrap().whole, 12);
        let shared = [keys[0], keys[1], ("attention.shared_kv_layers", 5)];
        assert_eq!(shape("gemma3", &shared, &[1; 6]).unwrap().windowed, 2);
    }

    #[test]
    fn of_layers_that_differ_only_their_weights_tell() {
        let mut file = Writer::new()
            .array("lfm2.attention.head_count_kv", 5, 2, &[0, 0, 0, 0, 8, 0, 0, 0])
            .u32("lfm2.block_count", 2)
            .u32("lfm2.embedding_length", 64)
            .u32("lfm2.attention.head_count", 8);
        let kept = |file: &Writer| {
            let gguf = Gguf::read(&mut Cursor::new(file.bytes())).unwrap();
            gguf.kv_shape("lfm2").map(|shape| shape.whole)
        };
        for (layer, expected) in [(1, None), (0, Some(16))] {
            for what in ["attn_k", "attn_v"] {
                let name = format!("blk.{layer}.{what}.weight");
                file = file.tensor(&name, &[8, 4], 0, 128);
            }
            assert_eq!(kept(&file), expected);
        }
    }

    #[test]
    fn of_other_memories_nothing_is_said() {
        for key in ["ssm.state_size", "wkv.head_size", "attention.kv_lora_rank"] {
            let keys: Vec<_> = HEADS.into_iter().chain([(key, 64)]).collect();
            assert_eq!(shape("mixed", &keys, &[]), None, "{key}");
        }
        let bert: Vec<_> = HEADS.into_iter().chain([("pooling_type", 1)]).collect();
        assert_eq!(shape("nomic-bert", &bert, &[]), None);
        assert_eq!(shape("llama", &[("block_count", u32::MAX)], &[]), None);
    }
}
