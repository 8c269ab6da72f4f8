//! Going on where the context is full: the oldest tokens behind the first few leave it, and the others move up.

use super::Engine;
use hearth_abi::PluginError;

impl Engine {
    /// Makes room in the full context of a running sequence.
    pub(super) fn shift(&mut self, at: usize) -> Result<(), PluginError> {
        let sequence = &mut self.running[at];
        let Some(slot) = sequence.slot else { return Ok(()) };
        let out = sequence.oldest();
        let is_moved = self.cache.shift(&mut self.runner.context, slot, out.clone())?;
        sequence.take_out(out);
        let id = sequence.id;
        self.guessers.iter_mut().for_each(|guesser| guesser.forget(id));
        if !is_moved {
            // Its memory is another's too. What is left of it is computed again, from where the two part.
            self.preempt(at);
        }
        Ok(())
    }
}
