//! Moving, saving and loading whole sequences.
//!
//! Two things that llama.cpp leaves to its caller are done here. It moves positions per cell, so a shift of one sequence
//! would move every sequence that shares its cells: who shares what is noted, and such a shift refused. And it cuts a
//! sliding-window cache wherever it is told to: [`MemoryKind`](crate::memory::MemoryKind) says where that is sound.

use super::LlamaContext;
use crate::memory::{HEADER_LEN, MemoryKind, seal, unseal};
use crate::shim::{
    captured, error, guarded, hearth_shim_seq_get, hearth_shim_seq_set, hearth_shim_seq_shift,
    hearth_shim_seq_size, invalid,
};
use hearth_abi::raw::{Pos, Seq};
use hearth_abi::{PluginError, Result, Status};
use llama_cpp_sys_2 as sys;

pub(super) fn unsupported(what: &str) -> PluginError {
    error(Status::Unsupported, format!("this model's memory cannot {what}"))
}

fn failed(why: String) -> PluginError {
    error(Status::Failed, why)
}

impl LlamaContext {
    /// The sequence as an index, if it exists.
    pub(super) fn check_seq(&self, seq: Seq) -> Result<usize> {
        let n_seq_max = self.info.n_seq_max;
        let slot = usize::try_from(seq).ok().filter(|slot| *slot < n_seq_max as usize);
        slot.ok_or_else(|| invalid(format!("sequence {seq} is not below `n_seq_max`, {n_seq_max}")))
    }

    /// Positions of a sequence that exists. An image may take more than its cells show.
    pub(super) fn len_of(&self, seq: Seq) -> Pos {
        // SAFETY: the memory is the live context's, or null, which llama.cpp answers with -1.
        let last = unsafe { sys::llama_memory_seq_pos_max(self.memory, seq) };
        let image_end = usize::try_from(seq).ok().and_then(|seq| self.image_ends.get(seq));
        (last + 1).max(image_end.copied().unwrap_or(0))
    }

    /// The oldest position that every layer still holds.
    fn oldest_of(&self, seq: Seq) -> Pos {
        // SAFETY: as in len_of.
        unsafe { sys::llama_memory_seq_pos_min(self.memory, seq) }
    }

    fn clear(&mut self, seq: Seq, slot: usize) {
        // SAFETY: the memory is the live context's, or null; the sequence exists. Removing all never fails.
        unsafe { sys::llama_memory_seq_rm(self.memory, seq, -1, -1) };
        self.sharing.removed(slot, 0, Pos::MAX);
        self.image_ends[slot] = 0;
        if let Some(mtp) = &mut self.mtp {
            mtp.lost(seq);
        }
    }

    pub(super) fn remove(&mut self, seq: Seq, p0: Pos, p1: Pos) -> Result<()> {
        let slot = self.check_seq(seq)?;
        if p0 < 0 || p1 < -1 || (p1 >= 0 && p1 < p0) {
            return Err(invalid(format!("positions {p0} to {p1} are no range")));
        }
        let len = self.len_of(seq);
        let to_end = p1 < 0 || p1 >= len;
        if p0 == 0 && to_end {
            self.clear(seq, slot);
            return Ok(());
        }
        if p0 >= len || p0 == p1 {
            return Ok(());
        }
        let oldest = self.oldest_of(seq);
        let sound = if to_end {
            self.kind.can_cut_to(oldest, p0)
        } else {
            self.kind.can_take_out_before(oldest, p1, len)
        };
        let end = if to_end { -1 } else { p1 };
        // SAFETY: the memory is the live context's; the sequence exists.
        let removed = sound && unsafe { sys::llama_memory_seq_rm(self.memory, seq, p0, end) };
        if !removed {
            return Err(unsupported(&format!("be cut at position {p0} of {len}")));
        }
        let end = if to_end { Pos::MAX } else { p1 };
        self.sharing.removed(slot, p0, end);
        if (p0..=end).contains(&self.image_ends[slot]) {
            self.image_ends[slot] = p0;
        }
        match &mut self.mtp {
            Some(mtp) if to_end => mtp.cut(seq, p0),
            // What follows is moved, which the heads do not follow.
            Some(mtp) => mtp.lost(seq),
            None => {}
        }
        Ok(())
    }

    pub(super) fn copy(&mut self, from: Seq, to: Seq, p0: Pos, p1: Pos) -> Result<()> {
        let (from_slot, to_slot) = (self.check_seq(from)?, self.check_seq(to)?);
        if from == to || p0 != 0 || p1 < -1 {
            return Err(invalid(format!(
                "cannot copy positions {p0} to {p1} of sequence {from} to {to}"
            )));
        }
        if self.kind == MemoryKind::None {
            return Err(unsupported("copy a sequence"));
        }
        if self.len_of(to) > 0 {
            return Err(invalid(format!("sequence {to} is not empty")));
        }
        let len = self.len_of(from);
        if len == 0 || p1 == 0 {
            return Ok(());
        }
        let whole = p1 < 0 || p1 >= len;
        if !whole && !self.kind.can_cut_to(self.oldest_of(from), p1) {
            return Err(unsupported(&format!("copy {p1} of {len} positions")));
        }
        // SAFETY: the memory is the live context's; both sequences exist, and `to` is empty.
        unsafe { sys::llama_memory_seq_cp(self.memory, from, to, -1, if whole { -1 } else { p1 }) };
        self.sharing.copied(from_slot, to_slot, if whole { len } else { p1 });
        self.image_ends[to_slot] = self.image_ends[from_slot].min(if whole { len } else { p1 });
        if let Some(mtp) = &mut self.mtp {
            mtp.copied(from, to, if whole { len } else { p1 });
        }
        Ok(())
    }

