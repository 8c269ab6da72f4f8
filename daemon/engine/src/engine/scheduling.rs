//! What the next step computes: whose turn it is, how much of which prompt, and which guesses.

use super::Engine;
use crate::guess::Step;
use crate::images::is_text;
use crate::scheduler::{Pending, most_of_each, plan};
use crate::sequence::{Sequence, to_u32};
use hearth_abi::PluginError;
use std::cmp::Reverse;

impl Engine {
    /// Fills the shares of the next step.
    pub(super) fn schedule(&mut self) -> Result<(), PluginError> {
        self.pending.clear();
        for (idx, sequence) in self.running.iter().enumerate() {
            let Some(slot) = self.filled_slot(sequence) else { continue };
            let held = self.cache.len_of(slot);
            let n_pending = sequence.tokens.len() - held;
            // What came from main memory may have gone beyond where it should stop.
            let stop_at = sequence.stop_at.filter(|stop| *stop >= held);
            let stop = stop_at.into_iter().chain(self.checkpoint_of(sequence, held));
            let n_text =
                sequence.tokens[held..].iter().take_while(|token| is_text(**token)).count();
            let n_most = stop.map(|stop| stop - held).fold(n_text, usize::min);
            self.pending.push(Pending { idx, n_pending, n_most });
        }
        if self.config.adapts {
            self.take_turns();
        }
        // Prompts of those who got least come first, and of one owner the oldest.
        let (running, ledger) = (&self.running, &self.ledger);
        self.pending.sort_by_key(|pending| ledger.got(running[pending.idx].owner));
        let (pace, adapts, spent) = (&self.pace, self.config.adapts, self.cache.moved());
        let budget = |n_answers, most| {
            if adapts { pace.prompt_tokens(n_answers, most, spent) } else { most }
        };
        plan(self.config.n_batch as usize, budget, &self.pending, &mut self.shares);
        self.guess()
    }

    /// Its slot, if all that comes from main memory is there.
    pub(super) fn filled_slot(&self, sequence: &Sequence) -> Option<usize> {
        sequence.slot.filter(|slot| !self.cache.is_restoring(*slot))
    }

    /// Leaves out answers of owners who have more than go into one step. Those that sat out longest go on.
    fn take_turns(&mut self) {
        let Self { running, pending, answering, pace, .. } = self;
        answering.clear();
        for pending in pending.iter().filter(|pending| pending.n_pending == 1) {
            let owner = running[pending.idx].owner;
            match answering.iter_mut().find(|(other, _)| *other == owner) {
                Some((_, n)) => *n += 1,
                None => answering.push((owner, 1)),
            }
        }
        if answering.len() < 2 {
            return;
        }
        let n_answers = answering.iter().map(|(_, n)| *n);
        let most = most_of_each(n_answers, |n| pace.predict_small(n));
        answering.iter_mut().for_each(|(_, n)| *n = most);
        pending.sort_by_key(|pending| Reverse(running[pending.idx].n_sat_out));
        pending.retain(|pending| {
            let sequence = &mut running[pending.idx];
            let left = answering.iter_mut().find(|(owner, _)| *owner == sequence.owner);
            let Some((_, left)) = left.filter(|_| pending.n_pending == 1) else { return true };
            let goes_on = *left > 0;
            *left -= usize::from(goes_on);
            sequence.n_sat_out = if goes_on { 0 } else { sequence.n_sat_out + 1 };
            goes_on
        });
        // Prompts are in order of admission.
        pending.sort_by_key(|pending| pending.idx);
    }

    /// Where a prompt's memory is saved because it cannot be cut back to there later: before its last token, so that the
    /// same prompt and the next message of the conversation both find it.
    fn checkpoint_of(&self, sequence: &Sequence, held: usize) -> Option<usize> {
        let at = sequence.n_prompt - 1;
        (held < at && self.cache.needs_checkpoints()).then_some(at)
    }

