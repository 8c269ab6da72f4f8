//! Scenarios with one request at a time.

use super::Round;
use crate::Result;
use crate::machine::{Pages, busy_neighbour, memory_mib};
use crate::server::{Event, Request, Sampling, ask};
use std::time::Instant;

pub(crate) const N_PROMPT: usize = 145;
pub(crate) const N_TOKENS: u32 = 128;

/// Tokens per second while decoding.
pub(super) fn stream(round: &Round<'_>) -> Result<Vec<f64>> {
    let answer = round.ask_fresh(round.text(N_PROMPT, 0)?, N_TOKENS)?;
    Ok(vec![answer.decode_rate()?])
}

/// Milliseconds to the first token.
pub(super) fn prompt(round: &Round<'_>) -> Result<Vec<f64>> {
    let answer = round.ask_fresh(round.text(1680, 0)?, 1)?;
    Ok(vec![answer.first.as_secs_f64() * 1000.0])
}

/// The same for a request that follows at once when a stream's connection is closed.
pub(super) fn after_a_dropped_stream(round: &Round<'_>) -> Result<Vec<f64>> {
    let dropped = round.text(N_PROMPT, 0)?;
    let next = round.text(10, 1)?;
    let request = Request { prompt: dropped, n_tokens: 512, sampling: Sampling::Greedy };
    let mut stream = round.server.open(&request)?;
    for _ in 0..16 {
        if let Event::End(usage) = stream.next()? {
            return Err(format!("the stream ended before it was dropped: {usage:?}").into());
        }
    }
    drop(stream);
    let answer = round.ask_fresh(next, 16)?;
    Ok(vec![answer.first.as_secs_f64() * 1000.0])
}

/// Tokens per second while decoding what stands in the prompt already.
pub(super) fn repeating(round: &Round<'_>) -> Result<Vec<f64>> {
    let text = round.text(100, 0)?;
    // Twice in full, so that the model goes on with it.
    let beginning: String = text.chars().take(text.len() / 5).collect();
    let prompt = format!("{text}\n\n{text}\n\n{}", beginning.trim_end());
    let answer = round.ask_fresh(prompt, N_TOKENS)?;
    Ok(vec![answer.decode_rate()?])
}

/// Tokens per second while decoding, beside a process that always runs.
pub(super) fn beside_a_neighbour(round: &Round<'_>) -> Result<Vec<f64>> {
    let prompt = round.text(N_PROMPT, 0)?;
    let _neighbour = busy_neighbour()?;
    let answer = round.ask_fresh(prompt, N_TOKENS / 2)?;
    Ok(vec![answer.decode_rate()?])
}

/// Milliseconds from the start of a server to the first token.
pub(super) fn start(round: &Round<'_>) -> Result<Vec<f64>> {
    let prompt = round.text(20, 0)?;
    let started = Instant::now();
    let server = round.server.start_another()?;
    let ready = started.elapsed();
    let answer = ask(&*server, &Request { prompt, n_tokens: 1, sampling: Sampling::Greedy })?;
    Ok(vec![(ready + answer.first).as_secs_f64() * 1000.0])
}

/// Milliseconds from the start of a daemon to an answer, and its memory then, the program's code included, which it
/// shares with the other daemon.
pub(super) fn empty(round: &Round<'_>) -> Result<Vec<f64>> {
    let started = Instant::now();
    let server = round.server.start_another()?;
    let pids = server.pids()?;
    let answered = started.elapsed();
    Ok(vec![answered.as_secs_f64() * 1000.0, memory_mib(&pids, Pages::Resident)?])
}
