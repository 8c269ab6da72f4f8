//! Who runs: from the queue to a place, and back when somebody else is entitled to it.

use super::{Engine, Sink};
use crate::cache::{Entitled, MIN_SHARED, Placement};
use crate::sequence::{Event, Sequence, to_u32};
use hearth_abi::PluginError;
use std::time::Instant;

impl Engine {
    /// Gives waiting requests a place: of the owner that got least, the oldest. One that finds no memory holds back all.
    pub(super) fn admit(&mut self, sink: &mut dyn Sink) -> Result<(), PluginError> {
        for sequence in &mut self.running {
            sequence.stop_at = None;
        }
        for sequence in &mut self.waiting {
            sequence.is_held_back = false;
        }
        while let Some(at) = self.next_waiting() {
            if self.is_shared_soon(at) {
                self.waiting[at].is_held_back = true;
                continue;
            }
            if self.running.len() >= self.n_places && !self.make_way(at) {
                break;
            }
            let Some(placement) = self.find_place(at) else { break };
            let sequence = self.waiting.remove(at);
            self.begin(sequence, placement)?;
        }
        self.tell_places(sink);
        Ok(())
    }

    fn find_place(&mut self, at: usize) -> Option<Placement> {
        loop {
            let sequence = &self.waiting[at];
            let place = self.cache.find_place(&entitled(sequence), n_cells(sequence));
            if place.is_some() || !self.make_way(at) {
                return place;
            }
        }
    }

    fn begin(&mut self, mut sequence: Sequence, placement: Placement) -> Result<(), PluginError> {
        let (owner, n_cells) = (sequence.owner, n_cells(&sequence));
        let (slot, held) = self.cache.place(&mut self.runner.context, placement, owner, n_cells)?;
        sequence.slot = Some(slot);
        if sequence.admitted.is_none() {
            sequence.admitted = Some(Instant::now());
            sequence.n_cached = held;
        } else if sequence.n_generated() == 0 {
            // What it lost with its place is computed after all.
            sequence.n_cached = sequence.n_cached.min(held);
        }
        self.running.push(sequence);
        Ok(())
    }

    /// Goes on filling what is to come from main memory, in order of admission.
    pub(super) fn restore(&mut self) -> Result<(), PluginError> {
        for sequence in &mut self.running {
            let Some(slot) = sequence.slot.filter(|slot| self.cache.is_restoring(*slot)) else {
                continue;
            };
            if !self.cache.restore(&mut self.runner.context, slot)? {
                break;
            }
            if sequence.n_generated() == 0 {
                sequence.n_cached = sequence.n_cached.min(self.cache.len_of(slot));
            }
        }
        Ok(())
    }

    /// The next in the fair order, of those not held back.
    fn next_waiting(&self) -> Option<usize> {
        (0..self.waiting.len())
            .filter(|at| !self.waiting[*at].is_held_back)
            .min_by_key(|at| self.turn(&self.waiting[*at]))
    }

    /// Less comes first.
    fn turn(&self, sequence: &Sequence) -> (u64, Instant, u64) {
        (self.ledger.got(sequence.owner), sequence.submitted, sequence.id)
    }

    /// A prompt that runs is about to hold more of this one's beginning than there is now. Waiting for that is cheaper than
    /// computing it twice.
    fn is_shared_soon(&mut self, at: usize) -> bool {
        let entitled = entitled(&self.waiting[at]);
        let soon = self.running.iter_mut().filter_map(|sequence| {
            let held = self.cache.len_of(sequence.slot?);
            let len = entitled.prefix_of(sequence.owner, &sequence.tokens);
            (len >= held + MIN_SHARED).then_some((len, sequence))
        });
        let Some((len, leader)) = soon.max_by_key(|(len, _)| *len) else { return false };
        if self.cache.best_held(&entitled) + MIN_SHARED > len {
            return false;
        }
        if !self.cache.can_copy_part() {
            // It can be copied as a whole when it holds just that.
            leader.stop_at = Some(leader.stop_at.map_or(len, |stop| stop.min(len)));
        }
        true
    }

    /// Takes a place from the owner that has most for a waiting one whose owner has none. False if nobody has two.
    fn make_way(&mut self, at: usize) -> bool {
        let victim = self.overserved(at);
        if let Some(victim) = victim {
            self.preempt(victim);
        }
        victim.is_some()
    }

    fn overserved(&self, at: usize) -> Option<usize> {
        let n_running =
            |owner: u32| self.running.iter().filter(|sequence| sequence.owner == owner).count();
        if n_running(self.waiting[at].owner) > 0 {
            return None;
        }
        let most = self.running.iter().map(|sequence| n_running(sequence.owner)).max()?;
        let is_over = |sequence: &Sequence| most > 1 && n_running(sequence.owner) == most;
        self.running.iter().rposition(is_over)
    }

    /// Sends a running sequence back to the queue. Its memory is kept as long as nobody needs it more.
    pub(super) fn preempt(&mut self, at: usize) {
        let mut sequence = self.running.remove(at);
        sequence.stop_at = None;
        sequence.embeddings = None;
        if let Some(slot) = sequence.slot.take() {
            self.cache.keep(slot);
        }
        self.waiting.push(sequence);
    }

    fn tell_places(&mut self, sink: &mut dyn Sink) {
        if self.waiting.is_empty() {
            return;
        }
        let mut order: Vec<usize> = (0..self.waiting.len()).collect();
        order.sort_by_key(|at| self.turn(&self.waiting[*at]));
        for (place, at) in order.into_iter().enumerate() {
            let sequence = &mut self.waiting[at];
            let place = to_u32(place + 1);
            // Only ever forward: somebody who got less may overtake, and that is no news for the one behind.
            if sequence.told_place.is_none_or(|told| place < told) {
                sequence.told_place = Some(place);
                let wait = self.ledger.estimate(place, self.config.n_parallel);
                sink.event(sequence.id, Event::Queued { place, wait });
            }
        }
    }
}

/// Room for what is known, and one token of the answer.
fn n_cells(sequence: &Sequence) -> usize {
    sequence.tokens.len() + 1
}

fn entitled(sequence: &Sequence) -> Entitled<'_> {
    Entitled { owner: sequence.owner, prompt: &sequence.tokens, n_public: sequence.n_public }
}
