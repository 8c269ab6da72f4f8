//! Guessing what running answers go on with, so that one step puts several tokens to the test.
//!
//! A [`Guesser`] proposes; the step computes the proposals behind the token it has to compute anyway, and each is emitted only
//! if it is what the sampler then chooses. So guesses change no answer, only how many steps it takes, and a guesser weighs
//! by [`best_len`] whether a longer step is worth it. What one sequence's guesses are made of comes from its own tokens alone.

mod draft;
mod heads;
mod lookup;
mod memory;
mod rule;
mod vocabulary;

pub use draft::DraftError;
pub(crate) use draft::Drafter;
pub(crate) use heads::Heads;
pub(crate) use lookup::Lookups;
pub(crate) use rule::Rules;

use crate::pace::Pace;
use crate::scheduler::Share;
use crate::sequence::Sequence;
use hearth_abi::PluginError;
use hearth_abi::host::Context;
use std::fmt::Debug;

/// A source of guesses.
pub(crate) trait Guesser: Debug + Send {
    /// Fills in [`Sequence::guess`] for those of the shares whose sequence has none yet, as far as that pays. Each share is one
    /// token of an answer.
    fn guess(
        &mut self,
        running: &mut [Sequence],
        shares: &[Share],
        step: &mut Step<'_>,
    ) -> Result<(), PluginError>;

    /// A sequence has ended, or has other tokens now.
    fn forget(&mut self, id: u64);

    /// It could give memory back, if it were dropped.
    fn holds_memory(&self) -> bool;

    /// Panics if its books do not agree with each other.
    fn verify_invariants(&self);
}

/// The step that guesses are for.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    /// What computes it.
    pub(crate) context: &'a mut Context,
    pub(crate) pace: &'a Pace,
    /// Threads that compute it.
    pub(crate) n_threads: u32,
    /// Most tokens in it.
    pub(crate) n_batch: usize,
    /// Tokens in it so far, guessed ones included.
    pub(crate) n_tokens: usize,
    /// Tokens of answers that are expected of it.
    pub(crate) n_yield: f64,
}

impl Step<'_> {
    /// Seconds that it will take with so many tokens more. No more than a larger step: while all are large, what is known of
    /// small ones may be of a time when a neighbour was busy, and would go on to speak for guessing.
    fn seconds(&self, n_more: usize) -> Option<f64> {
        let sizes = (0..=4).map(|doublings| (self.n_tokens + n_more) << doublings);
        sizes.filter_map(|n_tokens| self.pace.predict(n_tokens)).reduce(f64::min)
    }

    /// Seconds that so many tokens more cost.
    fn cost(&self, n_more: usize) -> f64 {
        let seconds = self.seconds(n_more).zip(self.seconds(0));
        seconds.map_or(f64::INFINITY, |(with, without)| (with - without).max(0.0))
    }

    /// Most tokens to guess for a sequence.
    fn room(&self, sequence: &Sequence) -> usize {
        // One more comes of the step in any case.
        let wanted = sequence.n_left().saturating_sub(1);
        if sequence.n_generated() == 0 { 0 } else { wanted.min(self.n_batch - self.n_tokens) }
    }

    /// Takes in as many of one sequence's guesses as are worth it, if each is right so often, and says how many.
    fn admit(&mut self, n_most: usize, rate: f64) -> usize {
        let right = |n| power(rate, n);
        let plan = best_len(n_most, self.n_yield, right, |n| self.seconds(n));
        let Some(plan) = plan.filter(|plan| plan.len > 0) else { return 0 };
        self.n_tokens += plan.len;
        self.n_yield = plan.n_yield;
        plan.len
    }
}

/// What a step becomes by guessing.
#[derive(Debug, Clone, Copy)]
struct Plan {
    /// Tokens guessed for each sequence.
    len: usize,
    n_yield: f64,
    seconds: f64,
}

impl Plan {
    fn is_faster_than(&self, other: &Self) -> bool {
        self.n_yield * other.seconds > other.n_yield * self.seconds
    }
}

/// How many tokens to guess for each of some sequences, at most `most`, so that most tokens come in the time. `right` tells how
/// many of the guesses in the n-th place will be right together with all before them, `seconds` how long the step takes
/// with so many for each. `None` while no times are known.
fn best_len(
    most: usize,
    n_yield: f64,
    right: impl Fn(usize) -> f64,
    seconds: impl Fn(usize) -> Option<f64>,
) -> Option<Plan> {
    let mut best = Plan { len: 0, n_yield, seconds: seconds(0)? };
    let mut n_yield = n_yield;
    for len in 1..=most {
        n_yield += right(len);
        let plan = Plan { len, n_yield, seconds: seconds(len)? };
        if plan.is_faster_than(&best) {
            best = plan;
        }
    }
    Some(best)
}

/// `rate` to the power of a small number.
fn power(rate: f64, n: usize) -> f64 {
    rate.powi(i32::try_from(n).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_are_used_only_where_they_pay() {
        let len = |rate: f64, seconds: &dyn Fn(usize) -> Option<f64>| {
            best_len(16, 1.0, |n| power(rate, n), seconds).map(|plan| plan.len)
        };
        let float = |n: usize| f64::from(u32::try_from(n).unwrap());
        // Reading the model dominates: more tokens are nearly free.
        let cheap = |n: usize| Some(10.0 + 0.1 * float(n));
        // Computing dominates: each token costs what the whole step did.
        let dear = |n: usize| Some(10.0 * float(n + 1));
        assert_eq!(len(0.95, &cheap), Some(16));
        assert!(len(0.2, &cheap) <= Some(3));
        assert_eq!(len(0.95, &dear), Some(0));
        assert_eq!(len(0.9, &|_| None), None);
    }
}
