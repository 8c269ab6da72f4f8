//! What Ollama's answers say of time, tokens and chance.

use crate::http::{Token, is_zero};
use hearth_protocol::{FinishReason, Logprob, Timings, Usage};
use schemars::JsonSchema;
use serde::Serialize;
use std::time::{Duration, Instant};

pub(super) fn now() -> String {
    jiff::Timestamp::now().to_string()
}

/// Of the last line. Times are in nanoseconds; what is 0 is left out.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(super) struct Metrics {
    done_reason: &'static str,
    total_duration: u64,
    load_duration: u64,
    #[serde(skip_serializing_if = "is_zero")]
    prompt_eval_count: u32,
    #[serde(skip_serializing_if = "is_zero")]
    prompt_eval_duration: u64,
    #[serde(skip_serializing_if = "is_zero")]
    eval_count: u32,
    #[serde(skip_serializing_if = "is_zero")]
    eval_duration: u64,
    /// Beyond Ollama: prompt tokens that were not computed again.
    #[serde(skip_serializing_if = "is_zero")]
    cached_count: u32,
    /// Beyond Ollama, which cuts in silence: what was left out to make the rest fit.
    #[serde(skip_serializing_if = "is_zero")]
    dropped_messages: u32,
    #[serde(skip_serializing_if = "is_zero")]
    dropped_count: u32,
    #[serde(skip_serializing_if = "is_zero")]
    shifted_count: u32,
}

pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Metrics {
    pub(super) fn new(
        since: Instant,
        finish: FinishReason,
        usage: &Usage,
        timings: &Timings,
    ) -> Self {
        Self {
            done_reason: match finish {
                FinishReason::MaxTokens | FinishReason::ContextFull => "length",
                _ => "stop",
            },
            total_duration: nanoseconds(since.elapsed()),
            // Clients take 0 for a time that is missing.
            load_duration: (timings.load_us * 1000).max(1),
            prompt_eval_count: usage.prompt_tokens,
            prompt_eval_duration: timings.prefill_us * 1000,
            eval_count: usage.completion_tokens,
            eval_duration: timings.decode_us * 1000,
            cached_count: usage.cached_tokens,
            dropped_messages: usage.dropped_messages,
            dropped_count: usage.dropped_tokens,
            shifted_count: usage.shifted_tokens,
        }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Chance {
    #[serde(flatten)]
    token: Token,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    top_logprobs: Vec<Token>,
}

pub(super) fn chances(logprobs: Vec<Logprob>) -> Vec<Chance> {
    logprobs
        .into_iter()
        .map(|place| Chance {
            token: place.chosen.into(),
            top_logprobs: place.top_logprobs.into_iter().map(Token::from).collect(),
        })
        .collect()
}
