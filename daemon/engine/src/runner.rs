//! Computing batches: the one place that calls `decode`, for answers and for embeddings.

use crate::cache::{pos_of, seq_of};
use hearth_abi::host::{Batch, Context, Model};
use hearth_abi::raw::Token;
use hearth_abi::{BatchEntry, ContextConfig, KvType, PluginError, Pooling, Status};
use std::sync::Arc;

/// The context and its reusable batch.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) context: Context,
    batch: Batch,
}

impl Runner {
    pub(crate) fn new(context: Context) -> Self {
        let batch = Batch::with_capacity(context.info().n_batch as usize);
        Self { context, batch }
    }

    pub(crate) fn begin(&mut self) {
        self.batch.clear();
    }

    /// Adds tokens that follow the `n_before` a slot holds. Answers the index of the last one, whose logits are read if
    /// `output` is set.
    pub(crate) fn add(
        &mut self,
        slot: usize,
        n_before: usize,
        tokens: &[Token],
        output: bool,
    ) -> usize {
        let mut last = 0;
        for (offset, token) in tokens.iter().enumerate() {
            last = self.batch.push(BatchEntry {
                token: *token,
                position: pos_of(n_before + offset),
                sequence: seq_of(slot),
                output: output && offset + 1 == tokens.len(),
            });
        }
        last
    }

    pub(crate) fn run(&mut self) -> Result<(), PluginError> {
        self.context.decode(&self.batch)
    }
}

/// Embeds texts one by one in a context of its own, made at the first use.
#[derive(Debug)]
pub(crate) struct Embedder {
    runner: Runner,
}

impl Embedder {
    pub(crate) fn new(model: &Arc<Model>, n_ctx: u32, n_threads: u32) -> Result<Self, PluginError> {
        // A text must be computed in one piece: encoders look at all of it, and pooling at one batch.
        let n_ctx = n_ctx.min(model.info().n_ctx_train.max(1));
        let context = model.context(&ContextConfig {
            n_ctx,
            n_batch: n_ctx,
            n_ubatch: n_ctx,
            n_seq_max: 1,
            n_threads,
            n_threads_batch: n_threads,
            embeddings: Some(Pooling::Model),
            kv_type: KvType::F16,
        })?;
        Ok(Self { runner: Runner::new(context) })
    }

    /// Most tokens of one text.
    pub(crate) fn max_tokens(&self) -> usize {
        self.runner.context.info().n_batch as usize
    }

    pub(crate) fn embed(&mut self, tokens: &[Token]) -> Result<Vec<f32>, PluginError> {
        if tokens.is_empty() || tokens.len() > self.max_tokens() {
            return Err(PluginError::new(Status::InvalidArgument, "the text is empty or too long"));
        }
        self.runner.begin();
        for (position, token) in tokens.iter().enumerate() {
            let entry =
                BatchEntry { token: *token, position: pos_of(position), sequence: 0, output: true };
            self.runner.batch.push(entry);
        }
        let computed =
            self.runner.run().and_then(|()| self.runner.context.embedding(0).map(<[f32]>::to_vec));
        self.runner.context.seq_remove(0, 0, None)?;
        computed
    }
}
