//! Log probabilities, for callers that ask.
//!
//! They are of the model's own distribution: the softmax of its logits before biases, penalties, temperature, truncation
//! and constraints, as llama-server answers. So they say what the model thought of a token, and of what it was kept from
//! saying.

use super::truncate::{Candidate, likeliest};
use super::vector;
use hearth_abi::raw::Token;

/// Log probabilities, natural, at one place of an answer. Minus infinity is told as -9999.
#[derive(Debug, Clone, PartialEq)]
pub struct Logprobs {
    /// The chosen token.
    pub token: Token,
    /// Its log probability.
    pub logprob: f32,
    /// The likeliest tokens, likeliest first, whether or not the chosen one is among them.
    pub likeliest: Vec<(Token, f32)>,
}

/// The logits as the model gave them.
#[derive(Debug, Clone)]
pub(super) struct Raw {
    n_top: usize,
    logits: Vec<f32>,
    list: Vec<Candidate>,
}

impl Raw {
    pub(super) fn new(n_top: u32) -> Self {
        Self { n_top: n_top as usize, logits: Vec::new(), list: Vec::new() }
    }

    pub(super) fn keep(&mut self, logits: &[f32]) {
        self.logits.clear();
        self.logits.extend_from_slice(logits);
    }

    pub(super) fn of(&mut self, token: Token) -> Logprobs {
        let best = vector::argmax(&self.logits).map_or(0.0, |idx| self.logits[idx]);
        let ln_mass = vector::mass(&self.logits, best, 1.0, f32::NEG_INFINITY).ln();
        let logprob = |logit: f32| {
            #[allow(clippy::cast_possible_truncation)] // A logarithm of a probability.
            let logprob = (f64::from(logit - best) - ln_mass) as f32;
            if logprob.is_finite() { logprob.min(0.0) } else { -9999.0 }
        };
        self.list.clear();
        if self.n_top > 0 {
            likeliest(&self.logits, self.n_top, &mut self.list);
            self.list.sort_unstable_by(Candidate::before);
        }
        let chosen = usize::try_from(token).ok().and_then(|idx| self.logits.get(idx));
        Logprobs {
            token,
            logprob: logprob(chosen.copied().unwrap_or(f32::NEG_INFINITY)),
            likeliest: self
                .list
                .iter()
                .map(|candidate| (candidate.token, logprob(candidate.logit)))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn as_a_plain_softmax(
            logits in prop::collection::vec(prop_oneof![9 => -30.0_f32..30.0, 1 => Just(f32::NEG_INFINITY)], 1..900),
            n_top in 0_u32..25,
            chosen: prop::sample::Index,
        ) {
            prop_assume!(logits.iter().any(|logit| logit.is_finite()));
            let token = super::super::token_of(chosen.index(logits.len()));
            let mut raw = Raw::new(n_top);
            raw.keep(&logits);
            let seen = raw.of(token);

            let total: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
            let plain = |logit: f32| if logit.is_finite() { f64::from(logit) - total.ln() } else { -9999.0 };
            let near = |seen: f32, logit: f32| (f64::from(seen) - plain(logit)).abs() < 1e-4;
            prop_assert_eq!(seen.token, token);
            prop_assert!(near(seen.logprob, logits[chosen.index(logits.len())]));
            let mut sorted: Vec<(Token, f32)> = (0..).zip(logits).filter(|(_, logit)| logit.is_finite()).collect();
            sorted.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            sorted.truncate(n_top as usize);
            prop_assert_eq!(seen.likeliest.len(), sorted.len());
            for (seen, wanted) in seen.likeliest.iter().zip(&sorted) {
                prop_assert!(seen.0 == wanted.0 && near(seen.1, wanted.1));
            }
        }
    }
}
