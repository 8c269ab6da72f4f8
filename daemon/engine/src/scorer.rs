//! How likely a model finds a text: each of its tokens, given those before it.
//!
//! Computed in a context of its own, a piece at a time, so that answers go on in between.

use crate::sampler::{Logprobs, Sampler, Sampling};
use crate::sequence::{Failure, to_u32};
use crate::single::SingleText;
use hearth_abi::PluginError;
use hearth_abi::host::{Adapter, Model};
use hearth_abi::raw::Token;
use std::sync::Arc;

/// Tokens of a piece: few, because others wait for it, and each has the logits of a whole vocabulary.
const PIECE: u32 = 64;

/// Computes how likely texts are.
#[derive(Debug)]
pub struct Scorer {
    text: SingleText,
}

/// A text, and what is known of it.
#[derive(Debug)]
pub struct Scoring {
    tokens: Vec<Token>,
    sampler: Sampler,
    logprobs: Vec<Logprobs>,
    n_done: usize,
}

impl Scoring {
    /// With so many of the likeliest tokens at each place.
    pub fn new(tokens: Vec<Token>, n_top: u32) -> Self {
        let sampling = Sampling { logprobs: Some(n_top), ..Sampling::default() };
        let sampler = Sampler::new(sampling, &[]);
        Self { tokens, sampler, logprobs: Vec::new(), n_done: 0 }
    }

    /// Of every token but the first, which follows nothing.
    pub fn into_logprobs(self) -> Vec<Logprobs> {
        self.logprobs
    }
}

impl Scorer {
    /// Creates the context, for texts of up to `n_ctx` tokens where the model allows that.
    pub fn new(
        model: &Arc<Model>,
        n_ctx: u32,
        n_threads: u32,
        adapters: &[(Arc<Adapter>, f32)],
    ) -> Result<Self, PluginError> {
        Ok(Self { text: SingleText::new(model, n_ctx, PIECE, n_threads, None, adapters)? })
    }

    /// Computes the next piece. True when it was the last.
    pub fn go_on(&mut self, scoring: &mut Scoring) -> Result<bool, Failure> {
        let (n_prompt, n_ctx) = (to_u32(scoring.tokens.len()), self.text.context.info().n_ctx_seq);
        if n_prompt == 0 {
            return Err(Failure::EmptyPrompt);
        }
        if n_prompt > n_ctx {
            return Err(Failure::ContextOverflow { n_prompt, n_ctx });
        }
        self.compute(scoring).map_err(|error| Failure::Backend(error.message))
    }

    fn compute(&mut self, scoring: &mut Scoring) -> Result<bool, PluginError> {
        let Scoring { tokens, sampler, logprobs, n_done } = scoring;
        if *n_done == 0 {
            // Whoever came before may have left in the middle.
            self.text.clear()?;
        }
        let start = *n_done;
        let end = tokens.len().min(start + self.text.context.info().n_batch as usize);
        self.text.compute(start, &tokens[start..end])?;
        for (index, next) in tokens[start + 1..].iter().take(end - start).enumerate() {
            sampler.prepare(self.text.context.logits(index)?);
            logprobs.extend(sampler.logprobs(*next));
        }
        *n_done = end;
        Ok(end == tokens.len())
    }
}
