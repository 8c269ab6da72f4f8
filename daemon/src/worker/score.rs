//! How likely the model finds a text.

use super::answer::told;
use super::frames::Reply;
use super::prepare::{refused, text};
use super::sampling::top_logprobs;
use hearth_abi::host::Model;
use hearth_engine::Scoring;
use hearth_protocol::{RpcError, ScoreParams, ScoreReply, Usage};

/// A text to score, and how far that is.
pub(super) struct ScoreJob {
    pub(super) id: u64,
    n_tokens: usize,
    /// The text of the first token, of which nothing can be said.
    first: String,
    pub(super) scoring: Scoring,
}

impl ScoreJob {
    pub(super) fn new(model: &Model, id: u64, params: &ScoreParams) -> Result<Self, RpcError> {
        let n_top = top_logprobs(params.top_logprobs)?;
        let tokens = model.tokenize(&params.text, !params.raw, params.raw).map_err(refused)?;
        let first = tokens.first().map(|token| model.token_piece(*token, false)).transpose();
        let first = first.map_err(refused)?.unwrap_or_default().into_vec();
        let n_tokens = tokens.len();
        Ok(Self { id, n_tokens, first: text(first), scoring: Scoring::new(tokens, n_top) })
    }

    pub(super) fn reply(self, model: &Model) -> Reply {
        let prompt_tokens = u32::try_from(self.n_tokens).unwrap_or(u32::MAX);
        let logprobs = self.scoring.into_logprobs();
        Reply::Score(ScoreReply {
            first: self.first,
            logprobs: logprobs.iter().map(|logprobs| told(model, logprobs)).collect(),
            usage: Usage { prompt_tokens, ..Usage::default() },
        })
    }
}