    /// Adds guessed tokens to the shares of answers.
    fn guess(&mut self) -> Result<(), PluginError> {
        let Self { running, shares, guessers, pace, runner, .. } = self;
        running.iter_mut().for_each(|sequence| sequence.guess.clear());
        // Beside a prompt every token more would delay both.
        let is_beside = shares.iter().any(|share| share.n_tokens > 1 || !share.completes);
        if is_beside || !self.cache.can_roll_back() {
            return Ok(());
        }
        // So each share is one token, and yields one.
        let mut step = Step {
            context: &mut runner.context,
            pace,
            n_threads: self.threads.in_use(),
            n_batch: self.config.n_batch as usize,
            n_tokens: shares.len(),
            n_yield: f64::from(to_u32(shares.len())),
        };
        // A guesser that fails is no reason for an answer to fail.
        guessers.retain_mut(|guesser| guesser.guess(running, shares, &mut step).is_ok());
        for share in shares {
            let sequence = &running[share.idx];
            let (Some(slot), n_guessed @ 1..) = (sequence.slot, sequence.guess.len()) else {
                continue;
            };
            let lacks = self.cache.lacks(slot, 1 + n_guessed);
            if self.cache.make_room(&mut self.runner.context, lacks)? {
                self.cache.reserve(slot, 1 + n_guessed);
                share.n_drafted = n_guessed;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pace::Pace;
    use crate::{EngineConfig, Event, Request, Sampling, Sink};
    use hearth_abi::OpenParams;
    use hearth_abi::host::{Model, Plugin};
    use std::time::Duration;

    struct Nothing;

    impl Sink for Nothing {
        fn event(&mut self, _: u64, _: Event<'_>) {}
    }

    fn request(id: u64, owner: u32) -> Request {
        Request {
            id,
            owner,
            prompt: (0..20).map(|at| 97 + at).collect(),
            n_public: 0,
            max_context: None,
            sampling: Sampling { temperature: 0.0, ..Sampling::default() },
            stops: Vec::new(),
            max_tokens: Some(500),
            shift: None,
            constraint: None,
            thinking: None,
            spelled: Vec::new(),
            spans: Vec::new(),
        }
    }

    /// The requests that go on in the next step.
    fn turn(engine: &mut Engine) -> Vec<u64> {
        engine.schedule().unwrap();
        let mut ids: Vec<u64> =
            engine.shares.iter().map(|share| engine.running[share.idx].id).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn answers_of_one_take_turns_beside_another() {
        let plugin = Plugin::from_entry(hearth_reference::plugin(), Box::new(|_, _| {})).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        hearth_reference::write_model(&path, &[("eos_one_in", 0_u64.into())]).unwrap();
        let model = Model::open(&plugin, &OpenParams::new(path), &mut |_| true).unwrap();
        let config = EngineConfig { n_parallel: 6, ..EngineConfig::default() };
        let mut engine = Engine::new(&model, config).unwrap();
        (0..5).for_each(|id| engine.submit(request(id, 1), &mut Nothing));
        engine.submit(request(9, 2), &mut Nothing);
        while engine.running.len() < 6 || engine.running.iter().any(|s| s.n_generated() == 0) {
            engine.step(&mut Nothing).unwrap();
        }
        let sat_out = |engine: &Engine| engine.running.iter().any(|s| s.n_sat_out > 0);
        // A step takes as long as each of its answers: one each. And where nothing is known, all go on.
        for (known, expected) in [
            (true, [&[0, 9][..], &[1, 9], &[2, 9], &[3, 9], &[4, 9], &[0, 9]]),
            (false, [&[0, 1, 2, 3, 4, 9][..]; 6]),
        ] {
            engine.pace = Pace::new(Duration::from_millis(100));
            for n in [1, 2, 4].into_iter().filter(|_| known) {
                engine.pace.observe(n, Duration::from_millis(10 * n as u64));
            }
            engine.running.iter_mut().for_each(|sequence| sequence.n_sat_out = 0);
            for ids in expected {
                assert_eq!(turn(&mut engine), ids);
                engine.verify_invariants();
                assert_eq!(sat_out(&engine), known);
            }
        }
    }
}
