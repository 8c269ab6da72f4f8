//! Between KV memory and archive: when a slot is copied to main memory, and how it comes back.
//!
//! Both take time in which nobody's answer goes on, so a step waits for no more than `Cache::save_time` of it.

use super::archive::Archive;
use super::{Cache, Slot, SlotState, seq_of};
use hearth_abi::host::Context;
use hearth_abi::{PluginError, Status};
use std::time::Instant;

/// A shorter sequence is computed again rather than saved.
const MIN_SAVED: usize = 32;
/// Kept sequences that nobody used for so many steps leave the KV memory: every cell there slows every step.
const KEPT_STEPS: u64 = 64;

impl Cache {
    /// Something was saved or restored since the last step.
    pub(crate) fn has_moved(&self) -> bool {
        !self.moving.is_zero()
    }

    /// Loads a saved sequence into a free slot, and cuts it to `len`. Answers how many tokens it holds then.
    pub(super) fn restore(
        &mut self,
        context: &mut Context,
        entry: usize,
        to: usize,
        len: usize,
    ) -> Result<usize, PluginError> {
        // Making room archives others, which moves entries: what is restored is taken out until it is in memory.
        let saved = self.archive.take(entry);
        self.evict(context, to)?;
        if !self.make_room(context, saved.tokens.len())? {
            return Ok(0);
        }
        let start = Instant::now();
        let loaded = context.seq_load(seq_of(to), &saved.data);
        self.moving += start.elapsed();
        match loaded {
            Ok(()) => {}
            // Damaged bytes, or less room than was counted: it is computed instead.
            Err(error) if error.status != Status::Failed => return Ok(0),
            Err(error) => return Err(error),
        }
        self.cells.append(to, saved.tokens.len());
        self.slots[to].tokens.clone_from(&saved.tokens);
        self.archive.put_back(saved);
        self.cut(context, to, len)
    }

    /// Empties a slot, after a copy to the archive if there is time for that before the next step.
    pub(super) fn evict(&mut self, context: &mut Context, slot: usize) -> Result<(), PluginError> {
        if self.slots[slot].state == SlotState::Kept && self.is_quickly_saved(slot) {
            self.save(context, slot)?;
        }
        self.clear(context, slot)
    }

    fn is_quickly_saved(&self, slot: usize) -> bool {
        let n_tokens = u32::try_from(self.len_of(slot)).unwrap_or(u32::MAX);
        self.moving + self.save_time_per_token.saturating_mul(n_tokens) <= self.save_time
    }

    /// Copies a slot to the archive, unless it is too short or there already. Answers whether it was copied.
    fn save(&mut self, context: &mut Context, slot: usize) -> Result<bool, PluginError> {
        if self.is_archived(slot) || self.archive.is_off() {
            return Ok(false);
        }
        let start = Instant::now();
        let data = match context.seq_save(seq_of(slot)) {
            Ok(data) => data,
            Err(error) if error.status == Status::Failed => return Err(error),
            // What cannot be saved once cannot be saved the next time.
            Err(_) => {
                self.archive = Archive::new(0);
                return Ok(false);
            }
        };
        let tokens = self.slots[slot].tokens.clone();
        let took = start.elapsed();
        self.moving += took;
        let per_token = took / u32::try_from(tokens.len()).unwrap_or(u32::MAX).max(1);
        self.save_time_per_token = (self.save_time_per_token + per_token) / 2;
        self.bytes_per_token = data.len() / tokens.len().max(1);
        self.archive.put(self.slots[slot].owner, tokens, data, self.can_roll_back);
        Ok(true)
    }

    /// There is nothing to gain from saving it, or it could not be found by its tokens.
    fn is_archived(&self, slot: usize) -> bool {
        let Slot { owner, tokens, shifted_at, .. } = &self.slots[slot];
        tokens.len() < MIN_SAVED
            || shifted_at.is_some()
            || tokens.len() * self.bytes_per_token > self.archive.max_bytes()
            || self.archive.has(*owner, tokens, !self.can_roll_back)
    }

    /// Saves a running slot as it is now, because its memory cannot be cut back to here later.
    pub(crate) fn checkpoint(
        &mut self,
        context: &mut Context,
        slot: usize,
    ) -> Result<(), PluginError> {
        self.save(context, slot).map(drop)
    }

    /// While there is nothing else to do: copies one kept slot to the archive. False if there is none to copy.
    pub(crate) fn save_one(&mut self, context: &mut Context) -> Result<bool, PluginError> {
        if self.archive.is_off() {
            return Ok(false);
        }
        let kept = |slot: &usize| self.slots[*slot].state == SlotState::Kept;
        let unsaved = (0..self.slots.len()).filter(kept).find(|slot| !self.is_archived(*slot));
        match unsaved {
            Some(slot) => self.save(context, slot),
            None => Ok(false),
        }
    }

    /// Between two steps: takes one kept slot out of the KV memory that was not used for long, if a copy is there or quickly
    /// made.
    pub(crate) fn retire(&mut self, context: &mut Context) -> Result<(), PluginError> {
        if self.archive.is_off() {
            return Ok(());
        }
        match self.least_recently_kept(None) {
            Some(slot)
                if self.slots[slot].last_used + KEPT_STEPS < self.clock
                    && (self.is_archived(slot) || self.is_quickly_saved(slot)) =>
            {
                self.evict(context, slot)
            }
            _ => Ok(()),
        }
    }
}
