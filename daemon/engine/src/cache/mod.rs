//! Which tokens lie in which sequence of the KV memory, whose they are, and who may use them.
//!
//! Every sequence number of the context is a slot: free, kept (finished or preempted, its memory may be reused), or
//! running. A new prompt takes over the longest prefix that its owner has somewhere: in a kept slot, in a slot that
//! still runs, or in the [archive]. From another owner it takes over no more than its public prefix, which is
//! the same for everybody, so that the time an answer takes tells nobody what others wrote.
//!
//! **Invariant.** A free slot has no tokens and no owner; a running slot has reserved at least its tokens; the
//! tokens of a slot are exactly what the context holds for it; the cells promised never exceed the context's. What stands
//! behind a shift is in nobody's prefix and in no archive.

mod archive;
mod cells;
mod find;
mod restoring;
mod saving;

use crate::images::{is_cut, n_positions, whole};
use archive::{Archive, Found};
use cells::Cells;
use hearth_abi::host::Context;
use hearth_abi::raw::{Pos, Seq, Token};
use hearth_abi::{ContextInfo, PluginError, Status};
use restoring::Restoring;
use std::ops::Range;
use std::time::Duration;

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
    /// Cells promised to a running sequence, those it holds included.
    reserved: usize,
    last_used: u64,
    /// Where tokens were taken out: what stands behind was computed with them, and is nobody's prefix.
    shifted_at: Option<usize>,
    /// Tokens that were copied to the archive, whatever became of them there.
    n_saved: usize,
    /// It is being filled from the archive.
    restoring: Option<Restoring>,
}

impl Slot {
    /// The tokens that others may find here.
    fn prefix(&self) -> &[Token] {
        &self.tokens[..self.shifted_at.unwrap_or(self.tokens.len())]
    }
}

/// A prompt, and what its owner may find of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entitled<'a> {
    pub(crate) owner: u32,
    pub(crate) prompt: &'a [Token],
    /// Tokens at the start that are the same for everybody, such as the model's own system prompt.
    pub(crate) n_public: usize,
}

impl Entitled<'_> {
    /// How much of these tokens of `owner` may be reused.
    pub(crate) fn prefix_of(&self, owner: u32, tokens: &[Token]) -> usize {
        let pairs = tokens.iter().zip(self.of_owner(owner));
        whole(self.prompt, pairs.take_while(|(a, b)| a == b).count())
    }

    /// What of the prompt may come from `owner`. One token at least has to be computed, for its logits.
    fn of_owner(&self, owner: u32) -> &[Token] {
        let most = self.prompt.len().saturating_sub(1);
        &self.prompt[..if owner == self.owner { most } else { most.min(self.n_public) }]
    }
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
    /// An empty slot that is to be filled from the archive.
    Restore { found: Found, to: usize },
}

impl Placement {
    fn len(self) -> usize {
        match self {
            Self::Fresh { .. } => 0,
            Self::Reuse { keep, .. } => keep,
            Self::Copy { len, .. } => len,
            Self::Restore { found, .. } => found.len,
        }
    }
}

/// What bounds the cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// For saved sequences; 0: none are saved.
    pub(crate) archive_bytes: usize,
    /// The longest that saving and restoring may hold up a step.
    pub(crate) save_time: Duration,
    /// Prompts may find what others left.
    pub(crate) reuse: bool,
}

#[derive(Debug)]
pub(crate) struct Cache {
    slots: Vec<Slot>,
    cells: Cells,
    archive: Archive,
    n_cells: usize,
    clock: u64,
    can_roll_back: bool,
    can_copy_part: bool,
    can_shift: bool,
    can_save: bool,
    /// Sequences are saved piece by piece.
    in_parts: bool,
    reuse: bool,
    save_time: Duration,
    /// Time that was spent on saving and restoring since the last step.
    moving: Duration,
    /// Learned from sequences that were saved.
    save_time_per_token: Duration,
    bytes_per_token: usize,
}

/// A shared prefix shorter than this is not worth a slot, or waiting for.
pub(crate) const MIN_SHARED: usize = 8;

