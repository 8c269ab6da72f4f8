//! A context for one text at a time, beside the engine's: what embedding and scoring have in common.

use crate::cache::pos_of;
use crate::config::within_training;
use crate::threads::Threads;
use hearth_abi::host::{Adapter, Batch, Context, Model};
use hearth_abi::raw::Token;
use hearth_abi::{BatchEntry, ContextConfig, PluginError, Pooling};
use std::sync::Arc;

#[derive(Debug)]
pub(crate) struct SingleText {
    pub(crate) context: Context,
    batch: Batch,
    threads: Threads,
}

impl SingleText {
    /// For texts of up to `n_ctx` tokens where the model allows that, of which up to `n_batch` are computed at once.
    pub(crate) fn new(
        model: &Arc<Model>,
        n_ctx: u32,
        n_batch: u32,
        n_threads: u32,
        embeddings: Option<Pooling>,
        adapters: &[(Arc<Adapter>, f32)],
    ) -> Result<Self, PluginError> {
        let n_ctx = within_training(model, n_ctx);
        let n_batch = n_batch.min(n_ctx);
        let mut context = model.context(&ContextConfig {
            n_batch,
            n_ubatch: n_batch,
            n_threads,
            n_threads_batch: n_threads,
            embeddings,
            ..ContextConfig::single(n_ctx)
        })?;
        if !adapters.is_empty() {
            context.attach(adapters)?;
        }
        let threads = Threads::new(context.info().n_threads);
        Ok(Self { context, batch: Batch::default(), threads })
    }

    /// Computes tokens of the text from `start` on, each with an output.
    pub(crate) fn compute(&mut self, start: usize, tokens: &[Token]) -> Result<(), PluginError> {
        self.batch.clear();
        for (token, at) in tokens.iter().zip(start..) {
            let position = pos_of(at);
            self.batch.push(BatchEntry { token: *token, position, sequence: 0, output: true });
        }
        if let Some(n_threads) = self.threads.adapt() {
            self.context.set_threads(n_threads, n_threads)?;
        }
        self.context.decode(&self.batch)
    }

    /// Forgets the text.
    pub(crate) fn clear(&mut self) -> Result<(), PluginError> {
        self.context.seq_remove(0, 0, None)
    }
}