    pub(super) fn shift(&mut self, seq: Seq, p0: Pos, p1: Pos, delta: Pos) -> Result<()> {
        let slot = self.check_seq(seq)?;
        if !self.info.can_shift {
            return Err(unsupported("shift positions"));
        }
        let len = self.len_of(seq);
        let end = if p1 < 0 { len } else { p1.min(len) };
        if p0 < 0
            || p0.checked_add(delta).is_none_or(|to| to < 0)
            || end.checked_add(delta).is_none()
        {
            return Err(invalid(format!("cannot shift positions {p0} to {p1} by {delta}")));
        }
        if p0 >= end || delta == 0 {
            return Ok(());
        }
        if !self.sharing.is_own_from(slot, p0) {
            return Err(unsupported("shift what another sequence shares"));
        }
        let raw = self.raw();
        if let Some(mtp) = &mut self.mtp {
            mtp.lost(seq);
        }
        // SAFETY: a live context; the sequence exists and shares none of these cells; no position becomes negative.
        guarded(|message| unsafe { hearth_shim_seq_shift(raw, seq, p0, end, delta, message) })
            .map_err(failed)?;
        let image_end = &mut self.image_ends[slot];
        if (p0 + 1..=end).contains(image_end) {
            *image_end += delta;
        }
        Ok(())
    }

    pub(super) fn save_len(&mut self, seq: Seq) -> Result<usize> {
        self.check_seq(seq)?;
        if self.kind == MemoryKind::None {
            return Err(unsupported("be saved"));
        }
        Ok(HEADER_LEN + self.state_len(seq)?)
    }

    pub(super) fn save(&mut self, seq: Seq, buffer: &mut [u8]) -> Result<usize> {
        let needed = self.save_len(seq)?;
        let Some(buffer) = buffer.get_mut(..needed) else {
            return Err(error(Status::BufferTooSmall, format!("the state has {needed} bytes")));
        };
        self.write_state(seq, &mut buffer[HEADER_LEN..])?;
        seal(buffer, self.mark, &(0..self.len_of(seq)));
        Ok(needed)
    }

    pub(super) fn load(&mut self, seq: Seq, data: &[u8]) -> Result<()> {
        let slot = self.check_seq(seq)?;
        if self.kind == MemoryKind::None {
            return Err(unsupported("be loaded"));
        }
        self.clear(seq, slot);
        let (state, positions) = unseal(data, self.mark)?;
        if positions.start != 0 {
            return Err(invalid("the saved part is not the beginning of a sequence"));
        }
        if let Err(error) = self.read_state(seq, state) {
            self.clear(seq, slot);
            return Err(error);
        }
        self.image_ends[slot] = positions.end;
        Ok(())
    }

    pub(super) fn state_len(&mut self, seq: Seq) -> Result<usize> {
        let (raw, mut len) = (self.raw(), 0);
        // SAFETY: a live context; the sequence exists; the out-parameter is ours.
        guarded(|message| unsafe { hearth_shim_seq_size(raw, seq, &raw mut len, message) })
            .map_err(failed)?;
        Ok(len)
    }

    pub(super) fn write_state(&mut self, seq: Seq, state: &mut [u8]) -> Result<()> {
        let (raw, mut len) = (self.raw(), 0);
        // SAFETY: a live context; the sequence exists; llama.cpp writes no more than the length given.
        let called = captured(|message| unsafe {
            hearth_shim_seq_get(raw, seq, state.as_mut_ptr(), state.len(), &raw mut len, message)
        });
        if !called.is_ok() || len != state.len() {
            return Err(failed(format!("cannot save sequence {seq}: {}", called.why())));
        }
        Ok(())
    }

    /// Fills an empty sequence. After an error it may hold something.
    pub(super) fn read_state(&mut self, seq: Seq, state: &[u8]) -> Result<()> {
        let (raw, mut len) = (self.raw(), 0);
        // SAFETY: a live context; the sequence exists; llama.cpp checks each read against the length given.
        let called = captured(|message| unsafe {
            hearth_shim_seq_set(raw, seq, state.as_ptr(), state.len(), &raw mut len, message)
        });
        if called.is_ok() && len == state.len() {
            return Ok(());
        }
        if called.mentions("available cells") || called.mentions("not enough cells") {
            return Err(error(Status::NoKvSpace, "no room in the context for the saved sequence"));
        }
        Err(invalid(format!("cannot load the saved sequence: {}", called.why())))
    }
}
