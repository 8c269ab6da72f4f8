//! One request's tokens and everything that belongs to them but the KV memory.

use crate::constraint::Constraint;
use crate::sampler::{Logprobs, Sampler, Sampling};
use crate::text::TextOut;
use crate::thoughts::{Thinking, Thoughts};
use hearth_abi::raw::Token;
use std::ops::Range;
use std::time::{Duration, Instant};

/// What to compute.
#[derive(Debug)]
pub struct Request {
    /// Unique among the engine's living requests.
    pub id: u64,
    /// Whose it is. Memory of one owner is reused for another only where it is public.
    pub owner: u32,
    /// The prompt, at least one token.
    pub prompt: Vec<Token>,
    /// Tokens at its start that are the same for everybody, such as the model's own system prompt.
    pub n_public: u32,
    /// Most tokens of prompt and answer together; `None`: what the engine has.
    pub max_context: Option<u32>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Texts that end the answer.
    pub stops: Vec<String>,
    /// Most tokens in the answer.
    pub max_tokens: Option<u32>,
    /// Where the context is full, half of the tokens behind the first so many leave it, and the answer goes on; `None`: it
    /// ends. No more than half of the context stays.
    pub shift: Option<u32>,
    /// What the answer must look like.
    pub constraint: Option<Constraint>,
    /// How the model reasons before it answers.
    pub thinking: Option<Thinking>,
    /// Control tokens that are spelled out in the answer instead of left out.
    pub spelled: Vec<Token>,
}

/// Something that happened to a request. The last one of each is `Done` or `Failed`.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<'a> {
    /// It waits behind `place` others.
    Queued {
        /// Its place, from 1.
        place: u32,
        /// How long that will be about; `None` while nothing is known.
        wait: Option<Duration>,
    },
    /// Its prompt is being computed. Said at least once.
    Prefill {
        /// Tokens in memory.
        done: u32,
        /// Of these, found there.
        cached: u32,
        /// Tokens of the prompt.
        total: u32,
    },
    /// A token was chosen, if its sampling asks for this. Before the token's text.
    Logprobs(Logprobs),
    /// Text to emit: whole characters, possibly of several tokens, never empty.
    Text(&'a str),
    /// The answer is complete.
    Done(Finish),
    /// There will be no more.
    Failed(Failure),
}

/// How an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finish {
    /// Why.
    pub reason: FinishReason,
    /// The stop text that came.
    pub stop: Option<String>,
    /// Tokens of the prompt.
    pub n_prompt: u32,
    /// Of these, taken from memory.
    pub n_cached: u32,
    /// Tokens chosen, the ending one included.
    pub n_generated: u32,
    /// Tokens of prompt and answer that left the context before the end.
    pub n_shifted: u32,
    /// Tokens that were guessed before they were chosen, and put to the test.
    pub n_drafted: u32,
    /// Of these, how many were chosen.
    pub n_accepted: u32,
    /// Microseconds from submission to a place.
    pub queue_us: u64,
    /// From there to the first token.
    pub prefill_us: u64,
    /// From the first token to the last.
    pub decode_us: u64,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it.
    End,
    /// A stop text came.
    Stop,
    /// `max_tokens` was reached.
    MaxTokens,
    /// The context is full.
    ContextFull,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The prompt cannot fit.
    #[error(
        "the prompt has {n_prompt} tokens, and the context holds {n_ctx} with at least one for the answer"
    )]
    ContextOverflow {
        /// Tokens of the prompt.
        n_prompt: u32,
        /// Tokens one sequence may hold.
        n_ctx: u32,
    },
    /// A text to embed cannot be computed in one piece.
    #[error("the text has {n_tokens} tokens, and at most {max} can be embedded at once")]
    TextTooLong {
        /// Tokens of the text.
        n_tokens: u32,
        /// Most tokens of one text.
        max: u32,
    },
    /// The queue is full.
    #[error("{n_waiting} requests wait already")]
    Overloaded {
        /// How many wait.
        n_waiting: u32,
    },
    /// Somebody cancelled it.
    #[error("the request was cancelled")]
    Cancelled,
    /// The prompt is empty.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// What the answer must look like cannot be followed further, as when a grammar branches without end.
    #[error("the answer's constraint cannot be followed: {0}")]
    Constraint(String),
    /// The plugin failed.
    #[error("the backend failed: {0}")]
    Backend(String),
}

