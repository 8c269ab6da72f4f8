//! Which tokens lie in which sequence of the KV memory, and whose they are.
//!
//! Every sequence number of the context is a slot: free, kept (finished, its memory may be reused), or running. A
//! new prompt takes over the longest prefix that its owner has somewhere, also from a sequence that still runs. Cells are
//! counted per slot; memory shared by copies counts twice, so the real use is at most what is counted.
//!
//! **Invariant.** A free slot has no tokens and no owner; a running slot has reserved at least its tokens; the
//! tokens of a slot are exactly what the context holds for it; the cells counted never exceed the context's.

use hearth_abi::host::Context;
use hearth_abi::raw::{Pos, Seq, Token};
use hearth_abi::{PluginError, Status};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SlotState {
    Free,
    Kept,
    Running,
}

#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) state: SlotState,
    pub(crate) tokens: Vec<Token>,
    owner: u32,
    /// Cells promised to a running sequence.
    reserved: usize,
    last_used: u64,
}

/// Where a prompt would go, and how much of it is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placement {
    /// An empty slot.
    Fresh { slot: usize },
    /// A kept slot, cut back to `keep` tokens.
    Reuse { slot: usize, keep: usize },
    /// An empty slot that begins as a copy.
    Copy { from: usize, to: usize, len: usize },
}

#[derive(Debug)]
pub(crate) struct Cache {
    slots: Vec<Slot>,
    n_cells: usize,
    clock: u64,
    can_roll_back: bool,
    can_copy_part: bool,
}

/// A copy shorter than this is not worth a slot.
const MIN_SHARED: usize = 8;

impl Cache {
    pub(crate) fn new(
        n_slots: usize,
        n_cells: usize,
        can_roll_back: bool,
        can_copy_part: bool,
    ) -> Self {
        let slot = || Slot {
            state: SlotState::Free,
            tokens: Vec::new(),
            owner: 0,
            reserved: 0,
            last_used: 0,
        };
        Self {
            slots: (0..n_slots).map(|_| slot()).collect(),
            n_cells,
            clock: 0,
            can_roll_back,
            can_copy_part,
        }
    }

    pub(crate) fn slot(&self, slot: usize) -> &Slot {
        &self.slots[slot]
    }

    pub(crate) fn len_of(&self, slot: usize) -> usize {
        self.slots[slot].tokens.len()
    }

    fn used(&self) -> usize {
        self.slots.iter().map(|slot| slot.reserved.max(slot.tokens.len())).sum()
    }

    /// Cells that could be had by giving up every kept slot.
    fn obtainable(&self) -> usize {
        let running = self.slots.iter().filter(|slot| slot.state == SlotState::Running);
        self.n_cells.saturating_sub(running.map(|slot| slot.reserved.max(slot.tokens.len())).sum())
    }

    /// The best place for a prompt that needs `n_cells` in all, if there is one now.
    pub(crate) fn find_place(
        &self,
        owner: u32,
        prompt: &[Token],
        n_cells: usize,
    ) -> Option<Placement> {
        if self.obtainable() < n_cells {
            return None;
        }
        self.best_prefix(owner, prompt)
            .or_else(|| self.empty_slot().map(|slot| Placement::Fresh { slot }))
    }

