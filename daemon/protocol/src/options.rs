//! How tokens are chosen: the options of `chat.send` and `generate`, and what they report of the choices.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How tokens are chosen and when the answer ends. Absent fields take the model's own value, then the default named here.
///
/// The rules apply in this order: `logit_bias`, `repeat_penalty` and its like, `dry_*`, `top_n_sigma`, `top_k`, `typical_p`,
/// `top_p`, `min_p`, `xtc_*`, `temperature`. With `mirostat` those from `top_n_sigma` to `xtc_*` do nothing.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// 0 always takes the likeliest token. Default 0.8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// The temperature moves by up to this: down where the model is sure, up where it is not. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dynatemp_range: Option<f32>,
    /// How fast it moves with the entropy. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dynatemp_exponent: Option<f32>,
    /// Only the likeliest `top_k` tokens; 0 means all. Default 40.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// Only the likeliest tokens that together reach this probability. Default 0.9.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    /// Only tokens at least this likely, relative to the likeliest. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f32>,
    /// Only the tokens whose surprise is nearest to the expected one, that together hold this. 1 means all. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub typical_p: Option<f32>,
    /// Only tokens whose logit is at most so many standard deviations below the largest; 0 or less means all. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_n_sigma: Option<f32>,
    /// How often all but the least likely of the tokens that reach `xtc_threshold` are taken away. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xtc_probability: Option<f32>,
    /// See `xtc_probability`; above 0.5 nothing is taken away. Default 0.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xtc_threshold: Option<f32>,
    /// `typical_p`, `top_p`, `min_p` and `xtc_*` leave at least so many tokens. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_keep: Option<u32>,
    /// 1 or 2 keeps the surprise per token near `mirostat_tau` by that version of Mirostat; 0 does not. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirostat: Option<u32>,
    /// The surprise to aim at, in bits. Default 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirostat_tau: Option<f32>,
    /// Which part of each miss is corrected. Default 0.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirostat_eta: Option<f32>,
    /// Divides (or, below zero, multiplies) the logits of recent tokens. 1 does nothing. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeat_penalty: Option<f32>,
    /// How many recent tokens the penalties look at; 0 means none. Default 64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeat_last_n: Option<u32>,
    /// Taken off the logit of every recent token. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence_penalty: Option<f32>,
    /// Taken off the logit of a recent token, once for each time it occurred. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f32>,
    /// Taken off the logit of a token that would continue a repetition of `dry_allowed_length` tokens; 0 means never.
    /// Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_multiplier: Option<f32>,
    /// Times so much for each token that the repetition is longer. Default 1.75.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_base: Option<f32>,
    /// See `dry_multiplier`. Default 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_allowed_length: Option<u32>,
    /// How many recent tokens are searched for repetitions. Default 64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_penalty_last_n: Option<u32>,
    /// Texts that end a repetition. Default: a line break, `:`, `"` and `*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_sequence_breakers: Option<Vec<String>>,
    /// Added to the logits of these tokens, from -100 to 100; -100 means never. Keys are numbers of tokens. Default: none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub logit_bias: BTreeMap<i32, f32>,
    /// Report how likely each token of the answer was. Default: whether `top_logprobs` is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<bool>,
    /// The same, and this many of the likeliest tokens at each place, up to 20. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_logprobs: Option<u32>,
    /// Same seed, prompt and options: same choices from the same logits. Default: a new one each time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// How many answers to give, from 1 to 16; the first takes `seed`, and each the seed after that of the one before. The
    /// prompt is computed once for all. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidates: Option<u32>,
    /// Compute the request by itself, in a memory of its own and in steps that depend on nothing else: with the same `seed`
    /// the same machine gives the same answer, whatever runs beside it. Without, near ties can fall the other way. Slower:
    /// one request at a time, nothing guessed or taken from the cache. The first one takes as much memory again for the
    /// context as the model has. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deterministic: Option<bool>,
    /// The answer ends before the first of these. Default: none but the model's own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// Most tokens in the answer. With 0 there is none: the prompt is computed, and stays in memory for the next that begin so.
    /// Default: as many as the context holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// Most tokens of prompt and answer together. Default: as many as the model and its memory hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<u32>,
    /// Leave out what is oldest where the prompt leaves too little room for the answer, which is `max_tokens` and at most a
    /// quarter of the context: of a chat whole turns, but never system messages nor the last turn; of a text tokens behind
    /// `keep`. That goes by quarters of the context, so that the next prompts begin alike and are found in memory. The
    /// reply's `usage` says what was left out. Default false: a prompt that does not fit is an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncate: Option<bool>,
    /// Where the context is full, half of the tokens behind `keep` leave it and the answer goes on, `max_tokens` by default
    /// ten times the context. What was computed with them stays, so the answer is not the one that the rest alone would get.
    /// The reply's `usage` says how many left. Where the model's memory cannot do it, and by default, the answer ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shift: Option<bool>,
    /// How many of the first tokens `truncate` and `shift` leave alone, less than half of the context. Default: 4, and in a
    /// chat the system messages, as far as they are less than that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<u32>,
}

/// A token, and how likely the model found it: of its own distribution, before biases, penalties, temperature, truncation
/// and constraints.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TokenLogprob {
    /// Its number in the vocabulary.
    pub id: i32,
    /// Its text. Bytes that are part of a character stand as U+FFFD.
    pub token: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability; -9999 where that is 0.
    pub logprob: f32,
}

/// What was chosen at one place of an answer.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Logprob {
    /// The chosen token.
    #[serde(flatten)]
    pub chosen: TokenLogprob,
    /// The likeliest tokens here, likeliest first, whether or not the chosen one is among them.
    pub top_logprobs: Vec<TokenLogprob>,
}

/// Texts of people are never printed, at any log level.
impl std::fmt::Debug for TokenLogprob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenLogprob({} bytes, {})", self.bytes.len(), self.logprob)
    }
}

impl std::fmt::Debug for Logprob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Logprob({:?}, {:?})", self.chosen, self.top_logprobs)
    }
}
