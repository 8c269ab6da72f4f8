//! Picking the next token from logits.
//!
//! The order is llama.cpp's: penalties, top-k, top-p, min-p, then temperature. Exact, and without sorting the
//! vocabulary: the few candidates that can win are gathered in one pass with a rising floor. Equal logits are ordered by
//! token number, so a seed gives the same choices on every machine that computes the same logits.

use hearth_abi::raw::Token;
use rand_core::Rng;
use rand_core::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;
use std::cmp::Ordering;
use std::collections::{HashMap, VecDeque};

/// How tokens are chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// 0 always takes the likeliest token.
    pub temperature: f32,
    /// Only the likeliest; 0 means all.
    pub top_k: u32,
    /// Only the likeliest that together reach this; 1 means all.
    pub top_p: f32,
    /// Only those at least this likely, relative to the likeliest; 0 means all.
    pub min_p: f32,
    /// Divides, or below zero multiplies, the logits of recent tokens; 1 does nothing.
    pub repeat_penalty: f32,
    /// How many recent tokens the penalties look at.
    pub repeat_last_n: u32,
    /// Taken off the logit of every recent token.
    pub presence_penalty: f32,
    /// Taken off the logit of a recent token for each time it occurred.
    pub frequency_penalty: f32,
    /// Same seed, same choices.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.9,
            min_p: 0.0,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: 0,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Candidate {
    logit: f32,
    token: Token,
}

impl Candidate {
    /// Likeliest first, then the smaller number.
    fn before(&self, other: &Self) -> Ordering {
        other.logit.total_cmp(&self.logit).then(self.token.cmp(&other.token))
    }
}

/// The state of one sequence's choices.
#[derive(Debug)]
pub(crate) struct Sampler {
    sampling: Sampling,
    rng: Xoshiro256PlusPlus,
    recent: VecDeque<Token>,
    counts: HashMap<Token, u32>,
    candidates: Vec<Candidate>,
}

impl Sampler {
    pub(crate) fn new(sampling: Sampling, prompt: &[Token]) -> Self {
        let rng = Xoshiro256PlusPlus::seed_from_u64(sampling.seed);
        let mut sampler = Self {
            sampling,
            rng,
            recent: VecDeque::new(),
            counts: HashMap::new(),
            candidates: Vec::new(),
        };
        let first = prompt.len().saturating_sub(sampler.sampling.repeat_last_n as usize);
        prompt[first..].iter().for_each(|token| sampler.accept(*token));
        sampler
    }

    /// Changes the logits of recent tokens. Called once for each new set of logits, before `pick`.
    pub(crate) fn penalize(&self, logits: &mut [f32]) {
        let Sampling { repeat_penalty, presence_penalty, frequency_penalty, .. } = self.sampling;
        #[allow(clippy::float_cmp)] // Exactly these values mean off.
        if repeat_penalty == 1.0 && presence_penalty == 0.0 && frequency_penalty == 0.0 {
            return;
        }
        for (token, count) in &self.counts {
            let Some(logit) = usize::try_from(*token).ok().and_then(|token| logits.get_mut(token))
            else {
                continue;
            };
            if *logit > 0.0 {
                *logit /= repeat_penalty;
            } else {
                *logit *= repeat_penalty;
            }
            #[allow(clippy::cast_precision_loss)] // At most repeat_last_n.
            let count = *count as f32;
            *logit -= presence_penalty + frequency_penalty * count;
        }
    }

