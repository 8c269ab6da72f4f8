//! From the archive back into KV memory, piece by piece.
//!
//! Nobody's answer goes on meanwhile, so between two steps there is no more of it than there is time for. A slot that is being
//! filled runs for its sequence already, and holds what has come so far.

use super::archive::{Found, PieceId};
use super::{Cache, seq_of};
use hearth_abi::host::Context;
use hearth_abi::{PluginError, Status};
use std::time::Instant;

#[derive(Debug)]
pub(super) struct Restoring {
    /// Held in the archive.
    pub(super) last: PieceId,
    /// What is still to come, the next one last.
    left: Vec<PieceId>,
    /// The slot is cut to so many tokens when all are there.
    len: usize,
    /// What it then needs.
    n_cells: usize,
}

impl Cache {
    /// Makes room in a free slot for saved pieces. Answers how many cells it takes to have them all; `None` if there are not
    /// so many.
    pub(super) fn begin_restoring(
        &mut self,
        context: &mut Context,
        found: Found,
        to: usize,
        n_cells: usize,
    ) -> Result<Option<usize>, PluginError> {
        let Found { piece, len } = found;
        // Making room archives others, which may drop pieces.
        self.archive.hold(piece);
        self.evict(context, to)?;
        let n_all = self.archive.len_up_to(piece);
        if !self.make_room(context, n_all)? {
            self.archive.release(piece);
            return Ok(None);
        }
        let left = self.archive.up_to(piece).collect();
        self.slots[to].restoring = Some(Restoring { last: piece, left, len, n_cells });
        Ok(Some(n_cells.max(n_all)))
    }

    pub(crate) fn is_restoring(&self, slot: usize) -> bool {
        self.slots[slot].restoring.is_some()
    }

    /// Loads pieces while there is time, at least one if nothing else took time since the last step. True when all that can be is
    /// there.
    pub(crate) fn restore(
        &mut self,
        context: &mut Context,
        slot: usize,
    ) -> Result<bool, PluginError> {
        while let Some(restoring) = &self.slots[slot].restoring {
            let Some(piece) = restoring.left.last() else {
                let (len, n_cells) = (restoring.len, restoring.n_cells);
                self.end_restoring(slot);
                let held = self.cut(context, slot, len.min(self.len_of(slot)))?;
                self.slots[slot].reserved = n_cells.max(held);
                break;
            };
            let (tokens, data) = self.archive.piece(*piece);
            if !self.moving.is_zero() && self.moving + self.time_of(tokens.len()) > self.save_time {
                return Ok(false);
            }
            let start = Instant::now();
            let loaded = match self.in_parts {
                true => context.part_load(seq_of(slot), data),
                false => context.seq_load(seq_of(slot), data),
            };
            self.moving += start.elapsed();
            let is_loaded = match loaded {
                Ok(()) => true,
                Err(error) if error.status == Status::Failed => return Err(error),
                // Damaged bytes, or less room than was counted: the rest is computed instead.
                Err(_) => false,
            };
            let filled = &mut self.slots[slot];
            if is_loaded {
                filled.tokens.extend_from_slice(tokens);
                self.cells.append(slot, tokens.len());
            }
            if let Some(restoring) = &mut filled.restoring {
                restoring.left.truncate(if is_loaded { restoring.left.len() - 1 } else { 0 });
            }
        }
        Ok(true)
    }

    /// The slot is filled no further.
    pub(super) fn end_restoring(&mut self, slot: usize) {
        if let Some(restoring) = self.slots[slot].restoring.take() {
            self.archive.release(restoring.last);
        }
    }
}