/// A request that lives in the engine.
#[derive(Debug)]
pub(crate) struct Sequence {
    pub(crate) id: u64,
    pub(crate) owner: u32,
    /// The prompt, then what was generated, without what was shifted out.
    pub(crate) tokens: Vec<Token>,
    pub(crate) n_prompt: usize,
    pub(crate) n_shifted: usize,
    pub(crate) n_public: usize,
    pub(crate) n_cached: usize,
    pub(crate) n_drafted: usize,
    pub(crate) n_accepted: usize,
    /// Most tokens in all.
    pub(crate) n_ctx: usize,
    /// When the context is full, so many tokens at the start stay; `None`: the answer ends.
    shift: Option<usize>,
    /// Its place in the cache while it runs.
    pub(crate) slot: Option<usize>,
    pub(crate) sampler: Sampler,
    /// Guessed tokens that the next step may put to the test.
    pub(crate) guess: Vec<Token>,
    pub(crate) text: TextOut,
    pub(crate) max_tokens: usize,
    pub(crate) constraint: Option<Constraint>,
    pub(crate) thoughts: Option<Thoughts>,
    pub(crate) spelled: Vec<Token>,
    /// The place last told to the caller.
    pub(crate) told_place: Option<u32>,
    /// While it waits: for another's prompt that it shares.
    pub(crate) is_held_back: bool,
    /// While its answer runs: steps since its last token, in which others of its owner went on.
    pub(crate) n_sat_out: u32,
    /// While its prompt runs: where others can take a copy.
    pub(crate) stop_at: Option<usize>,
    pub(crate) submitted: Instant,
    pub(crate) admitted: Option<Instant>,
    pub(crate) first_token: Option<Instant>,
}

impl Sequence {
    pub(crate) fn new(request: Request, n_ctx: usize) -> Self {
        Self {
            id: request.id,
            owner: request.owner,
            n_prompt: request.prompt.len(),
            n_shifted: 0,
            n_public: request.n_public as usize,
            n_cached: 0,
            n_drafted: 0,
            n_accepted: 0,
            n_ctx,
            shift: request.shift.map(|keep| (keep as usize).min((n_ctx - 1) / 2)),
            slot: None,
            sampler: Sampler::new(request.sampling, &request.prompt),
            guess: Vec::new(),
            text: TextOut::new(request.stops),
            max_tokens: request.max_tokens.map_or(usize::MAX, |max| max as usize),
            constraint: request.constraint,
            thoughts: request.thinking.map(Thoughts::new),
            spelled: request.spelled,
            told_place: None,
            is_held_back: false,
            n_sat_out: 0,
            stop_at: None,
            submitted: Instant::now(),
            admitted: None,
            first_token: None,
            tokens: request.prompt,
        }
    }

    pub(crate) fn n_generated(&self) -> usize {
        self.tokens.len() + self.n_shifted - self.n_prompt
    }

    pub(crate) fn can_shift(&self) -> bool {
        self.shift.is_some()
    }

    /// The tokens that leave a full context.
    pub(crate) fn oldest(&self) -> Range<usize> {
        let start = self.shift.unwrap_or(0);
        start..start + (self.tokens.len() - start) / 2
    }

    /// Takes tokens out of the context.
    pub(crate) fn take_out(&mut self, range: Range<usize>) {
        self.n_shifted += range.len();
        // What moves up is not what everybody has there.
        self.n_public = self.n_public.min(range.start);
        self.tokens.drain(range);
    }

    /// Tokens that the answer may still get.
    pub(crate) fn n_left(&self) -> usize {
        let by_count = self.max_tokens.saturating_sub(self.n_generated());
        by_count.min(self.n_ctx.saturating_sub(self.tokens.len()))
    }

    pub(crate) fn finish(&self, reason: FinishReason) -> Finish {
        let now = Instant::now();
        let admitted = self.admitted.unwrap_or(now);
        let first_token = self.first_token.unwrap_or(now);
        Finish {
            reason,
            stop: self.text.stop().map(Into::into),
            n_prompt: to_u32(self.n_prompt),
            n_cached: to_u32(self.n_cached),
            n_generated: to_u32(self.n_generated()),
            n_shifted: to_u32(self.n_shifted),
            n_drafted: to_u32(self.n_drafted),
            n_accepted: to_u32(self.n_accepted),
            queue_us: micros(self.submitted, admitted),
            prefill_us: micros(admitted, first_token),
            decode_us: micros(first_token, now),
        }
    }
}

pub(crate) fn to_u32(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn micros(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.duration_since(from).as_micros()).unwrap_or(u64::MAX)
}
