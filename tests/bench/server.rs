//! What both sides of a comparison do alike, and how an answer is timed.

use crate::Result;
use std::time::{Duration, Instant};

/// A text to continue.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) prompt: String,
    /// Most tokens in the answer.
    pub(crate) n_tokens: u32,
    pub(crate) sampling: Sampling,
}

/// How tokens are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sampling {
    /// Temperature 0.
    Greedy,
    /// Temperature 0.8, top-k 40, top-p 0.9.
    Usual { seed: u32 },
}

/// What a stream says.
#[derive(Debug)]
pub(crate) enum Event {
    /// A piece of the answer, never empty.
    Text(String),
    End(Usage),
}

/// What the server itself counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) n_prompt: u64,
    /// Prompt tokens that the server did not compute again.
    pub(crate) n_cached: u64,
    pub(crate) n_generated: u64,
}

/// An answer on its way. Dropping it closes its connection.
pub(crate) trait Stream {
    fn next(&mut self) -> Result<Event>;
}

/// A running server with one model.
pub(crate) trait Server: Sync {
    /// Its processes.
    fn pids(&self) -> Result<Vec<u32>>;

    fn tokenize(&self, text: &str) -> Result<Vec<u64>>;

    fn detokenize(&self, tokens: &[u64]) -> Result<String>;

    /// Sends a request on a connection of its own.
    fn open(&self, request: &Request) -> Result<Box<dyn Stream>>;

    /// A second server with the same files, as soon as it takes requests.
    fn start_another(&self) -> Result<Box<dyn Server>>;
}

/// A whole answer, timed from before its connection was made.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) text: String,
    /// Until its first piece of text.
    pub(crate) first: Duration,
    pub(crate) total: Duration,
    pub(crate) usage: Usage,
}

impl Answer {
    /// Tokens per second after the first, which comes with the prompt.
    pub(crate) fn decode_rate(&self) -> Result<f64> {
        let n_tokens = self.usage.n_generated.saturating_sub(1);
        if n_tokens == 0 {
            return Err("an answer of one token has no rate".into());
        }
        Ok(count(n_tokens) / (self.total - self.first).as_secs_f64())
    }
}

/// Asks, and waits for the whole answer.
pub(crate) fn ask(server: &dyn Server, request: &Request) -> Result<Answer> {
    let started = Instant::now();
    let mut stream = server.open(request)?;
    let mut text = String::new();
    let mut first = None;
    loop {
        match stream.next()? {
            Event::Text(piece) => {
                first.get_or_insert_with(|| started.elapsed());
                text.push_str(&piece);
            }
            Event::End(usage) => {
                let total = started.elapsed();
                return Ok(Answer { text, first: first.unwrap_or(total), total, usage });
            }
        }
    }
}

/// A number of things, for arithmetic with figures.
#[allow(clippy::cast_precision_loss)] // Far fewer than 2^52.
pub(crate) fn count(n: u64) -> f64 {
    n as f64
}
