//! Guessing by layers of the model's own, made to say several tokens ahead (multi-token prediction).
//!
//! The plugin keeps what they need beside each token; here is only whether to ask. A round of guesses, one for each
//! sequence, costs little beside a step, but not nothing: as with the drafts of a smaller model, how long rounds take and
//! how often guesses are right is learned while running, and no more is guessed than is expected to pay.

use super::{Guesser, Plan, Step, best_len, power};
use crate::cache::seq_of;
use crate::pace::Pace;
use crate::scheduler::Share;
use crate::sequence::Sequence;
use hearth_abi::PluginError;
use hearth_abi::raw::{Seq, Token};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Longest row of guesses, whatever the plugin says.
const MAX_GUESSES: usize = 8;
/// The rate of a model of which nothing is known yet.
const FIRST_RATE: f64 = 0.8;
/// Weight of the newest guess in its sequence's rate, and in that of all.
const NEWEST: (f64, f64) = (1.0 / 16.0, 1.0 / 32.0);
/// How far a rate goes back in a step without guesses: a sequence's to that of all, and that to the first.
const FORGET: (f64, f64) = (1.0 / 256.0, 1.0 / 2048.0);

/// What is known of the guesses.
#[derive(Debug)]
pub(crate) struct Heads {
    of: HashMap<u64, Head>,
    n_most: usize,
    /// Of rounds, by the number of sequences.
    pace: Pace,
    /// How many guesses of all sequences were right lately.
    rate: f64,
    /// Those that may get guesses, by their place among the running ones.
    asked: Vec<(usize, f64)>,
    sequences: Vec<Seq>,
    next: Vec<Token>,
    guesses: Vec<Token>,
}

/// The last guesses for one sequence.
#[derive(Debug)]
struct Head {
    rate: f64,
    /// Tokens that were known when they were made.
    n_known: usize,
    guesses: Vec<Token>,
}

impl Guesser for Heads {
    fn guess(
        &mut self,
        running: &mut [Sequence],
        shares: &[Share],
        step: &mut Step<'_>,
    ) -> Result<(), PluginError> {
        self.ask(running, shares, step);
        let len = match self.choose(step) {
            Some(plan) => plan.len,
            // One round tells how long they take.
            None => {
                self.asked.truncate(1);
                self.asked.len()
            }
        };
        if len == 0 {
            self.rate += FORGET.1 * (FIRST_RATE - self.rate);
            return Ok(());
        }
        self.sequences.clear();
        self.next.clear();
        for (idx, _) in &self.asked {
            let sequence = &running[*idx];
            let (Some(slot), Some(next)) = (sequence.slot, sequence.tokens.last()) else {
                continue;
            };
            self.sequences.push(seq_of(slot));
            self.next.push(*next);
        }
        let start = Instant::now();
        step.context.draft(&self.sequences, &self.next, len, &mut self.guesses)?;
        let rounds = u32::try_from(len).unwrap_or(u32::MAX);
        self.pace.observe(self.sequences.len(), start.elapsed() / rounds);
        for ((idx, rate), row) in self.asked.iter().zip(self.guesses.chunks(len)) {
            let sequence = &mut running[*idx];
            let n_guessed = row.iter().take_while(|token| **token >= 0).count();
            let n_guessed = n_guessed.min(step.room(sequence));
            sequence.guess.extend_from_slice(&row[..n_guessed]);
            step.n_tokens += n_guessed;
            step.n_yield += (1..=n_guessed).map(|nth| power(*rate, nth)).sum::<f64>();
            let Some(head) = self.of.get_mut(&sequence.id) else { continue };
            head.n_known = sequence.tokens.len();
            head.guesses.extend_from_slice(&row[..n_guessed]);
        }
        Ok(())
    }

    fn forget(&mut self, id: u64) {
        self.of.remove(&id);
    }

    fn holds_memory(&self) -> bool {
        false
    }

    fn verify_invariants(&self) {
        for head in self.of.values() {
            assert!(head.guesses.len() <= self.n_most, "more was guessed than the plugin can");
        }
    }
}

impl Heads {
    pub(crate) fn new(n_most: usize) -> Self {
        Self {
            of: HashMap::new(),
            n_most: n_most.min(MAX_GUESSES),
            pace: Pace::new(Duration::ZERO),
            rate: FIRST_RATE,
            asked: Vec::new(),
            sequences: Vec::new(),
            next: Vec::new(),
            guesses: Vec::new(),
        }
    }

    /// Those that have no guess yet, the likeliest to be guessed right first.
    fn ask(&mut self, running: &[Sequence], shares: &[Share], step: &Step<'_>) {
        self.asked.clear();
        for share in shares {
            let sequence = &running[share.idx];
            let rate = self.judge(sequence);
            if sequence.guess.is_empty() && step.room(sequence) > 0 {
                self.asked.push((share.idx, rate));
            }
        }
        self.asked.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        self.asked.truncate(step.n_batch - step.n_tokens);
    }

    /// Learns from what came in the place of guesses. Answers how often they are right.
    fn judge(&mut self, sequence: &Sequence) -> f64 {
        let first = Head { rate: self.rate, n_known: 0, guesses: Vec::new() };
        let head = self.of.entry(sequence.id).or_insert(first);
        if head.guesses.is_empty() {
            head.rate += FORGET.0 * (self.rate - head.rate);
        }
        for (guess, came) in head.guesses.drain(..).zip(&sequence.tokens[head.n_known..]) {
            let right = f64::from(u8::from(guess == *came));
            head.rate += NEWEST.0 * (right - head.rate);
            self.rate += NEWEST.1 * (right - self.rate);
            if guess != *came {
                break;
            }
        }
        head.rate
    }

    /// Leaves of those asked the ones to guess for. `None` while nobody knows what a round takes.
    fn choose(&mut self, step: &Step<'_>) -> Option<Plan> {
        let mut best: Option<(usize, Plan)> = None;
        for n in 1..=self.asked.len() {
            let right =
                |len| self.asked[..n].iter().map(|(_, rate)| power(*rate, len)).sum::<f64>();
            let round = self.pace.predict(n)?;
            let rounds = |len: usize| round * f64::from(u32::try_from(len).unwrap_or(u32::MAX));
            let seconds = |len: usize| Some(step.seconds(n * len)? + rounds(len));
            let most = self.n_most.min((step.n_batch - step.n_tokens) / n);
            let plan = best_len(most, step.n_yield, right, seconds)?;
            if best.is_none_or(|(_, best)| plan.is_faster_than(&best)) {
                best = Some((n, plan));
            }
        }
        let (n, plan) = best.unwrap_or((0, Plan { len: 0, n_yield: step.n_yield, seconds: 0.0 }));
        self.asked.truncate(n);
        Some(plan)
    }
}