impl Cache {
    pub(crate) fn new(info: &ContextInfo, bounds: Bounds) -> Self {
        let slot = || Slot {
            state: SlotState::Free,
            tokens: Vec::new(),
            owner: 0,
            reserved: 0,
            last_used: 0,
            shifted_at: None,
            n_saved: 0,
            restoring: None,
        };
        let n_slots = info.n_seq_max as usize;
        Self {
            slots: (0..n_slots).map(|_| slot()).collect(),
            cells: Cells::new(n_slots),
            archive: Archive::new(bounds.archive_bytes),
            n_cells: info.n_ctx as usize,
            clock: 0,
            can_roll_back: info.can_roll_back,
            can_copy_part: info.can_copy_part,
            can_shift: info.can_shift && info.can_roll_back,
            can_save: info.can_save && bounds.archive_bytes > 0,
            in_parts: info.can_save_part && info.can_roll_back,
            reuse: bounds.reuse,
            save_time: bounds.save_time,
            moving: Duration::ZERO,
            save_time_per_token: Duration::from_micros(200),
            bytes_per_token: 0,
        }
    }

    pub(crate) fn slot(&self, slot: usize) -> &Slot {
        &self.slots[slot]
    }

    pub(crate) fn len_of(&self, slot: usize) -> usize {
        self.slots[slot].tokens.len()
    }

    /// A finished sequence can only go on where it ended.
    pub(crate) fn needs_checkpoints(&self) -> bool {
        !self.can_roll_back && self.can_save
    }

    pub(crate) fn can_roll_back(&self) -> bool {
        self.can_roll_back
    }

    pub(crate) fn can_copy_part(&self) -> bool {
        self.can_copy_part
    }

    pub(crate) fn can_shift(&self) -> bool {
        self.can_shift
    }

    /// Bytes of saved sequences.
    pub(crate) fn n_archived_bytes(&self) -> usize {
        self.archive.n_bytes()
    }

    /// Tells the cache that a step was made.
    pub(crate) fn tick(&mut self) {
        self.clock += 1;
        self.moving = Duration::ZERO;
    }

    /// The position that comes next behind the first `len` tokens.
    fn position(&self, slot: usize, len: usize) -> Pos {
        pos_of(n_positions(&self.slots[slot].tokens[..len]))
    }

    /// Cells in use, and promised.
    pub(crate) fn n_cells_held(&self) -> (usize, usize) {
        (self.cells.n_used(), self.promised())
    }

    fn used(&self) -> usize {
        self.cells.n_used() + self.promised()
    }

    /// Cells that running sequences will fill.
    fn promised(&self) -> usize {
        self.slots.iter().map(|slot| slot.reserved.saturating_sub(slot.tokens.len())).sum()
    }

    fn is_running(&self, slot: usize) -> bool {
        self.slots[slot].state == SlotState::Running
    }