    /// The next token; `None` if every logit is minus infinity or not a number.
    pub(crate) fn pick(&mut self, logits: &[f32]) -> Option<Token> {
        if self.sampling.temperature <= 0.0 {
            return argmax(logits);
        }
        let best = logits[usize::try_from(argmax(logits)?).ok()?];
        let top_k = self.sampling.top_k as usize;
        let open = top_k == 0 || top_k >= logits.len();
        if open && self.sampling.top_p >= 1.0 && self.sampling.min_p <= 0.0 {
            return self.pick_from_all(logits, best);
        }
        if !open {
            self.gather(logits, top_k);
        } else if self.sampling.top_p < 1.0 {
            self.gather_mass(logits, best);
        } else {
            self.gather_above(logits, best + self.sampling.min_p.ln());
        }
        self.cut_top_p(logits, best, open);
        self.cut_min_p(best);
        self.pick_from_candidates(best)
    }

    /// Remembers a token for the penalties.
    pub(crate) fn accept(&mut self, token: Token) {
        let last_n = self.sampling.repeat_last_n as usize;
        if last_n == 0 {
            return;
        }
        if self.recent.len() == last_n
            && let Some(old) = self.recent.pop_front()
            && let Some(count) = self.counts.get_mut(&old)
        {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&old);
            }
        }
        self.recent.push_back(token);
        *self.counts.entry(token).or_insert(0) += 1;
    }

    /// The `k` likeliest, sorted.
    fn gather(&mut self, logits: &[f32], k: usize) {
        // Sixteen logits at a time are compared with the floor, which the compiler turns into vector code; nearly all
        // blocks end there. The list is cut back when it has grown to `room`.
        const BLOCK: usize = 16;
        let room = k.max(32) * 4;
        let mut floor = f32::NEG_INFINITY;
        self.candidates.clear();
        for (block_idx, block) in logits.chunks(BLOCK).enumerate() {
            if !block.iter().fold(false, |any, logit| any | (*logit > floor)) {
                continue;
            }
            for (offset, logit) in block.iter().enumerate() {
                if *logit > floor {
                    self.candidates.push(Candidate {
                        logit: *logit,
                        token: token_of(block_idx * BLOCK + offset),
                    });
                }
            }
            if self.candidates.len() >= room {
                floor = self.keep_best(k);
            }
        }
        if self.candidates.len() > k {
            self.keep_best(k);
        }
        self.candidates.sort_unstable_by(Candidate::before);
    }

    fn keep_best(&mut self, k: usize) -> f32 {
        let (_, last, _) = self.candidates.select_nth_unstable_by(k - 1, Candidate::before);
        let floor = last.logit;
        self.candidates.truncate(k);
        floor
    }

    /// All above a floor, sorted.
    fn gather_above(&mut self, logits: &[f32], floor: f32) {
        self.candidates.clear();
        let above = logits.iter().enumerate().filter(|(_, logit)| **logit >= floor);
        self.candidates
            .extend(above.map(|(idx, logit)| Candidate { logit: *logit, token: token_of(idx) }));
        self.candidates.sort_unstable_by(Candidate::before);
    }

    /// Enough of the likeliest to hold `top_p` of all probability, sorted.
    fn gather_mass(&mut self, logits: &[f32], best: f32) {
        let wanted = f64::from(self.sampling.top_p) * mass(logits, best);
        let mut k = 128;
        loop {
            self.gather(logits, k.min(logits.len()));
            let held: f64 =
                self.candidates.iter().map(|candidate| weight(candidate.logit, best, 1.0)).sum();
            if held >= wanted || k >= logits.len() {
                return;
            }
            k *= 8;
        }
    }

    fn cut_top_p(&mut self, logits: &[f32], best: f32, open: bool) {
        if self.sampling.top_p >= 1.0 {
            return;
        }
        // Probabilities are relative to what top-k left.
        let total = if open {
            mass(logits, best)
        } else {
            self.candidates.iter().map(|candidate| weight(candidate.logit, best, 1.0)).sum()
        };
        let wanted = f64::from(self.sampling.top_p) * total;
        let mut held = 0.0;
        let keep = self.candidates.iter().position(|candidate| {
            held += weight(candidate.logit, best, 1.0);
            held >= wanted
        });
        if let Some(last) = keep {
            self.candidates.truncate(last + 1);
        }
    }

    fn cut_min_p(&mut self, best: f32) {
        if self.sampling.min_p > 0.0 {
            let floor = best + self.sampling.min_p.ln();
            let keep = self.candidates.partition_point(|candidate| candidate.logit >= floor).max(1);
            self.candidates.truncate(keep);
        }
    }

    fn pick_from_candidates(&mut self, best: f32) -> Option<Token> {
        let temperature = self.sampling.temperature;
        let total: f64 = self
            .candidates
            .iter()
            .map(|candidate| weight(candidate.logit, best, temperature))
            .sum();
        let mut left = self.uniform() * total;
        for candidate in &self.candidates {
            left -= weight(candidate.logit, best, temperature);
            if left < 0.0 {
                return Some(candidate.token);
            }
        }
        self.candidates.first().map(|candidate| candidate.token)
    }

    fn pick_from_all(&mut self, logits: &[f32], best: f32) -> Option<Token> {
        let temperature = self.sampling.temperature;
        let total: f64 = logits.iter().map(|logit| weight(*logit, best, temperature)).sum();
        let mut left = self.uniform() * total;
        for (idx, logit) in logits.iter().enumerate() {
            left -= weight(*logit, best, temperature);
            if left < 0.0 {
                return Some(token_of(idx));
            }
        }
        argmax(logits)
    }

    /// In `[0, 1)`, from 53 random bits.
    #[allow(clippy::cast_precision_loss)] // 53 bits fit an f64 exactly.
    fn uniform(&mut self) -> f64 {
        (self.rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Not normalised; 0 for a logit that is not a number.
fn weight(logit: f32, best: f32, temperature: f32) -> f64 {
    if logit.is_nan() { 0.0 } else { f64::from((logit - best) / temperature).exp() }
}

fn mass(logits: &[f32], best: f32) -> f64 {
    logits.iter().map(|logit| weight(*logit, best, 1.0)).sum()
}

fn argmax(logits: &[f32]) -> Option<Token> {
    let mut best: Option<(usize, f32)> = None;
    for (idx, logit) in logits.iter().enumerate() {
        if *logit > best.map_or(f32::NEG_INFINITY, |(_, logit)| logit) {
            best = Some((idx, *logit));
        }
    }
    best.map(|(idx, _)| token_of(idx))
}

fn token_of(idx: usize) -> Token {
    Token::try_from(idx).unwrap_or(Token::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn logits() -> impl Strategy<Value = Vec<f32>> {
        prop::collection::vec(
            prop_oneof![8 => -20.0_f32..20.0, 1 => Just(f32::NEG_INFINITY), 1 => Just(3.0)],
            1..400,
        )
    }

    /// The same rules, written down the slow and plain way: which tokens may be picked.
    fn allowed(sampling: &Sampling, logits: &[f32]) -> Vec<Token> {
        let mut all: Vec<Candidate> = logits
            .iter()
            .enumerate()
            .map(|(idx, logit)| Candidate { logit: *logit, token: token_of(idx) })
            .collect();
        all.sort_by(Candidate::before);
        let best = all[0].logit;
        if sampling.top_k > 0 {
            all.truncate(sampling.top_k as usize);
        }
        let total: f64 = all.iter().map(|c| f64::from(c.logit - best).exp()).sum();
        let mut held = 0.0;
        let mut kept = Vec::new();
        for candidate in all {
            let full = held >= f64::from(sampling.top_p) * total && sampling.top_p < 1.0;
            if full || (sampling.min_p > 0.0 && candidate.logit < best + sampling.min_p.ln()) {
                break;
            }
            held += f64::from(candidate.logit - best).exp();
            if candidate.logit > f32::NEG_INFINITY {
                kept.push(candidate.token);
            }
        }
        kept
    }

    proptest! {
        #[test]
        fn only_allowed_tokens_are_picked(
            logits in logits(),
            top_k in prop_oneof![Just(0_u32), 1_u32..500],
            top_p in prop_oneof![Just(1.0_f32), 0.05_f32..1.0],
            min_p in prop_oneof![Just(0.0_f32), 0.01_f32..1.0],
            seed: u64,
        ) {
            prop_assume!(argmax(&logits).is_some());
            let sampling = Sampling { temperature: 1.5, top_k, top_p, min_p, seed, ..Sampling::default() };
            let allowed = allowed(&sampling, &logits);
            let mut sampler = Sampler::new(sampling, &[]);
            for _ in 0..20 {
                let token = sampler.pick(&logits).unwrap();
                prop_assert!(allowed.contains(&token), "{token} not in {allowed:?}");
            }
        }

        #[test]
        fn temperature_zero_takes_the_first_of_the_likeliest(logits in logits()) {
            let mut sampler = Sampler::new(Sampling { temperature: 0.0, ..Sampling::default() }, &[]);
            let expected = logits.iter().enumerate().rev().filter(|(_, l)| **l > f32::NEG_INFINITY)
                .max_by(|a, b| a.1.total_cmp(b.1)).map(|(idx, _)| token_of(idx));
            prop_assert_eq!(sampler.pick(&logits), expected);
        }
    }

    /// Chi-square of 20,000 picks against the exact distribution, with a bound that a right sampler misses once in 10^6
    /// seeds; the seed is fixed.
    fn distribution_fits(sampling: Sampling) {
        const PICKS: u32 = 20_000;
        let logits = [1.0_f32, 0.5, 0.0, -0.5, 2.0, -1.0, 0.25, 1.5];
        let allowed = allowed(&sampling, &logits);
        let weights: Vec<f64> = allowed
            .iter()
            .map(|token| {
                f64::from(logits[usize::try_from(*token).unwrap()] / sampling.temperature).exp()
            })
            .collect();
        let total: f64 = weights.iter().sum();
        let mut sampler = Sampler::new(sampling, &[]);
        let mut counts = HashMap::new();
        for _ in 0..PICKS {
            *counts.entry(sampler.pick(&logits).unwrap()).or_insert(0_u32) += 1;
        }
        let chi_square: f64 = allowed
            .iter()
            .zip(&weights)
            .map(|(token, weight)| {
                let expected = weight / total * f64::from(PICKS);
                let seen = f64::from(counts.get(token).copied().unwrap_or(0));
                (seen - expected).powi(2) / expected
            })
            .sum();
        assert!(chi_square < 42.0, "chi-square is {chi_square}");
    }

    #[test]
    fn picks_follow_the_distribution() {
        let base =
            Sampling { temperature: 0.7, top_k: 0, top_p: 1.0, seed: 7, ..Sampling::default() };
        distribution_fits(base.clone());
        distribution_fits(Sampling { top_k: 5, ..base.clone() });
        distribution_fits(Sampling { top_p: 0.8, ..base.clone() });
        distribution_fits(Sampling { min_p: 0.2, ..base });
    }

    #[test]
    fn penalties_change_recent_tokens_only_and_forget_old_ones() {
        let sampling = Sampling {
            repeat_penalty: 2.0,
            presence_penalty: 0.5,
            frequency_penalty: 0.25,
            repeat_last_n: 3,
            ..Sampling::default()
        };
        let sampler = Sampler::new(sampling, &[0, 1, 1, 2]);
        let mut logits = [4.0, 4.0, -4.0, 4.0];
        sampler.penalize(&mut logits);
        assert_eq!(logits, [4.0, 2.0 - 0.5 - 0.5, -8.0 - 0.5 - 0.25, 4.0]);
    }

    #[test]
    fn nothing_is_picked_from_nothing() {
        let mut sampler = Sampler::new(Sampling::default(), &[]);
        assert_eq!(sampler.pick(&[f32::NEG_INFINITY, f32::NAN]), None);
    }
}
