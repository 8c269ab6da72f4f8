//! Images: one piece of work between two steps, which is to compute the embeddings of a span, or to put them into memory.

use super::{Engine, Sink};
use crate::cache::{pos_of, seq_of};
use crate::images::n_positions;
use crate::sequence::Failure;
use hearth_abi::{PluginError, Status};

impl Engine {
    /// Does one piece of work for the running sequence whose next is an image, if there is one: of the owner that got least.
    pub(super) fn look(&mut self, sink: &mut dyn Sink) -> Result<(), PluginError> {
        let next = |at: &usize| {
            let sequence = &self.running[*at];
            let slot = self.filled_slot(sequence);
            slot.is_some_and(|slot| sequence.span_at(self.cache.len_of(slot)).is_some())
        };
        let looking = (0..self.running.len()).filter(next);
        let Some(at) = looking.min_by_key(|at| self.ledger.got(self.running[*at].owner)) else {
            return Ok(());
        };
        let sequence = &mut self.running[at];
        let Some(slot) = sequence.slot else { return Ok(()) };
        let held = self.cache.len_of(slot);
        let Some(span) = sequence.span_at(held).cloned() else { return Ok(()) };
        let Some(embeddings) = &sequence.embeddings else {
            match span.encode() {
                Ok(embeddings) => sequence.embeddings = Some(embeddings),
                // No context has to do with it, so it is this request's own trouble.
                Err(error) => self.give_up(at, error, sink),
            }
            return Ok(());
        };
        let position = pos_of(n_positions(&sequence.tokens[..held]));
        match span.append(&mut self.runner.context, embeddings, seq_of(slot), position) {
            Ok(()) => {
                sequence.embeddings = None;
                self.cache.append(slot, span.tokens());
                self.ledger.charge(sequence.owner, span.tokens().len());
                self.tell_prefill(at, sink);
                Ok(())
            }
            Err(error) if matches!(error.status, Status::NoKvSpace | Status::Failed) => Err(error),
            Err(error) => {
                self.give_up(at, error, sink);
                Ok(())
            }
        }
    }

    fn give_up(&mut self, at: usize, error: PluginError, sink: &mut dyn Sink) {
        let sequence = self.running.remove(at);
        self.abandon(sequence, Failure::Image(error.message), sink);
    }
}