    /// Does what `find_place` proposed. Answers the slot and how many tokens of the prompt it holds, or will when it is filled.
    pub(crate) fn place(
        &mut self,
        context: &mut Context,
        placement: Placement,
        owner: u32,
        mut n_cells: usize,
    ) -> Result<(usize, usize), PluginError> {
        let (slot, held) = match placement {
            Placement::Fresh { slot } => {
                self.evict(context, slot)?;
                (slot, 0)
            }
            Placement::Reuse { slot, keep } => (slot, self.cut(context, slot, keep)?),
            Placement::Copy { from, to, len } => {
                self.evict(context, to)?;
                let part = (len < self.len_of(from)).then(|| self.position(from, len));
                context.seq_copy(seq_of(from), seq_of(to), part)?;
                self.cells.share(from, to, len);
                self.slots[to].tokens = self.slots[from].tokens[..len].to_vec();
                (to, len)
            }
            Placement::Restore { found, to } => {
                match self.begin_restoring(context, found, to, n_cells)? {
                    Some(n_all) => {
                        n_cells = n_all;
                        (to, found.len)
                    }
                    None => (to, 0),
                }
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
    pub(crate) fn cut(
        &mut self,
        context: &mut Context,
        slot: usize,
        keep: usize,
    ) -> Result<usize, PluginError> {
        if keep == self.slots[slot].tokens.len() {
            return Ok(keep);
        }
        match context.seq_remove(seq_of(slot), self.position(slot, keep), None) {
            Ok(()) => {
                let held = &mut self.slots[slot];
                held.tokens.truncate(keep);
                held.n_saved = held.n_saved.min(keep);
                held.shifted_at = held.shifted_at.filter(|at| *at < keep);
                self.cells.cut(slot, keep);
                Ok(keep)
            }
            Err(error) if error.status == Status::Unsupported => {
                self.clear(context, slot)?;
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes tokens out of a running slot and moves what follows them up. False, and nothing is changed, if other running
    /// sequences share what would move; kept ones that do are given up.
    pub(crate) fn shift(
        &mut self,
        context: &mut Context,
        slot: usize,
        out: Range<usize>,
    ) -> Result<bool, PluginError> {
        let sharers = self.cells.sharers(slot, out.end);
        if sharers.iter().any(|other| self.is_running(*other)) {
            return Ok(false);
        }
        for other in sharers {
            self.evict(context, other)?;
        }
        let seq = seq_of(slot);
        let [start, end, len] =
            [out.start, out.end, self.len_of(slot)].map(|len| self.position(slot, len));
        context.seq_remove(seq, start, Some(end))?;
        context.seq_shift(seq, end, len, start - end)?;
        self.cells.take_out(slot, out.clone());
        let held = &mut self.slots[slot];
        held.shifted_at = Some(held.shifted_at.map_or(out.start, |at| at.min(out.start)));
        held.reserved -= out.len();
        held.tokens.drain(out);
        Ok(true)
    }

    /// Gives up kept slots, the longest unused first, until `n_more` cells are free. False if that is not enough.
    pub(crate) fn make_room(
        &mut self,
        context: &mut Context,
        n_more: usize,
    ) -> Result<bool, PluginError> {
        while self.used() + n_more > self.n_cells {
            let Some(slot) = self.least_recently_kept(None) else { return Ok(false) };
            self.evict(context, slot)?;
        }
        Ok(true)
    }

    /// Gives up all kept slots. False if there were none.
    pub(crate) fn give_up_kept(&mut self, context: &mut Context) -> Result<bool, PluginError> {
        let mut any = false;
        while let Some(slot) = self.least_recently_kept(None) {
            self.evict(context, slot)?;
            any = true;
        }
        Ok(any)
    }

    /// Empties a slot, whatever it was.
    pub(crate) fn clear(&mut self, context: &mut Context, slot: usize) -> Result<(), PluginError> {
        if !self.slots[slot].tokens.is_empty() {
            context.seq_remove(seq_of(slot), 0, None)?;
        }
        self.cells.cut(slot, 0);
        self.forget(slot);
        Ok(())
    }

    fn forget(&mut self, slot: usize) {
        self.end_restoring(slot);
        let slot = &mut self.slots[slot];
        slot.state = SlotState::Free;
        slot.tokens.clear();
        slot.owner = 0;
        slot.reserved = 0;
        slot.shifted_at = None;
        slot.n_saved = 0;
    }

    /// Ends a running slot and keeps its memory for reuse.
    pub(crate) fn keep(&mut self, slot: usize) {
        if self.slots[slot].tokens.is_empty() {
            return self.forget(slot);
        }
        self.end_restoring(slot);
        self.slots[slot].state = SlotState::Kept;
        self.slots[slot].reserved = 0;
        self.touch(slot);
    }

    /// Notes tokens that a decode appended.
    pub(crate) fn append(&mut self, slot: usize, tokens: &[Token]) {
        self.slots[slot].tokens.extend_from_slice(tokens);
        self.cells.append(slot, tokens.len());
    }

    /// Cells that a running slot needs beyond what it has reserved, to hold `n_more` tokens more.
    pub(crate) fn lacks(&self, slot: usize, n_more: usize) -> usize {
        let slot = &self.slots[slot];
        (slot.tokens.len() + n_more).saturating_sub(slot.reserved)
    }

    /// Reserves cells for `n_more` tokens of a running slot. `make_room` has found them.
    pub(crate) fn reserve(&mut self, slot: usize, n_more: usize) {
        let slot = &mut self.slots[slot];
        slot.reserved = slot.reserved.max(slot.tokens.len() + n_more);
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
                    slot.tokens.is_empty() && slot.reserved == 0 && slot.shifted_at.is_none(),
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
            assert!(!is_cut(&slot.tokens), "slot {idx} ends in an image");
            let is_running = slot.state == SlotState::Running;
            assert!(slot.restoring.is_none() || is_running, "slot {idx} is filled for nobody");
        }
        self.cells.verify_invariants(|slot| self.slots[slot].tokens.len());
        let restoring = self.slots.iter().filter_map(|slot| slot.restoring.as_ref());
        self.archive.verify_invariants(&restoring.map(|slot| slot.last).collect::<Vec<_>>());
        assert!(
            self.used() <= self.n_cells,
            "{} cells promised, {} there",
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
