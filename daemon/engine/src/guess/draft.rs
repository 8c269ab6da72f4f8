//! Guessing by a smaller model with the same vocabulary.
//!
//! Unlike a lookup its guesses cost time, and before the first of a sequence it must read all of that. So it weighs: a
//! sequence is read once what guessing would have saved until now would have paid for the reading, bit by bit so that no
//! stream waits long, and a round of guesses is made if what it is expected to save is more than its own time and that
//! of the longer step. Both are learned while running: how often guesses are right, of each sequence and of all, and how long
//! steps take. What is unknown for long is believed in again little by little, and then tried.

use super::memory::Memory;
use super::{Guesser, Plan, Step, best_len, power, vocabulary};
use crate::config::EngineConfig;
use crate::pace::Pace;
use crate::sampler::likeliest;
use crate::scheduler::Share;
use crate::sequence::{Sequence, to_u32};
use hearth_abi::host::Model;
use hearth_abi::raw::Token;
use hearth_abi::{ContextConfig, PluginError};
use std::sync::Arc;

/// Longest draft.
const MAX_DRAFT: usize = 8;
/// The rate of a model of which nothing is known yet: trying one that is bad costs a few rounds, not trying one that is good
/// costs half the speed.
const FIRST_RATE: f64 = 0.9;
/// Weight of the newest guess in its sequence's rate, and in that of all.
const NEWEST: (f64, f64) = (1.0 / 16.0, 1.0 / 32.0);
/// How far a rate goes back in a step without guesses: a sequence's to that of all, and that to the first.
const FORGET: (f64, f64) = (1.0 / 256.0, 1.0 / 2048.0);
/// Tokens that are read on the way to the first guess. More are read before.
const MAX_BEHIND: usize = 4;
/// Part of a step's target that reading may take, if that is enough for so many tokens.
const READING: f64 = 0.25;
const MIN_READ: usize = 16;
/// Sizes of the steps that are measured at first.
const PROBES: [usize; 4] = [1, 2, 4, 32];
/// Steps without guesses until one more is measured: a neighbour may have been busy the last time.
const PROBE_STEPS: u32 = 128;

