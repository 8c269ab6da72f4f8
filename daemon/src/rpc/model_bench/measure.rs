//! One model's speed: a request alone, then several at once, all with texts that nothing remembers.

use super::super::jobs::{loading, unexpected};
use super::super::work::Request;
use crate::worker::frames::{Job, Reply, WorkerEvent};
use hearth_protocol::{BenchFigures, ErrorKind, GenerateParams, GenerateReply, Options, RpcError};
use hearth_store::ResolvedModel;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Instant;

/// Answers at once.
pub(super) const N_STREAMS: u32 = 4;
/// Words of the prompt of the request alone; each of several has a quarter of them.
const N_WORDS: u32 = 256;
/// Tokens of its answer; each of several has half as many.
const N_TOKENS: u32 = 64;
/// So many prompts are tried where a model ends its answers at once.
const ATTEMPTS: u32 = 4;

const WORDS: [&str; 16] = [
    "river", "stone", "window", "garden", "music", "paper", "winter", "orange", "engine", "forest",
    "silver", "market", "teacher", "island", "bridge", "candle",
];

/// Whom the measuring requests go to.
pub(super) struct Subject<'a> {
    pub(super) request: &'a Request,
    pub(super) model: &'a ResolvedModel,
}

/// What one measurement found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) figures: BenchFigures,
    pub(super) prompt_tokens: u32,
}

impl Subject<'_> {
    /// Makes the first steps after a load, which are slow.
    pub(super) async fn warm_up(&self) -> Result<(), RpcError> {
        self.ask(0, N_WORDS / 4, 4).await.map(drop)
    }

    /// The texts are the same for the same number, and no two numbers of one worker should be.
    pub(super) async fn measure(&self, number: u32) -> Result<Sample, RpcError> {
        let first_text = 1 + number * (ATTEMPTS + N_STREAMS);
        let alone = self.ask_alone(first_text).await?;
        let since = Instant::now();
        let one = |n: u32| self.ask(first_text + ATTEMPTS + n, N_WORDS / 4, N_TOKENS / 2);
        let (a, b, c, d) = tokio::try_join!(one(0), one(1), one(2), one(3))?;
        let seconds = since.elapsed().as_secs_f64();
        let n_tokens = [a, b, c, d].map(|reply| f64::from(reply.usage.completion_tokens));
        let (usage, timings) = (alone.usage, alone.timings);
        let computed = usage.prompt_tokens - usage.cached_tokens;
        let figures = BenchFigures {
            prompt_per_s: f64::from(computed) / seconds_of(timings.prefill_us),
            first_token_ms: seconds_of(timings.queue_us + timings.prefill_us) * 1000.0,
            stream_per_s: f64::from(usage.completion_tokens - 1) / seconds_of(timings.decode_us),
            streams_per_s: n_tokens.iter().sum::<f64>() / seconds,
        };
        Ok(Sample { figures, prompt_tokens: usage.prompt_tokens })
    }

    async fn ask_alone(&self, first_text: u32) -> Result<GenerateReply, RpcError> {
        for attempt in 0..ATTEMPTS {
            let reply = self.ask(first_text + attempt, N_WORDS, N_TOKENS).await?;
            if reply.usage.completion_tokens > 1 {
                return Ok(reply);
            }
        }
        Err(RpcError::new(
            ErrorKind::BadModel,
            format!(
                "`{}` ends every answer at once, so there is nothing to measure",
                self.model.name
            ),
        )
        .with_hint("a model that writes text can be measured"))
    }

    async fn ask(&self, text: u32, n_words: u32, n_tokens: u32) -> Result<GenerateReply, RpcError> {
        let Request { daemon, caller, .. } = self.request;
        let lease = daemon.supervisor.worker(self.model, Ok(None), None).await?;
        let mut state = lease.worker().state();
        while loading(&mut state).await?.is_some() {}
        let params = GenerateParams {
            model: self.model.name.to_string(),
            prompt: prompt(text, n_words),
            images: Vec::new(),
            suffix: None,
            raw: false,
            format: None,
            options: Options {
                temperature: Some(0.0),
                max_tokens: Some(n_tokens),
                ..Options::default()
            },
            keep_alive: None,
            request: None,
            timeout_ms: None,
        };
        let ticket = lease.submit(caller.uid, 0, Job::Generate(Box::new(params)));
        loop {
            match ticket.next().await {
                WorkerEvent::Done(reply) => {
                    let Reply::Generate(reply) = *reply else { return Err(unexpected()) };
                    return Ok(reply);
                }
                WorkerEvent::Failed(error) => return Err(error),
                _ => {}
            }
        }
    }
}

fn prompt(text: u32, n_words: u32) -> String {
    let word = |n: u32| {
        let mut hasher = DefaultHasher::new();
        (text, n).hash(&mut hasher);
        WORDS[usize::try_from(hasher.finish() % 16).unwrap_or(0)]
    };
    // The number first: no two texts begin alike.
    (0..n_words).fold(text.to_string(), |text, n| text + " " + word(n))
}

fn seconds_of(micros: u64) -> f64 {
    std::time::Duration::from_micros(micros.max(1)).as_secs_f64()
}

/// Of each figure by itself.
pub(super) fn medians(samples: &[Sample]) -> BenchFigures {
    let of = |figure: fn(&BenchFigures) -> f64| {
        median(samples.iter().map(|sample| figure(&sample.figures)).collect())
    };
    BenchFigures {
        prompt_per_s: of(|figures| figures.prompt_per_s),
        first_token_ms: of(|figures| figures.first_token_ms),
        stream_per_s: of(|figures| figures.stream_per_s),
        streams_per_s: of(|figures| figures.streams_per_s),
    }
}

pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_the_same_again_and_begin_differently() {
        assert_eq!(prompt(3, 20), prompt(3, 20));
        assert_ne!(prompt(3, 1)[..1], prompt(4, 1)[..1]);
        assert_eq!(prompt(3, 20).split(' ').count(), 21);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
