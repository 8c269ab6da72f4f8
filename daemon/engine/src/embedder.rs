//! Embeddings: texts one by one, in a context of their own.
//!
//! A text is computed in one piece, because encoders look at all of it and pooling at one batch. A model that only embeds
//! has an [`Embedder`] and no [`Engine`](crate::Engine).

use crate::sequence::{Failure, to_u32};
use crate::single::SingleText;
use hearth_abi::host::{Adapter, Model};
use hearth_abi::raw::Token;
use hearth_abi::{PluginError, Pooling};
use std::sync::Arc;

/// Turns texts into vectors.
#[derive(Debug)]
pub struct Embedder {
    text: SingleText,
}

impl Embedder {
    /// Creates the context, for texts of up to `n_ctx` tokens where the model allows that.
    pub fn new(
        model: &Arc<Model>,
        n_ctx: u32,
        n_threads: u32,
        adapters: &[(Arc<Adapter>, f32)],
    ) -> Result<Self, PluginError> {
        let embeddings = Some(Pooling::Model);
        let text = SingleText::new(model, n_ctx, n_ctx, n_threads, embeddings, adapters)?;
        Ok(Self { text })
    }

    /// Most tokens of one text.
    pub fn max_tokens(&self) -> u32 {
        self.text.context.info().n_batch
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
        let computed = self.text.compute(0, tokens);
        let embedding = computed.and_then(|()| self.text.context.embedding(0).map(<[f32]>::to_vec));
        self.text.clear()?;
        embedding
    }
}
