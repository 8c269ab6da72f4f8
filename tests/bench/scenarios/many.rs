//! Scenarios with several requests at once, or several talks.

use super::one::{N_PROMPT, N_TOKENS};
use super::{Round, assert_fresh};
use crate::Result;
use crate::server::{Answer, Event, Request, Sampling};
use crate::stats::{median_ms, rate};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, mpsc};
use std::time::{Duration, Instant};

/// Sends all requests together. Also the time until the last has ended.
fn at_once(round: &Round<'_>, requests: &[Request]) -> Result<(Vec<Answer>, Duration)> {
    let ready = Barrier::new(requests.len() + 1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = requests
            .iter()
            .map(|request| {
                scope.spawn(|| {
                    ready.wait();
                    round.ask(request)
                })
            })
            .collect();
        ready.wait();
        let started = Instant::now();
        let answers = threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| "a stream's thread panicked")?)
            .collect::<Result<_>>()?;
        Ok((answers, started.elapsed()))
    })
}

/// Tokens per second of all streams together, and the median of milliseconds to the first token.
pub(super) fn streams(round: &Round<'_>, n_streams: u64) -> Result<Vec<f64>> {
    streams_with(round, n_streams, |_| Sampling::Greedy)
}

/// Tokens per second of 8 streams together.
pub(super) fn sampled(round: &Round<'_>) -> Result<Vec<f64>> {
    // The same seeds for both sides, small enough for any of them.
    let mut figures = streams_with(round, 8, |index| Sampling::Usual {
        seed: u32::try_from((round.seed + index) % 1_000_000).unwrap_or_default(),
    })?;
    figures.truncate(1);
    Ok(figures)
}

fn streams_with(
    round: &Round<'_>,
    n_streams: u64,
    sampling: impl Fn(u64) -> Sampling,
) -> Result<Vec<f64>> {
    let requests = (0..n_streams)
        .map(|index| {
            let prompt = round.text(N_PROMPT, index)?;
            Ok(Request { prompt, n_tokens: N_TOKENS, sampling: sampling(index) })
        })
        .collect::<Result<Vec<_>>>()?;
    let (answers, time) = at_once(round, &requests)?;
    answers.iter().try_for_each(assert_fresh)?;
    let n_generated = answers.iter().map(|answer| answer.usage.n_generated).sum();
    Ok(vec![rate(n_generated, time), median_ms(answers.iter().map(|answer| answer.first))])
}

/// The median of milliseconds to the first token of 8 requests with one beginning.
pub(super) fn one_system_prompt(round: &Round<'_>) -> Result<Vec<f64>> {
    let system = round.text(790, 0)?;
    let requests = (1..=8)
        .map(|index| {
            let prompt = format!("{system}\n\n{}", round.text(20, index)?);
            Ok(Request { prompt, n_tokens: 16, sampling: Sampling::Greedy })
        })
        .collect::<Result<Vec<_>>>()?;
    let (answers, _) = at_once(round, &requests)?;
    Ok(vec![median_ms(answers.iter().map(|answer| answer.first))])
}

/// The longest that a running stream said nothing while a long prompt was computed, and the time to that prompt's first
/// token, in milliseconds.
pub(super) fn long_prompt_beside_streams(round: &Round<'_>) -> Result<Vec<f64>> {
    let long = round.text(1700, N_BESIDE)?;
    beside_streams(round, || round.ask_fresh(long, 1))
}

/// The same for a long talk that goes on, after others have taken its place in the KV memory.
pub(super) fn return_beside_streams(round: &Round<'_>) -> Result<Vec<f64>> {
    let talk = round.text(3000, N_BESIDE)?;
    round.ask_fresh(talk.clone(), 1)?;
    let others = (10..18)
        .map(|index| {
            let prompt = round.text(N_PROMPT, index)?;
            Ok(Request { prompt, n_tokens: N_TOKENS, sampling: Sampling::Greedy })
        })
        .collect::<Result<Vec<_>>>()?;
    at_once(round, &others)?;
    let prompt = format!("{talk}\n\n{}", round.text(24, 20)?);
    beside_streams(round, || {
        round.ask(&Request { prompt, n_tokens: 1, sampling: Sampling::Greedy })
    })
}

/// Streams that run while something else arrives.
const N_BESIDE: u64 = 3;

/// The longest that a running stream said nothing while `ask` waited for an answer, and the time to its first token, in
/// milliseconds.
fn beside_streams(round: &Round<'_>, ask: impl FnOnce() -> Result<Answer>) -> Result<Vec<f64>> {
    let requests = (0..N_BESIDE)
        .map(|index| {
            let prompt = round.text(N_PROMPT, index)?;
            Ok(Request { prompt, n_tokens: 2000, sampling: Sampling::Greedy })
        })
        .collect::<Result<Vec<_>>>()?;

    let over = AtomicBool::new(false);
    let (running, all_running) = mpsc::channel();
    std::thread::scope(|scope| {
        let threads: Vec<_> = requests
            .iter()
            .map(|request| {
                let (running, over) = (running.clone(), &over);
                scope.spawn(move || pieces_until(round, request, &running, over))
            })
            .collect();
        drop(running);
        // Each stream says so once, or its thread has failed, which joining it tells.
        let n_running = all_running.iter().take(threads.len()).count();
        let sent = Instant::now();
        let answer = (n_running == threads.len()).then(ask);
        over.store(true, Ordering::Relaxed);
        let mut worst = Duration::ZERO;
        for thread in threads {
            let pieces = thread.join().map_err(|_| "a stream's thread panicked")??;
            let gaps = pieces.windows(2).filter(|pair| pair[1] >= sent);
            worst = gaps.map(|pair| pair[1] - pair[0]).max().unwrap_or_default().max(worst);
        }
        let answer = answer.ok_or("a stream did not begin")??;
        Ok(vec![worst.as_secs_f64() * 1000.0, answer.first.as_secs_f64() * 1000.0])
    })
}

/// When the pieces of an answer came, up to the first after `over`.
fn pieces_until(
    round: &Round<'_>,
    request: &Request,
    running: &mpsc::Sender<()>,
    over: &AtomicBool,
) -> Result<Vec<Instant>> {
    let mut stream = round.server.open(request)?;
    let mut pieces = Vec::new();
    loop {
        match stream.next()? {
            Event::Text(_) => pieces.push(Instant::now()),
            Event::End(usage) => {
                return Err(
                    format!("a stream ended before what arrived was read: {usage:?}").into()
                );
            }
        }
        if pieces.len() == 8 {
            running.send(())?;
        }
        if over.load(Ordering::Relaxed) {
            return Ok(pieces);
        }
    }
}

/// The median of milliseconds to the first token in turns 2 to 4 of 6 talks, which take turns.
pub(super) fn talks(round: &Round<'_>) -> Result<Vec<f64>> {
    let mut histories =
        (0..6).map(|index| round.text(350, index)).collect::<Result<Vec<String>>>()?;
    let mut times = Vec::new();
    for turn in 1..=4 {
        for (index, history) in (0_u64..).zip(&mut histories) {
            if turn > 1 {
                history.push_str("\n\n");
                history.push_str(&round.text(24, turn * 10 + index)?);
            }
            let answer = round.ask(&Request {
                prompt: history.clone(),
                n_tokens: 32,
                sampling: Sampling::Greedy,
            })?;
            history.push_str(&answer.text);
            if turn > 1 {
                times.push(answer.first);
            }
        }
    }
    Ok(vec![median_ms(times)])
}
