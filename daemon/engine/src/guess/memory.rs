//! The draft model's memory: what its context holds of each sequence.
//!
//! It holds whole beginnings of sequences, and behind them perhaps guesses. What an ended sequence left is used again for
//! the same owner's next prompt, up to where the two part, and for nobody else's. Nothing is ever saved: all of it can be
//! computed again, and only guesses wait for it.
//!
//! **Invariant.** A sequence has at most one slot, and all slots together hold no more than the context's cells.

use crate::cache::{pos_of, seq_of};
use crate::sequence::Sequence;
use hearth_abi::host::{Batch, Context};
use hearth_abi::raw::Token;
use hearth_abi::{BatchEntry, PluginError};
use std::cmp::Reverse;
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
pub(super) struct Slot {
    /// The sequence that it belongs to.
    user: Option<u64>,
    owner: u32,
    pub(super) tokens: Vec<Token>,
    /// Where the guesses began that were made last.
    pub(super) n_known: usize,
    pub(super) guesses: Vec<Token>,
    /// How many of this sequence's guesses were right lately.
    pub(super) rate: f64,
    last_used: u64,
}

#[derive(Debug)]
pub(super) struct Memory {
    context: Context,
    batch: Batch,
    pub(super) slots: Vec<Slot>,
    clock: u64,
}

impl Memory {
    /// Over a context with one sequence more than slots, for [`Self::probe`].
    pub(super) fn new(context: Context) -> Self {
        let n_slots = context.info().n_seq_max.saturating_sub(1);
        let slots = (0..n_slots).map(|_| Slot::default()).collect();
        let batch = Batch::with_capacity(context.info().n_batch as usize);
        Self { context, batch, slots, clock: 0 }
    }

    pub(super) fn slot_of(&self, id: u64) -> Option<usize> {
        self.slots.iter().position(|slot| slot.user == Some(id))
    }

    /// A slot for a sequence that has none: the one that holds most of it already, of those whose sequence does not run.
    pub(super) fn place(
        &mut self,
        sequence: &Sequence,
        running: &[Sequence],
        rate: f64,
    ) -> Result<Option<usize>, PluginError> {
        let held = |slot: &Slot| {
            let pairs = slot.tokens.iter().zip(&sequence.tokens);
            if slot.owner == sequence.owner { pairs.take_while(|(a, b)| a == b).count() } else { 0 }
        };
        let idle = (0..self.slots.len()).filter(|at| self.is_idle(*at, running));
        let best = idle
            .map(|at| (held(&self.slots[at]), Reverse(self.slots[at].last_used), at))
            .max_by_key(|(held, last_used, _)| (*held, *last_used));
        let Some((held, _, at)) = best else { return Ok(None) };
        self.cut(at, held.min(sequence.tokens.len() - 1))?;
        let slot = &mut self.slots[at];
        (slot.user, slot.owner, slot.rate) = (Some(sequence.id), sequence.owner, rate);
        Ok(Some(at))
    }

    fn is_idle(&self, at: usize, running: &[Sequence]) -> bool {
        let user = self.slots[at].user;
        user.is_none_or(|user| running.iter().all(|sequence| sequence.id != user))
    }

    /// The sequence of a slot has ended.
    pub(super) fn forget(&mut self, id: u64) {
        if let Some(at) = self.slot_of(id) {
            self.slots[at].user = None;
        }
    }

    /// Empties slots whose sequence does not run until there is room for so many tokens. False if that is not enough.
    pub(super) fn make_room(
        &mut self,
        n_more: usize,
        running: &[Sequence],
    ) -> Result<bool, PluginError> {
        while self.n_held() + n_more > self.context.info().n_ctx as usize {
            let idle = (0..self.slots.len())
                .filter(|at| !self.slots[*at].tokens.is_empty() && self.is_idle(*at, running));
            let oldest = idle.min_by_key(|at| self.slots[*at].last_used);
            let Some(oldest) = oldest else { return Ok(false) };
            self.cut(oldest, 0)?;
        }
        Ok(true)
    }

    fn n_held(&self) -> usize {
        self.slots.iter().map(|slot| slot.tokens.len()).sum()
    }

    /// Takes out all behind the first `keep` tokens, and forgets the guesses.
    pub(super) fn cut(&mut self, at: usize, keep: usize) -> Result<(), PluginError> {
        self.slots[at].guesses.clear();
        if keep < self.slots[at].tokens.len() {
            self.context.seq_remove(seq_of(at), pos_of(keep), None)?;
            self.slots[at].tokens.truncate(keep);
        }
        Ok(())
    }

    pub(super) fn n_batch(&self) -> usize {
        self.context.info().n_batch as usize
    }

    /// Most tokens of one sequence.
    pub(super) fn n_ctx(&self) -> usize {
        let (info, model) = (self.context.info(), self.context.model().info());
        match model.n_ctx_train {
            0 => info.n_ctx_seq as usize,
            n_ctx_train => info.n_ctx_seq.min(n_ctx_train) as usize,
        }
    }

    pub(super) fn set_threads(&mut self, n_threads: u32) -> Result<(), PluginError> {
        self.context.set_threads(n_threads, n_threads)
    }

    pub(super) fn begin(&mut self) {
        self.batch.clear();
    }

    /// Tokens in the batch.
    pub(super) fn n_begun(&self) -> usize {
        self.batch.len()
    }

