//! Which settings are tried, and which are believed to be better.

use super::measure::{Sample, median};
use crate::config::{Attention, EngineSizes};
use hearth_protocol::{BenchFigures, FlashAttention, KvType, Tuning};

/// A spin that is short beside OpenMP's own of 300,000, and long beside an operation's shortest wait.
const SHORT_SPIN: u32 = 2000;
/// Half and twice the default.
const BATCHES: [u32; 2] = [256, 1024];
/// Settings that are faster by less are not worth being other than the defaults.
const WORTH: f64 = 1.03;

/// Of the KV formats only one that answers hardly worse, with the attention that it needs.
const ATTENTIONS: [Tuning; 2] = [
    Tuning { flash_attention: Some(FlashAttention::Off), ..NONE },
    Tuning { kv_type: Some(KvType::Q8_0), flash_attention: Some(FlashAttention::On), ..NONE },
];
const NONE: Tuning =
    Tuning { threads: None, spin: None, batch: None, kv_type: None, flash_attention: None };

/// What a person has settled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settled<'a> {
    pub(super) engine: &'a EngineSizes,
    pub(super) attention: Attention,
    pub(super) spin: bool,
}

/// What may be changed, one at a time; nothing that the configuration or the environment has settled.
pub(super) fn changes(n_threads: u32, n_processors: u32, settled: &Settled<'_>) -> Vec<Tuning> {
    let Settled { engine, attention, spin } = *settled;
    let mut threads = vec![n_threads / 2, n_threads * 2, n_processors];
    threads.retain(|n| (1..=n_processors).contains(n) && *n != n_threads);
    threads.sort_unstable();
    threads.dedup();
    if engine.threads != 0 {
        threads.clear();
    }
    let spins = (!spin && n_processors > 1).then_some(SHORT_SPIN);
    let batches = BATCHES.into_iter().filter(|_| engine.batch == 0);
    let threads = threads.into_iter().map(|n| Tuning { threads: Some(n), ..NONE });
    let spins = spins.into_iter().map(|n| Tuning { spin: Some(n), ..NONE });
    let batches = batches.map(|n| Tuning { batch: Some(n), ..NONE });
    let attentions = ATTENTIONS.into_iter().filter(|tried| match tried.kv_type {
        None => {
            let needs_flash = matches!(attention.kv_type, Some(KvType::Q8_0 | KvType::Q4_0));
            attention.flash.is_none() && !needs_flash
        }
        Some(_) => attention.kv_type.is_none() && attention.flash != Some(FlashAttention::Off),
    });
    threads.chain(spins).chain(batches).chain(attentions).collect()
}

/// The best so far, with one thing changed.
pub(super) fn changed(best: Tuning, change: Tuning) -> Tuning {
    Tuning {
        threads: change.threads.or(best.threads),
        spin: change.spin.or(best.spin),
        batch: change.batch.or(best.batch),
        kv_type: change.kv_type.or(best.kv_type),
        flash_attention: change.flash_attention.or(best.flash_attention),
    }
}

/// For a person.
pub(super) fn describe(change: Tuning) -> String {
    match change {
        Tuning { threads: Some(1), .. } => "1 thread".into(),
        Tuning { threads: Some(n), .. } => format!("{n} threads"),
        Tuning { spin: Some(n), .. } => format!("spin {n}"),
        Tuning { batch: Some(n), .. } => format!("batch {n}"),
        Tuning { kv_type: Some(KvType::Q8_0), .. } => "KV memory of eight bits".into(),
        Tuning { flash_attention: Some(FlashAttention::Off), .. } => {
            "attention without flash".into()
        }
        Tuning { .. } => "the defaults".into(),
    }
}

/// How the settings that were tried did beside the best ones, round by round.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Verdict {
    pub(super) ratio: f64,
    pub(super) lowest: f64,
    pub(super) highest: f64,
}

impl Verdict {
    /// Each round compares the two within seconds of each other: what changes more slowly on the machine falls out.
    pub(super) fn of(rounds: &[(Sample, Sample)]) -> Self {
        let ratios: Vec<f64> = rounds
            .iter()
            .map(|(best, tried)| score(&tried.figures) / score(&best.figures))
            .collect();
        Self {
            lowest: ratios.iter().copied().fold(f64::INFINITY, f64::min),
            highest: ratios.iter().copied().fold(0.0, f64::max),
            ratio: median(ratios),
        }
    }

