//! Mirostat 1 and 2: instead of cutting the distribution at a fixed place, cut it where the answer's surprise stays near
//! a target.
//!
//! Both keep `mu`, the most surprise that is allowed, and move it by how far each chosen token's surprise is from the
//! target. A surprise is in bits, among what the cut left.

use super::truncate::{Candidate, between, likeliest};
use super::vector;
use hearth_abi::raw::Token;

/// The target and how fast it is followed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mirostat {
    /// Which of the two algorithms.
    pub version: MirostatVersion,
    /// The surprise per token to aim at, in bits.
    pub tau: f32,
    /// Which part of each miss is corrected.
    pub eta: f32,
}

/// Which of the two algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MirostatVersion {
    /// Estimates how steep the distribution is from its likeliest tokens, and from that how many to keep.
    One,
    /// Keeps the tokens that surprise at most by `mu`.
    Two,
}

#[derive(Debug, Clone)]
pub(super) struct State {
    mirostat: Mirostat,
    pub(super) mu: f32,
    /// What was drawn last, and its surprise.
    drawn: Option<(Token, f32)>,
}

impl State {
    pub(super) fn new(mirostat: Mirostat) -> Self {
        Self { mirostat, mu: 2.0 * mirostat.tau, drawn: None }
    }

    /// Fills the list with what may be chosen. `scale` is one by the temperature.
    pub(super) fn truncate(
        &self,
        logits: &[f32],
        best: f32,
        scale: f32,
        list: &mut Vec<Candidate>,
    ) {
        match self.mirostat.version {
            MirostatVersion::One => {
                const LOOKED_AT: usize = 100;
                likeliest(logits, LOOKED_AT, list);
                list.sort_unstable_by(Candidate::before);
                let k = estimated_k(list, scale, self.mu, logits.len());
                if k > list.len() {
                    likeliest(logits, k.min(logits.len()), list);
                } else {
                    list.truncate(k);
                }
            }
            MirostatVersion::Two => {
                let ln_mass = vector::mass(logits, best, scale, f32::NEG_INFINITY).ln();
                let ln_least = ln_mass - f64::from(self.mu) * std::f64::consts::LN_2;
                #[allow(clippy::cast_possible_truncation)] // Compared with f32.
                let floor = (f64::from(best) + ln_least / f64::from(scale)) as f32;
                between(logits, floor.min(best), f32::INFINITY, list);
            }
        }
    }

    pub(super) fn drew(&mut self, token: Token, probability: f64) {
        #[allow(clippy::cast_possible_truncation)] // A few bits.
        let surprise = -probability.log2() as f32;
        self.drawn = Some((token, surprise));
    }

    /// Learns from the token that was drawn. Of a token that something else chose, the surprise is not known.
    pub(super) fn accept(&mut self, token: Token) {
        if let Some((_, surprise)) = self.drawn.take().filter(|(drawn, _)| *drawn == token) {
            self.mu -= self.mirostat.eta * (surprise - self.mirostat.tau);
        }
    }
}

/// How many of the likeliest tokens hold a Zipf distribution, fitted to these, below a surprise of `mu`.
fn estimated_k(sorted: &[Candidate], scale: f32, mu: f32, n_vocab: usize) -> usize {
    let (mut products, mut squares) = (0.0_f64, 0.0_f64);
    for (rank, pair) in (1_u32..).zip(sorted.windows(2)) {
        let steps = (f64::from(rank + 1) / f64::from(rank)).ln();
        products += steps * f64::from((pair[0].logit - pair[1].logit) * scale);
        squares += steps * steps;
    }
    let exponent = products / squares;
    let epsilon = exponent - 1.0;
    #[allow(clippy::cast_precision_loss)] // A vocabulary is far below 2^53.
    let n_vocab = n_vocab as f64;
    let k = (epsilon * f64::from(mu).exp2() / (1.0 - n_vocab.powf(-epsilon))).powf(1.0 / exponent);
    // Not a number, of distributions that fit no Zipf, becomes 0 and so 1.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Saturates.
    let k = k as usize;
    k.max(1)
}
