//! Sizes of one engine.

use hearth_abi::host::Model;
use hearth_abi::{FlashAttention, KvType};
use std::time::Duration;

/// Sizes of one engine, fixed for its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    /// KV cells, shared by all sequences.
    pub n_ctx: u32,
    /// Most tokens in one step.
    pub n_batch: u32,
    /// How long a step may take that also continues running answers: the gap in a stream while others send prompts.
    pub step_target: Duration,
    /// Sequences that run at once.
    pub n_parallel: u32,
    /// Finished sequences whose memory may be kept for reuse, beside the running ones.
    pub n_kept: u32,
    /// Bytes of main memory for sequences that left the KV memory; 0: none are saved.
    pub archive_bytes: usize,
    /// Requests of one owner that may wait; one more is refused.
    pub max_waiting: usize,
    /// Texts that repeat themselves may be guessed.
    pub speculate: bool,
    /// Steps and threads follow the speed of the machine, and memory is reused. Without, and with one sequence at a time and no
    /// guesses, an answer depends on nothing but its request.
    pub adapts: bool,
    /// While decoding single tokens; 0: the plugin chooses.
    pub n_threads: u32,
    /// While decoding prompts; 0: the plugin chooses.
    pub n_threads_batch: u32,
    /// Number format of the KV memory.
    pub kv_type: KvType,
    /// How attention is computed.
    pub flash_attention: FlashAttention,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            n_ctx: 8192,
            n_batch: 512,
            step_target: Duration::from_millis(100),
            n_parallel: 8,
            n_kept: 8,
            archive_bytes: 1 << 30,
            max_waiting: 256,
            speculate: true,
            adapts: true,
            n_threads: 0,
            n_threads_batch: 0,
            kv_type: KvType::F16,
            flash_attention: FlashAttention::Auto,
        }
    }
}

/// At most so many tokens of context, and no more than the model was trained with.
pub(crate) fn within_training(model: &Model, n_ctx: u32) -> u32 {
    match model.info().n_ctx_train {
        0 => n_ctx,
        n_ctx_train => n_ctx.min(n_ctx_train),
    }
}