    fn best_prefix(&self, owner: u32, prompt: &[Token]) -> Option<Placement> {
        // One token at least has to be computed, for its logits.
        let most = prompt.len().saturating_sub(1);
        let shared = |slot: &Slot| {
            slot.tokens.iter().zip(&prompt[..most]).take_while(|(a, b)| a == b).count()
        };
        let candidates = self
            .slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.state != SlotState::Free && slot.owner == owner);
        let usable = candidates.filter_map(|(idx, slot)| {
            let len = shared(slot);
            let whole = len == slot.tokens.len();
            let kept = slot.state == SlotState::Kept;
            let possible = len > 0
                && ((kept && (whole || self.can_roll_back))
                    || (self.can_copy_part && len >= MIN_SHARED));
            // The same conversation goes on, or is asked again: nobody misses what stands behind the prefix.
            let same = kept && (whole || (len == most && self.can_roll_back));
            possible.then_some((len, same, slot.last_used, idx))
        });
        let (len, same, _, idx) = usable.max()?;
        if same {
            return Some(Placement::Reuse { slot: idx, keep: len });
        }
        let free = self.slots.iter().position(|slot| slot.state == SlotState::Free);
        match free {
            Some(to) if self.can_copy_part && len >= MIN_SHARED => {
                Some(Placement::Copy { from: idx, to, len })
            }
            _ if self.slots[idx].state == SlotState::Kept && self.can_roll_back => {
                Some(Placement::Reuse { slot: idx, keep: len })
            }
            // Only a running slot shares, and no slot is free: one that is kept by somebody else can be emptied.
            _ => {
                let to = self.least_recently_kept(Some(idx))?;
                (self.can_copy_part && len >= MIN_SHARED).then_some(Placement::Copy {
                    from: idx,
                    to,
                    len,
                })
            }
        }
    }

    fn empty_slot(&self) -> Option<usize> {
        let free = self.slots.iter().position(|slot| slot.state == SlotState::Free);
        free.or_else(|| self.least_recently_kept(None))
    }

    fn least_recently_kept(&self, except: Option<usize>) -> Option<usize> {
        let kept = self
            .slots
            .iter()
            .enumerate()
            .filter(|(idx, slot)| slot.state == SlotState::Kept && Some(*idx) != except);
        kept.min_by_key(|(_, slot)| slot.last_used).map(|(idx, _)| idx)
    }

    /// Does what `find_place` proposed. Answers the slot and how many tokens of the prompt it holds.
    pub(crate) fn place(
        &mut self,
        context: &mut Context,
        placement: Placement,
        owner: u32,
        n_cells: usize,
    ) -> Result<(usize, usize), PluginError> {
        let (slot, held) = match placement {
            Placement::Fresh { slot } => {
                self.clear(context, slot)?;
                (slot, 0)
            }
            Placement::Reuse { slot, keep } => (slot, self.cut(context, slot, keep)?),
            Placement::Copy { from, to, len } => {
                self.clear(context, to)?;
                context.seq_copy(seq_of(from), seq_of(to), Some(pos_of(len)))?;
                self.slots[to].tokens = self.slots[from].tokens[..len].to_vec();
                (to, len)
            }
        };
        let taken = &mut self.slots[slot];
        taken.state = SlotState::Running;
        taken.owner = owner;
        taken.reserved = n_cells.max(taken.tokens.len());
        self.touch(slot);
        self.make_room(context, 0)?;
        Ok((slot, held))
    }

    /// Cuts a slot back to its first `keep` tokens, or empties it where the memory cannot be cut.
    fn cut(
        &mut self,
        context: &mut Context,
        slot: usize,
        keep: usize,
    ) -> Result<usize, PluginError> {
        if keep == self.slots[slot].tokens.len() {
            return Ok(keep);
        }
        match context.seq_remove(seq_of(slot), pos_of(keep), None) {
            Ok(()) => {
                self.slots[slot].tokens.truncate(keep);
                Ok(keep)
            }
            Err(error) if error.status == Status::Unsupported => {
                self.clear(context, slot)?;
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }

    /// Gives up kept slots, the longest unused first, until `n_more` cells are free. False if that is not enough.
    pub(crate) fn make_room(
        &mut self,
        context: &mut Context,
        n_more: usize,
    ) -> Result<bool, PluginError> {
        while self.used() + n_more > self.n_cells {
            let Some(slot) = self.least_recently_kept(None) else { return Ok(false) };
            self.clear(context, slot)?;
        }
        Ok(true)
    }

    /// Gives up all kept slots. False if there were none.
    pub(crate) fn give_up_kept(&mut self, context: &mut Context) -> Result<bool, PluginError> {
        let mut any = false;
        while let Some(slot) = self.least_recently_kept(None) {
            self.clear(context, slot)?;
            any = true;
        }
        Ok(any)
    }

    /// Empties a slot, whatever it was.
    pub(crate) fn clear(&mut self, context: &mut Context, slot: usize) -> Result<(), PluginError> {
        if !self.slots[slot].tokens.is_empty() {
            context.seq_remove(seq_of(slot), 0, None)?;
        }
        self.forget(slot);
        Ok(())
    }

    /// Empties a slot whose memory was removed already, or whose context is gone.
    fn forget(&mut self, slot: usize) {
        let slot = &mut self.slots[slot];
        slot.state = SlotState::Free;
        slot.tokens.clear();
        slot.owner = 0;
        slot.reserved = 0;
    }

    /// Ends a running slot and keeps its memory for reuse.
    pub(crate) fn keep(&mut self, slot: usize) {
        if self.slots[slot].tokens.is_empty() {
            return self.forget(slot);
        }
        self.slots[slot].state = SlotState::Kept;
        self.slots[slot].reserved = 0;
        self.touch(slot);
    }

    /// Notes tokens that a decode appended.
    pub(crate) fn append(&mut self, slot: usize, tokens: &[Token]) {
        self.slots[slot].tokens.extend_from_slice(tokens);
    }

    /// A running slot needs one more cell than it has reserved.
    pub(crate) fn must_grow(&self, slot: usize) -> bool {
        self.slots[slot].tokens.len() >= self.slots[slot].reserved
    }

    /// Reserves one more cell for a running slot. `make_room` has found it.
    pub(crate) fn grow(&mut self, slot: usize) {
        self.slots[slot].reserved = self.slots[slot].tokens.len() + 1;
    }

    fn touch(&mut self, slot: usize) {
        self.clock += 1;
        self.slots[slot].last_used = self.clock;
    }

    /// Panics if the invariant at the head of this file does not hold. `running` are the slots of running sequences.
    pub(crate) fn verify_invariants(&self, running: &[usize]) {
        for (idx, slot) in self.slots.iter().enumerate() {
            assert_eq!(
                slot.state == SlotState::Running,
                running.contains(&idx),
                "slot {idx} runs for nobody"
            );
            match slot.state {
                SlotState::Free => assert!(
                    slot.tokens.is_empty() && slot.reserved == 0,
                    "free slot {idx} holds something"
                ),
                SlotState::Kept => {
                    assert!(!slot.tokens.is_empty() && slot.reserved == 0, "kept slot {idx}")
                }
                SlotState::Running => assert!(
                    slot.reserved >= slot.tokens.len(),
                    "slot {idx} holds more than reserved"
                ),
            }
        }
        assert!(
            self.used() <= self.n_cells,
            "{} cells counted, {} there",
            self.used(),
            self.n_cells
        );
    }
}

pub(crate) fn seq_of(slot: usize) -> Seq {
    Seq::try_from(slot).unwrap_or(Seq::MAX)
}

pub(crate) fn pos_of(n: usize) -> Pos {
    Pos::try_from(n).unwrap_or(Pos::MAX)
}