    /// Adds tokens behind those that a slot holds. Answers the index of the last one, whose logits are read if `output` is
    /// set. `n_vocab` tokens are known: another, and each cell of an image, is read as one of them, and only the guesses are
    /// worse for it.
    pub(super) fn add(
        &mut self,
        at: usize,
        tokens: &[Token],
        output: bool,
        n_vocab: usize,
    ) -> usize {
        let n_held = self.slots[at].tokens.len();
        let mut last = 0;
        for (offset, token) in tokens.iter().enumerate() {
            last = self.batch.push(BatchEntry {
                token: (*token).clamp(0, pos_of(n_vocab) - 1),
                position: pos_of(n_held + offset),
                sequence: seq_of(at),
                output: output && offset + 1 == tokens.len(),
            });
        }
        self.clock += 1;
        let slot = &mut self.slots[at];
        slot.tokens.extend_from_slice(tokens);
        slot.last_used = self.clock;
        last
    }

    /// Computes the batch. Answers how long that took.
    pub(super) fn compute(&mut self) -> Result<Duration, PluginError> {
        let start = Instant::now();
        self.context.decode(&self.batch)?;
        Ok(start.elapsed())
    }

    pub(super) fn logits(&mut self, index: usize) -> Result<&mut [f32], PluginError> {
        self.context.logits(index)
    }

    /// How long a step of so many tokens takes, by making one. `None` while there is no room.
    pub(super) fn probe(&mut self, n_tokens: usize) -> Result<Option<Duration>, PluginError> {
        if self.n_held() + n_tokens > self.context.info().n_ctx as usize {
            return Ok(None);
        }
        let sequence = seq_of(self.slots.len());
        self.batch.clear();
        for position in 0..n_tokens {
            let (position, output) = (pos_of(position), position + 1 == n_tokens);
            self.batch.push(BatchEntry { token: 0, position, sequence, output });
        }
        let took = self.compute()?;
        self.context.seq_remove(sequence, 0, None)?;
        Ok(Some(took))
    }

    pub(super) fn verify_invariants(&self) {
        for (at, slot) in self.slots.iter().enumerate() {
            let is_only = slot.user.is_none_or(|user| self.slot_of(user) == Some(at));
            assert!(is_only, "slots of the draft share a sequence");
            let n_guessed = slot.tokens.len().saturating_sub(slot.n_known);
            assert!(
                slot.guesses.is_empty() || slot.tokens[slot.n_known..] == slot.guesses[..n_guessed],
                "slot {at} of the draft holds other guesses than it made"
            );
        }
        let n_cells = self.context.info().n_ctx as usize;
        assert!(self.n_held() <= n_cells, "the draft holds {} of {n_cells} cells", self.n_held());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::Sampling;
    use crate::sequence::Request;
    use hearth_abi::host::{Model, Plugin};
    use hearth_abi::{ContextConfig, OpenParams};

    fn memory() -> Memory {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        hearth_reference::write_model(&path, &[]).unwrap();
        let plugin = Plugin::from_entry(hearth_reference::plugin(), Box::new(|_, _| {})).unwrap();
        let model = Model::open(&plugin, &OpenParams::new(path), &mut |_| true).unwrap();
        let config =
            ContextConfig { n_batch: 50, n_ubatch: 50, n_seq_max: 3, ..ContextConfig::single(100) };
        Memory::new(model.context(&config).unwrap())
    }

    fn sequence(id: u64, owner: u32, prompt: &[Token]) -> Sequence {
        let request = Request {
            id,
            owner,
            prompt: prompt.to_vec(),
            spans: Vec::new(),
            n_public: 0,
            max_context: None,
            shift: None,
            sampling: Sampling::default(),
            stops: Vec::new(),
            max_tokens: None,
            constraint: None,
            thinking: None,
            spelled: Vec::new(),
        };
        Sequence::new(request, 100)
    }

    fn read(memory: &mut Memory, sequence: &Sequence) -> usize {
        let at = memory.place(sequence, &[], 0.5).unwrap().unwrap();
        let held = memory.slots[at].tokens.len();
        memory.begin();
        memory.add(at, &sequence.tokens[held..], false, 256);
        memory.compute().unwrap();
        memory.verify_invariants();
        held
    }

    #[test]
    fn what_one_owner_left_is_never_used_for_another() {
        let mut memory = memory();
        let prompt: Vec<Token> = (97..122).collect();
        assert_eq!(read(&mut memory, &sequence(1, 7, &prompt)), 0);
        memory.forget(1);
        assert_eq!(read(&mut memory, &sequence(2, 8, &prompt)), 0);
        // The next message of the first; one token at least is read again.
        let longer = [&prompt[..], &[32, 33]].concat();
        assert_eq!(read(&mut memory, &sequence(3, 7, &longer)), prompt.len());
        memory.forget(3);
        assert_eq!(read(&mut memory, &sequence(4, 7, &longer)), longer.len() - 1);
    }

    #[test]
    fn what_nobody_uses_goes_first_and_what_runs_stays() {
        let mut memory = memory();
        let texts = [(97..147).collect::<Vec<_>>(), (100..140).collect()];
        let running = [sequence(1, 0, &texts[0]), sequence(2, 0, &texts[1])];
        assert_eq!(running.each_ref().map(|sequence| read(&mut memory, sequence)), [0, 0]);
        assert!(!memory.make_room(11, &running).unwrap());
        assert!(memory.make_room(10, &running).unwrap());
        assert!(memory.make_room(11, &running[1..]).unwrap());
        assert_eq!(memory.n_held(), texts[1].len());
        memory.verify_invariants();
    }
}
