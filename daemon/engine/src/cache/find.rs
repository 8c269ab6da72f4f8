//! Where a prompt goes: the place that holds most of it already, of those that its owner may use.

use super::{Cache, Entitled, MIN_SHARED, Placement, Slot, SlotState};

impl Cache {
    /// The best place for a prompt, with room for `n_cells` in all, if there is one now.
    pub(crate) fn find_place(&self, entitled: &Entitled<'_>, n_cells: usize) -> Option<Placement> {
        let placement = self.best_place(entitled)?;
        let n_running = self.cells.n_used_by(|slot| self.is_running(slot)) + self.promised();
        let needed = match placement {
            // Its cells are counted already.
            Placement::Copy { from, len, .. } if self.is_running(from) => n_cells - len,
            // The last piece may hold more than is wanted of it.
            Placement::Restore { found, .. } => n_cells.max(self.archive.len_up_to(found.piece)),
            _ => n_cells,
        };
        (n_running + needed <= self.n_cells).then_some(placement)
    }

    fn best_place(&self, entitled: &Entitled<'_>) -> Option<Placement> {
        if !self.reuse {
            return self.empty_slot().map(|slot| Placement::Fresh { slot });
        }
        let in_memory = self.best_prefix(entitled);
        let len = in_memory.map_or(0, Placement::len);
        if let Some(found) = self.archive.best(entitled, !self.can_roll_back)
            && found.len > len
            && found.len >= MIN_SHARED
            && let Some(to) = self.empty_slot()
        {
            return Some(Placement::Restore { found, to });
        }
        in_memory.or_else(|| self.empty_slot().map(|slot| Placement::Fresh { slot }))
    }

    /// How much of a prompt is here already, in either tier.
    pub(crate) fn best_held(&self, entitled: &Entitled<'_>) -> usize {
        self.best_place(entitled).map_or(0, Placement::len)
    }

    fn best_prefix(&self, entitled: &Entitled<'_>) -> Option<Placement> {
        let most = entitled.prompt.len().saturating_sub(1);
        let taken = self.slots.iter().enumerate().filter(|(_, slot)| slot.state != SlotState::Free);
        let usable = taken.filter_map(|(idx, slot)| {
            let len = entitled.prefix_of(slot.owner, slot.prefix());
            let whole = len == slot.tokens.len();
            let mine = slot.state == SlotState::Kept && slot.owner == entitled.owner;
            let possible =
                len > 0 && ((mine && (whole || self.can_roll_back)) || self.can_copy(slot, len));
            // The same conversation goes on, or is asked again: nobody misses what stands behind the prefix.
            let same = mine && (whole || (len == most && self.can_roll_back));
            possible.then_some((len, same, slot.last_used, idx))
        });
        let (len, same, _, idx) = usable.max()?;
        if same {
            return Some(Placement::Reuse { slot: idx, keep: len });
        }
        let slot = &self.slots[idx];
        // What stands behind a prefix is given up only where there is no other place.
        if self.can_copy(slot, len)
            && let Some(to) = self.empty_slot_beside(Some(idx))
        {
            return Some(Placement::Copy { from: idx, to, len });
        }
        let is_mine = slot.state == SlotState::Kept && slot.owner == entitled.owner;
        let can_cut = is_mine && self.can_roll_back && len >= MIN_SHARED;
        can_cut.then_some(Placement::Reuse { slot: idx, keep: len })
    }

    fn can_copy(&self, slot: &Slot, len: usize) -> bool {
        len >= MIN_SHARED && (self.can_copy_part || len == slot.tokens.len())
    }

    fn empty_slot(&self) -> Option<usize> {
        self.empty_slot_beside(None)
    }

    /// One that is free, or else can be emptied.
    fn empty_slot_beside(&self, kept: Option<usize>) -> Option<usize> {
        let free = self.slots.iter().position(|slot| slot.state == SlotState::Free);
        free.or_else(|| self.least_recently_kept(kept))
    }

    pub(super) fn least_recently_kept(&self, except: Option<usize>) -> Option<usize> {
        let kept = self
            .slots
            .iter()
            .enumerate()
            .filter(|(idx, slot)| slot.state == SlotState::Kept && Some(*idx) != except);
        kept.min_by_key(|(_, slot)| slot.last_used).map(|(idx, _)| idx)
    }
}
