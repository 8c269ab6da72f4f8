//! From KV memory into the archive: when a slot is copied to main memory.
//!
//! Nobody's answer goes on meanwhile, so a sequence is saved piece by piece where the plugin can do that, and between two steps
//! no more than there is time for.

use super::{Cache, Slot, SlotState, pos_of, seq_of};
use crate::images::{is_cut, n_positions};
use hearth_abi::host::Context;
use hearth_abi::{PluginError, Status};
use std::time::{Duration, Instant};

/// Fewer tokens are computed again rather than saved.
const MIN_SAVED: usize = 32;
/// A larger piece would be shared by fewer sequences.
const MAX_PIECE: usize = 256;
/// Kept sequences that nobody used for so many steps leave the KV memory: every cell there slows every step.
const KEPT_STEPS: u64 = 64;

impl Cache {
    /// What was spent on saving and restoring since the last step.
    pub(crate) fn moved(&self) -> Duration {
        self.moving
    }

    /// What it takes to save or restore so many tokens.
    pub(super) fn time_of(&self, n_tokens: usize) -> Duration {
        self.save_time_per_token.saturating_mul(u32::try_from(n_tokens).unwrap_or(u32::MAX))
    }

    /// Tokens that can be saved before the next step.
    fn n_in_time(&self) -> usize {
        let left = self.save_time.saturating_sub(self.moving).as_nanos();
        usize::try_from(left / self.save_time_per_token.as_nanos().max(1)).unwrap_or(usize::MAX)
    }

    /// Empties a slot, after what there is time for was copied to the archive.
    pub(super) fn evict(&mut self, context: &mut Context, slot: usize) -> Result<(), PluginError> {
        if self.slots[slot].state == SlotState::Kept {
            self.save_in_time(context, slot)?;
        }
        self.clear(context, slot)
    }

    /// Copies a slot to the archive as far as there is time. True if there is nothing left to copy, or no room for it.
    fn save_in_time(&mut self, context: &mut Context, slot: usize) -> Result<bool, PluginError> {
        loop {
            let n_least = if self.in_parts { MIN_SAVED } else { self.len_of(slot) };
            if self.is_archived(slot) {
                return Ok(true);
            }
            if self.n_in_time() < n_least {
                return Ok(false);
            }
            if !self.save(context, slot)? {
                return Ok(true);
            }
        }
    }

    /// Copies one piece of a slot to the archive: what follows there on what it has already. False if it cannot be.
    fn save(&mut self, context: &mut Context, slot: usize) -> Result<bool, PluginError> {
        if !self.can_save {
            return Ok(false);
        }
        let Slot { owner, tokens, .. } = &self.slots[slot];
        let before = self.archive.find(*owner, tokens, true).filter(|_| self.in_parts);
        let from = before.map_or(0, |found| found.len);
        let n_most = match self.in_parts {
            true => self.n_in_time().clamp(MIN_SAVED, MAX_PIECE),
            false => usize::MAX,
        };
        let end = tokens.len().min(from.saturating_add(n_most));
        let to = (end..tokens.len()).find(|to| !is_cut(&tokens[..*to])).unwrap_or(tokens.len());
        let start = Instant::now();
        let saved = match self.in_parts {
            true => {
                let [p0, p1] = [from, to].map(|len| pos_of(n_positions(&tokens[..len])));
                context.part_save(seq_of(slot), p0, p1)
            }
            false => context.seq_save(seq_of(slot)),
        };
        let data = match saved {
            Ok(data) => data,
            Err(error) if error.status == Status::Failed => return Err(error),
            // What cannot be saved once cannot be saved the next time.
            Err(_) => {
                self.can_save = false;
                return Ok(false);
            }
        };
        let took = start.elapsed();
        self.moving += took;
        let per_token = took / u32::try_from(to - from).unwrap_or(u32::MAX);
        self.save_time_per_token = (self.save_time_per_token + per_token) / 2;
        self.bytes_per_token = data.len() / (to - from);
        let before = before.map(|found| found.piece);
        let is_added = self.archive.add(before, *owner, tokens[from..to].to_vec(), data);
        let slot = &mut self.slots[slot];
        slot.n_saved = if is_added { slot.n_saved.max(to) } else { slot.tokens.len() };
        Ok(is_added)
    }

    /// There is nothing to gain from saving it, or it could not be found by its tokens.
    fn is_archived(&self, slot: usize) -> bool {
        let Slot { owner, tokens, shifted_at, .. } = &self.slots[slot];
        let found = self.archive.find(*owner, tokens, !self.can_roll_back);
        let n_left = tokens.len() - found.map_or(0, |found| found.len);
        shifted_at.is_some()
            || tokens.len() * self.bytes_per_token > self.archive.max_bytes()
            || if self.can_roll_back {
                n_left < MIN_SAVED
            } else {
                n_left == 0 || tokens.len() < MIN_SAVED
            }
    }

    /// Saves a running slot as it is now, because its memory cannot be cut back to here later.
    pub(crate) fn checkpoint(
        &mut self,
        context: &mut Context,
        slot: usize,
    ) -> Result<(), PluginError> {
        match self.is_archived(slot) {
            true => Ok(()),
            false => self.save(context, slot).map(drop),
        }
    }

    /// While there is nothing else to do: copies a piece of a kept slot to the archive. False if there is none to copy.
    pub(crate) fn save_one(&mut self, context: &mut Context) -> Result<bool, PluginError> {
        if !self.can_save {
            return Ok(false);
        }
        self.moving = Duration::ZERO;
        match self.next_unsaved() {
            Some(slot) => self.save(context, slot),
            None => Ok(false),
        }
    }

    /// Between two steps: takes one kept slot out of the KV memory that was not used for long, once a copy is there. Where room is
    /// short, others are copied too, before they have to go at once.
    pub(crate) fn retire(&mut self, context: &mut Context) -> Result<(), PluginError> {
        if !self.can_save {
            return Ok(());
        }
        if let Some(slot) = self.least_recently_kept(None)
            && self.slots[slot].last_used + KEPT_STEPS < self.clock
        {
            if self.save_in_time(context, slot)? {
                self.clear(context, slot)?;
            }
        } else if self.is_tight()
            && let Some(slot) = self.next_unsaved()
        {
            self.save_in_time(context, slot)?;
        }
        Ok(())
    }

    /// The next prompt takes a kept slot's place, or soon will.
    fn is_tight(&self) -> bool {
        let n_free = self.slots.iter().filter(|slot| slot.state == SlotState::Free).count();
        n_free == 0 || self.used() > self.n_cells / 4 * 3
    }

    /// Of the kept slots that are not in the archive, the longest unused. What was saved and had to go for others is not saved
    /// again and again.
    fn next_unsaved(&self) -> Option<usize> {
        let slots = self.slots.iter().enumerate();
        let new = slots
            .filter(|(_, slot)| slot.state == SlotState::Kept && slot.n_saved < slot.tokens.len());
        let new = new.filter(|(idx, _)| !self.is_archived(*idx));
        new.min_by_key(|(_, slot)| slot.last_used).map(|(idx, _)| idx)
    }
}