/// Why a model cannot draft for another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DraftError {
    /// They do not mean the same by the same token.
    #[error("its vocabulary is another one: {0}")]
    Vocabulary(String),
    /// Wrong guesses could not be taken out again, of the model or of the draft.
    #[error("{0} memory cannot be cut back, which wrong guesses need")]
    Memory(&'static str),
    /// The plugin failed.
    #[error(transparent)]
    Plugin(#[from] PluginError),
}

/// The smaller model, and what is known of its guesses.
#[derive(Debug)]
pub(crate) struct Drafter {
    memory: Memory,
    model: Arc<Model>,
    /// Tokens that both models know.
    n_vocab: usize,
    n_threads: u32,
    /// Of the smaller model's steps.
    pace: Pace,
    /// Seconds that it may read in one step.
    reading: f64,
    /// How many guesses of all sequences were right lately.
    rate: f64,
    /// How likely the draft itself took them to be.
    confidence: f64,
    /// Steps since the last guess.
    n_idle: u32,
    asked: Vec<Asked>,
}

/// A sequence that may get guesses.
#[derive(Debug, Clone, Copy)]
struct Asked {
    idx: usize,
    slot: Option<usize>,
    rate: f64,
    /// Tokens that the draft has not read yet, at least one.
    n_behind: usize,
    /// The index of its logits.
    output: usize,
    /// How likely all its guesses are right; 0: there will be no more.
    belief: f64,
}

impl Asked {
    fn is_ready(&self) -> bool {
        self.slot.is_some() && self.n_behind <= MAX_BEHIND
    }

    /// Tokens that are read in the first round: two after all guesses were right.
    fn n_first(&self) -> usize {
        if self.is_ready() { self.n_behind } else { 2 }
    }
}

impl Guesser for Drafter {
    fn guess(
        &mut self,
        running: &mut [Sequence],
        shares: &[Share],
        step: &mut Step<'_>,
    ) -> Result<(), PluginError> {
        if self.n_threads != step.n_threads {
            self.n_threads = step.n_threads;
            self.memory.set_threads(step.n_threads)?;
        }
        let n_before = step.n_tokens;
        self.ask(running, shares, step)?;
        if let Some(plan) = self.choose(step) {
            self.read_on(running, step, plan)?;
            self.asked.retain(Asked::is_ready);
            if self.choose(step).is_some() {
                self.draft(running, step)?;
            }
        }
        if step.n_tokens > n_before {
            self.n_idle = 0;
            return Ok(());
        }
        self.n_idle += 1;
        self.rate += FORGET.1 * (FIRST_RATE - self.rate);
        if self.n_idle.is_multiple_of(PROBE_STEPS) { self.probe(1) } else { Ok(()) }
    }

    fn forget(&mut self, id: u64) {
        self.memory.forget(id);
    }

    fn holds_memory(&self) -> bool {
        true
    }

    fn verify_invariants(&self) {
        self.memory.verify_invariants();
    }
}

impl Drafter {
    /// Creates its memory, and measures its steps.
    pub(crate) fn new(
        model: &Model,
        draft: &Arc<Model>,
        config: &EngineConfig,
        n_threads: u32,
    ) -> Result<Self, DraftError> {
        let n_vocab = vocabulary::common(model, draft)?.map_err(DraftError::Vocabulary)?;
        let context = draft.context(&ContextConfig {
            n_batch: config.n_batch,
            n_ubatch: config.n_batch,
            n_seq_max: config.n_parallel + 1,
            n_threads,
            n_threads_batch: n_threads,
            ..ContextConfig::single(config.n_ctx)
        })?;
        if !context.info().can_roll_back {
            return Err(DraftError::Memory("its"));
        }
        let mut drafter = Self {
            memory: Memory::new(context),
            model: Arc::clone(draft),
            n_vocab,
            n_threads,
            pace: Pace::new(config.step_target),
            reading: READING * config.step_target.as_secs_f64(),
            rate: FIRST_RATE,
            confidence: FIRST_RATE,
            n_idle: 0,
            asked: Vec::new(),
        };
        // The first step reads the weights from the disk.
        drafter.memory.probe(1)?;
        PROBES.iter().try_for_each(|n_tokens| drafter.probe(*n_tokens))?;
        Ok(drafter)
    }

    fn probe(&mut self, n_tokens: usize) -> Result<(), PluginError> {
        let n_tokens = n_tokens.min(self.memory.n_batch());
        if let Some(took) = self.memory.probe(n_tokens)? {
            self.pace.observe(n_tokens, took);
        }
        Ok(())
    }

    /// Learns from what came in the place of guesses, and takes the wrong ones out of the memory.
    fn judge(&mut self, at: usize, tokens: &[Token]) -> Result<(), PluginError> {
        let slot = &mut self.memory.slots[at];
        if slot.guesses.is_empty() {
            slot.rate += FORGET.0 * (self.rate - slot.rate);
            return Ok(());
        }
        let came = &tokens[slot.n_known..];
        let n_right = slot.guesses.iter().zip(came).take_while(|(a, b)| a == b).count();
        let n_judged = slot.guesses.len().min(came.len()).min(n_right + 1);
        for nth in 0..n_judged {
            let right = f64::from(u8::from(nth < n_right));
            slot.rate += NEWEST.0 * (right - slot.rate);
            self.rate += NEWEST.1 * (right - self.rate);
        }
        // The last token is read for the next guess.
        let keep = (slot.n_known + n_right).min(tokens.len() - 1);
        self.memory.cut(at, keep)
    }

    /// Those that have no guess yet, the likeliest to be guessed right first.
    fn ask(
        &mut self,
        running: &[Sequence],
        shares: &[Share],
        step: &Step<'_>,
    ) -> Result<(), PluginError> {
        self.asked.clear();
        for share in shares {
            let sequence = &running[share.idx];
            let slot = self.memory.slot_of(sequence.id);
            if let Some(at) = slot {
                self.judge(at, &sequence.tokens)?;
            }
            let fits = sequence.tokens.len() + MAX_DRAFT <= self.memory.n_ctx();
            if sequence.guess.is_empty() && step.room(sequence) > 0 && fits {
                let slot_of = slot.map(|at| &self.memory.slots[at]);
                let rate = slot_of.map_or(self.rate, |slot| slot.rate);
                let n_read = slot_of.map_or(0, |slot| slot.tokens.len());
                let n_behind = sequence.tokens.len() - n_read;
                let (idx, output, belief) = (share.idx, 0, 1.0);
                self.asked.push(Asked { idx, slot, rate, n_behind, output, belief });
            }
        }
        self.asked.sort_by(|a, b| b.rate.total_cmp(&a.rate));
        // What all of them lack fits into one step.
        self.asked.truncate(self.memory.n_batch() / MAX_BEHIND);
        Ok(())
    }

    /// Leaves of those asked the ones to guess for, and says what becomes of the step then. `None` if it pays for none.
    fn choose(&mut self, step: &Step<'_>) -> Option<Plan> {
        let mut best: Option<(usize, Plan)> = None;
        for n in 1..=self.asked.len() {
            let first = self.asked[..n].iter().map(Asked::n_first).sum();
            let right = |len| self.asked[..n].iter().map(|one| power(one.rate, len)).sum::<f64>();
            let seconds = |len: usize| {
                let rounds = match len {
                    0 => 0.0,
                    _ => self.pace.predict(first)? + float(len - 1) * self.pace.predict(n)?,
                };
                Some(step.seconds(n * len)? + rounds)
            };
            let plan = best_len(MAX_DRAFT, step.n_yield, right, seconds)?;
            if plan.len > 0 && best.is_none_or(|(_, best)| plan.is_faster_than(&best)) {
                best = Some((n, plan));
            }
        }
        let (n, plan) = best?;
        self.asked.truncate(n);
        Some(plan)
    }

    /// Reads a part of the first sequence for which that has come to pay.
    fn read_on(
        &mut self,
        running: &[Sequence],
        step: &Step<'_>,
        plan: Plan,
    ) -> Result<(), PluginError> {
        let Some(seconds) = step.seconds(0) else { return Ok(()) };
        let saved = 1.0 - plan.seconds * step.n_yield / (plan.n_yield * seconds);
        let pays = |asked: &&Asked| {
            // An answer is expected to go on for as long as it did, and each to pay for its own part.
            let saves = saved * seconds * float(running[asked.idx].n_generated());
            let costs = self.pace.predict(asked.n_behind).unwrap_or(f64::INFINITY);
            !asked.is_ready() && costs * float(self.asked.len()) < saves
        };
        let Some(asked) = self.asked.iter().find(pays) else { return Ok(()) };
        let sequence = &running[asked.idx];
        let slot = match asked.slot {
            None => self.memory.place(sequence, running, self.rate)?,
            slot => slot,
        };
        let Some(at) = slot else { return Ok(()) };
        let n_read = self.memory.slots[at].tokens.len();
        // The last token is read for the first guess.
        let mut n_tokens = (sequence.tokens.len() - 1 - n_read).min(self.memory.n_batch());
        let is_long = |n| self.pace.predict(n).is_some_and(|seconds| seconds > self.reading);
        while n_tokens > MIN_READ && is_long(n_tokens) {
            n_tokens = n_tokens.div_ceil(2);
        }
        if n_tokens > 0 && self.memory.make_room(n_tokens, running)? {
            self.memory.begin();
            self.memory.add(at, &sequence.tokens[n_read..n_read + n_tokens], false, self.n_vocab);
            self.compute()?;
        }
        Ok(())
    }

    /// Guesses for those asked, one token of each in a round.
    fn draft(&mut self, running: &mut [Sequence], step: &mut Step<'_>) -> Result<(), PluginError> {
        let n_behind: usize = self.asked.iter().map(|asked| asked.n_behind).sum();
        if !self.memory.make_room(n_behind + MAX_DRAFT * self.asked.len(), running)? {
            return Ok(());
        }
        for asked in &self.asked {
            if let Some(at) = asked.slot {
                self.memory.slots[at].n_known = running[asked.idx].tokens.len();
            }
        }
        let per_token = step.seconds(0).unwrap_or_default() / step.n_yield;
        for nth in 0..MAX_DRAFT {
            self.asked.retain(|asked| {
                let sequence = &running[asked.idx];
                asked.belief > 0.0 && sequence.guess.len() + 1 < sequence.n_left()
            });
            self.asked.truncate(step.n_batch - step.n_tokens);
            let n_read = match nth {
                0 => self.asked.iter().map(Asked::n_first).sum(),
                _ => self.asked.len(),
            };
            if !self.is_worth_a_round(n_read, per_token, step) {
                break;
            }
            self.round(per_token, running, step)?;
        }
        Ok(())
    }

    /// One more guess for each, by reading so many tokens, is expected to save more than it costs.
    fn is_worth_a_round(&self, n_read: usize, per_token: f64, step: &Step<'_>) -> bool {
        let n = self.asked.len();
        let right: f64 = self.asked.iter().map(|asked| asked.belief * asked.rate).sum();
        let drafting = self.pace.predict(n_read).unwrap_or(f64::INFINITY);
        n > 0 && right * per_token > drafting + step.cost(n)
    }

    fn round(
        &mut self,
        per_token: f64,
        running: &mut [Sequence],
        step: &mut Step<'_>,
    ) -> Result<(), PluginError> {
        self.memory.begin();
        for asked in &mut self.asked {
            let Some(at) = asked.slot else { continue };
            let sequence = &running[asked.idx];
            let next = match sequence.guess.last() {
                None => &sequence.tokens[self.memory.slots[at].tokens.len()..],
                Some(guess) => std::slice::from_ref(guess),
            };
            asked.output = self.memory.add(at, next, true, self.n_vocab);
        }
        self.compute()?;
        for asked in &mut self.asked {
            let logits = self.memory.logits(asked.output)?;
            let n_vocab = logits.len().min(self.n_vocab);
            let (token, probability) = likeliest(&logits[..n_vocab]).unwrap_or_default();
            self.confidence += NEWEST.1 * (probability - self.confidence);
            // It is believed as far as it was right before.
            asked.belief *= (probability * asked.rate / self.confidence).min(1.0);
            // A guess that is not worth its place in the step ends the draft.
            if let Some(at) = asked.slot
                && asked.belief * per_token > step.cost(1)
            {
                running[asked.idx].guess.push(token);
                self.memory.slots[at].guesses.push(token);
                step.n_tokens += 1;
                step.n_yield += asked.belief;
            } else {
                asked.belief = 0.0;
            }
            if self.model.token_is_end(token) {
                asked.belief = 0.0;
            }
        }
        Ok(())
    }

    fn compute(&mut self) -> Result<(), PluginError> {
        let took = self.memory.compute()?;
        self.pace.observe(self.memory.n_begun(), took);
        Ok(())
    }
}

fn float(n: usize) -> f64 {
    f64::from(to_u32(n))
}
