//! Embeddings: texts one by one, in a context of their own.
//!
//! A text is computed in one piece, because encoders look at all of it and pooling at one batch. A model that only embeds
//! has an [`Embedder`] and no [`Engine`](crate::Engine).

use crate::cache::pos_of;
use crate::sequence::{Failure, to_u32};
use crate::threads::Threads;
use hearth_abi::host::{Adapter, Batch, Context, Model};
use hearth_abi::raw::Token;
use hearth_abi::{BatchEntry, ContextConfig, FlashAttention, KvType, PluginError, Pooling};
use std::sync::Arc;

/// Turns texts into vectors.
#[derive(Debug)]
pub struct Embedder {
    context: Context,
    batch: Batch,
    threads: Threads,
}

impl Embedder {
    /// Creates the context, for texts of up to `n_ctx` tokens where the model allows that.
    pub fn new(model: &Arc<Model>, n_ctx: u32, n_threads: u32) -> Result<Self, PluginError> {
        let n_ctx = match model.info().n_ctx_train {
            0 => n_ctx,
            n_ctx_train => n_ctx.min(n_ctx_train),
        };
        let context = model.context(&ContextConfig {
            n_ctx,
            n_batch: n_ctx,
            n_ubatch: n_ctx,
            n_seq_max: 1,
            n_threads,
            n_threads_batch: n_threads,
            embeddings: Some(Pooling::Model),
            kv_type: KvType::F16,
            flash_attention: FlashAttention::Auto,
        })?;
        let threads = Threads::new(context.info().n_threads);
        Ok(Self { context, batch: Batch::default(), threads })
    }

    /// Applies adapters from here on.
    pub fn attach(&mut self, adapters: &[(Arc<Adapter>, f32)]) -> Result<(), PluginError> {
        self.context.attach(adapters)
    }

    /// Most tokens of one text.
    pub fn max_tokens(&self) -> u32 {
        self.context.info().n_batch
    }

    /// One embedding, not normalised.
    pub fn embed(&mut self, tokens: &[Token]) -> Result<Vec<f32>, Failure> {
        let (n_prompt, n_ctx) = (to_u32(tokens.len()), self.max_tokens());
        if n_prompt == 0 {
            return Err(Failure::EmptyPrompt);
        }
        if n_prompt > n_ctx {
            return Err(Failure::TextTooLong { n_tokens: n_prompt, max: n_ctx });
        }
        self.compute(tokens).map_err(|error| Failure::Backend(error.message))
    }

    fn compute(&mut self, tokens: &[Token]) -> Result<Vec<f32>, PluginError> {
        self.batch.clear();
        for (position, token) in tokens.iter().enumerate() {
            let position = pos_of(position);
            self.batch.push(BatchEntry { token: *token, position, sequence: 0, output: true });
        }
        if let Some(n_threads) = self.threads.adapt() {
            self.context.set_threads(n_threads, n_threads)?;
        }
        let computed = self.context.decode(&self.batch);
        let embedding = computed.and_then(|()| self.context.embedding(0).map(<[f32]>::to_vec));
        self.context.seq_remove(0, 0, None)?;
        embedding
    }
}