    /// Faster in every round, and by more than is worth nothing.
    pub(super) fn is_better(self) -> bool {
        self.lowest > 1.0 && self.ratio >= WORTH
    }
}

/// All rates together: none counts for more because its numbers are larger.
fn score(figures: &BenchFigures) -> f64 {
    (figures.prompt_per_s * figures.stream_per_s * figures.streams_per_s).cbrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(threads: u32, batch: u32) -> EngineSizes {
        EngineSizes {
            context: 4096,
            parallel: 1,
            kept: 0,
            batch,
            queue: 1,
            threads,
            step_ms: 100,
            archive_mib: 0,
            speculate: true,
            attention: Attention::default(),
            stall: None,
        }
    }

    fn described(
        n_threads: u32,
        n_processors: u32,
        engine: &EngineSizes,
        attention: Attention,
        spin: bool,
    ) -> Vec<String> {
        let changes = changes(n_threads, n_processors, &Settled { engine, attention, spin });
        changes.into_iter().map(describe).collect()
    }

    const FORMATS: [&str; 2] = ["attention without flash", "KV memory of eight bits"];

    #[test]
    fn what_may_differ_between_machines_is_tried() {
        let tried = |n_threads, n_processors| {
            described(n_threads, n_processors, &engine(0, 0), Attention::default(), false)
        };
        assert_eq!(tried(2, 2)[..4], ["1 thread", "spin 2000", "batch 256", "batch 1024"]);
        assert_eq!(tried(2, 2)[4..], FORMATS);
        assert_eq!(tried(8, 32)[..3], ["4 threads", "16 threads", "32 threads"]);
        assert_eq!(tried(1, 1)[..2], ["batch 256", "batch 1024"]);
    }

    #[test]
    fn what_a_person_has_settled_is_not_tried() {
        let tried = |kv_type, flash, spin| {
            described(2, 2, &engine(2, 512), Attention { kv_type, flash }, spin)
        };
        let (on, off) = (Some(FlashAttention::On), Some(FlashAttention::Off));
        assert_eq!(tried(Some(KvType::F16), on, false), ["spin 2000"]);
        assert!(tried(Some(KvType::F16), off, true).is_empty());
        // What a person chose must be possible with what is tried.
        assert!(tried(Some(KvType::Q4_0), None, true).is_empty());
        assert!(tried(None, off, true).is_empty());
        assert_eq!(tried(Some(KvType::F32), None, true), FORMATS[..1]);
        assert_eq!(tried(None, on, true), FORMATS[1..]);
    }

    fn sample(prompt: f64, stream: f64, streams: f64) -> Sample {
        let figures = BenchFigures {
            prompt_per_s: prompt,
            first_token_ms: 1.0,
            stream_per_s: stream,
            streams_per_s: streams,
        };
        Sample { figures, prompt_tokens: 1 }
    }

    /// Rounds in which all rates are so many times those of the best before.
    fn rounds(ratios: &[f64]) -> Vec<(Sample, Sample)> {
        let round = |ratio: &f64| {
            (sample(900.0, 100.0, 200.0), sample(900.0 * ratio, 100.0 * ratio, 200.0 * ratio))
        };
        ratios.iter().map(round).collect()
    }

    #[test]
    fn better_is_what_is_faster_in_every_round_by_more_than_a_little() {
        assert!(Verdict::of(&rounds(&[1.2, 1.05, 1.3])).is_better());
        assert!(!Verdict::of(&rounds(&[1.3, 0.99, 1.3])).is_better());
        assert!(!Verdict::of(&rounds(&[1.01, 1.02, 1.01])).is_better());
    }

    #[test]
    fn rates_weigh_the_same() {
        let halved = [(sample(900.0, 100.0, 200.0), sample(450.0, 200.0, 200.0))];
        let verdict = Verdict::of(&halved);
        assert!((verdict.ratio - 1.0).abs() < 1e-9, "{verdict:?}");
    }

    #[test]
    fn one_thing_changes_and_the_rest_stays() {
        let best = changed(Tuning::default(), Tuning { threads: Some(1), ..Tuning::default() });
        let next = changed(best, Tuning { batch: Some(256), ..Tuning::default() });
        assert_eq!(next, Tuning { threads: Some(1), batch: Some(256), ..NONE });
    }
}
