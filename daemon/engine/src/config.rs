//! Sizes of one engine.

/// Sizes of one engine, fixed for its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    /// KV cells, shared by all sequences.
    pub n_ctx: u32,
    /// Most tokens in one step.
    pub n_batch: u32,
    /// Most tokens of prompts in a step that also continues running answers, so that a long prompt does not stall them.
    pub n_prefill_beside: u32,
    /// Sequences that run at once.
    pub n_parallel: u32,
    /// Finished sequences whose memory may be kept for reuse, beside the running ones.
    pub n_kept: u32,
    /// Requests that may wait; one more is refused.
    pub max_waiting: usize,
    /// While decoding single tokens; 0: the plugin chooses.
    pub n_threads: u32,
    /// While decoding prompts; 0: the plugin chooses.
    pub n_threads_batch: u32,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            n_ctx: 8192,
            n_batch: 512,
            n_prefill_beside: 128,
            n_parallel: 8,
            n_kept: 8,
            max_waiting: 256,
            n_threads: 0,
            n_threads_batch: 0,
        }
    }
}
