//! How much memory a model takes, at several sizes of its context.
//!
//! The weights are the file, and that of a projector. Keys and values follow from the model's shape, and from how they are kept here. What is in between while the engine computes is the
//! widest of a step's intermediate results; for the rest of the process stands a constant. `tests/real/show.rs` compares the sum with
//! what a worker takes.

use crate::config::EngineSizes;
use crate::supervisor::Settled;
use hearth_protocol::{KvType, MemoryEstimate};
use hearth_store::{GgufSummary, GgufValue, ShownModel};

/// Sizes that are shown of those that the model was made for.
const CONTEXTS: [u64; 7] = [4096, 16_384, 32_768, 65_536, 131_072, 262_144, 1_048_576];
/// Numbers of keys and values that are stored together.
const KV_BLOCK: u64 = 32;
/// Of one number in between.
const F32_BYTES: u64 = 4;
/// Code, stacks, the vocabulary, and what the engine's own tables take.
const PROCESS_BYTES: u64 = 40 << 20;

/// Nothing where the shape of the memory is not known.
pub(super) fn estimates(
    shown: &ShownModel,
    engine: &EngineSizes,
    settled: &Settled,
) -> Vec<MemoryEstimate> {
    let gguf = &shown.gguf;
    let projector_bytes = shown.projector.as_ref().map_or(0, |projector| projector.file_len);
    let weights_bytes = gguf.file_len.saturating_add(projector_bytes);
    let (Some(kv), Some(longest)) = (gguf.kv, gguf.context_length) else { return Vec::new() };
    let n_sequences = u64::from(engine.parallel).saturating_add(engine.kept.into());
    let n_step = settled.batch.into();
    let contexts = CONTEXTS.into_iter().filter(|context| *context < longest).chain([longest]);
    contexts
        .map(|context| {
            let kv_blocks = kv.numbers(context, n_sequences, n_step).div_ceil(KV_BLOCK);
            let kv_bytes = kv_blocks.saturating_mul(kv_block_bytes(settled.kv_type));
            let compute_bytes = compute(gguf, n_step).saturating_add(PROCESS_BYTES);
            let total_bytes = weights_bytes.saturating_add(kv_bytes).saturating_add(compute_bytes);
            MemoryEstimate { context, total_bytes, weights_bytes, kv_bytes, compute_bytes }
        })
        .collect()
}

fn kv_block_bytes(kv_type: KvType) -> u64 {
    match kv_type {
        KvType::F32 => 4 * KV_BLOCK,
        KvType::F16 => 2 * KV_BLOCK,
        // Numbers of 8 or 4 bits, and a scale of 16 for all.
        KvType::Q8_0 => KV_BLOCK + 2,
        KvType::Q4_0 => KV_BLOCK / 2 + 2,
    }
}

fn compute(gguf: &GgufSummary, n_step: u64) -> u64 {
    let number = |key: &str| {
        let key = format!("{}.{key}", gguf.architecture);
        let found = gguf.metadata.iter().find(|(known, _)| *known == key)?;
        if let GgufValue::Unsigned(number) = found.1 { Some(number) } else { None }
    };
    let width = number("embedding_length").unwrap_or(0);
    let inner = number("feed_forward_length").unwrap_or(0);
    let of_token = width.saturating_mul(4).saturating_add(inner.saturating_mul(2));
    of_token.saturating_mul(n_step).saturating_mul(F32_BYTES)
}
