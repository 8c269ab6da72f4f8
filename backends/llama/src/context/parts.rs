//! `hearth.parts/1`: what llama.cpp has for whole sequences, for parts of them.
//!
//! A part is saved as a sequence of its own, which shares the cells for that long, and is loaded as one, whose cells are then
//! given to the sequence that it belongs to. That sequence is one more than the host may use.

use super::LlamaContext;
use super::sequences::unsupported;
use crate::memory::{HEADER_LEN, seal, unseal};
use crate::shim::{error, invalid};
use hearth_abi::author::{Context, PartsContext};
use hearth_abi::raw::{Pos, Seq};
use hearth_abi::{Result, Status};
use llama_cpp_sys_2 as sys;
use std::ops::Range;

impl PartsContext for LlamaContext {
    fn part_save_len(&mut self, seq: Seq, p0: Pos, p1: Pos) -> Result<usize> {
        self.with_part(seq, p0..p1, |context, part| Ok(HEADER_LEN + context.state_len(part)?))
    }

    fn part_save(&mut self, seq: Seq, p0: Pos, p1: Pos, buffer: &mut [u8]) -> Result<usize> {
        let Some(state) = buffer.get_mut(HEADER_LEN..) else {
            return Err(error(Status::BufferTooSmall, "the header has no room"));
        };
        self.with_part(seq, p0..p1, |context, part| context.write_state(part, state))?;
        seal(buffer, self.mark, &(p0..p1));
        Ok(buffer.len())
    }

    fn part_load(&mut self, seq: Seq, data: &[u8]) -> Result<()> {
        let slot = self.check_seq(seq)?;
        let part = self.spare()?;
        let (state, positions) = unseal(data, self.mark)?;
        let len = self.len_of(seq);
        if positions.start != len {
            let message = format!(
                "the saved part begins at position {}, and sequence {seq} ends at {len}",
                positions.start
            );
            return Err(invalid(message));
        }
        let read = self.read_state(part, state);
        // SAFETY: the memory is the live context's; both sequences exist. Removing all never fails.
        unsafe {
            if read.is_ok() {
                sys::llama_memory_seq_cp(self.memory, part, seq, -1, -1);
            }
            sys::llama_memory_seq_rm(self.memory, part, -1, -1);
        }
        read?;
        self.image_ends[slot] = positions.end;
        if let Some(mtp) = &mut self.mtp {
            mtp.lost(seq);
        }
        Ok(())
    }
}

impl LlamaContext {
    /// The sequence that holds parts for a moment.
    fn spare(&self) -> Result<Seq> {
        match self.info().can_save_part {
            true => Ok(self.info.n_seq_max.cast_signed()),
            false => Err(unsupported("be saved in parts")),
        }
    }

    /// Calls `body` with a sequence that has these positions of `seq`.
    fn with_part<T>(
        &mut self,
        seq: Seq,
        positions: Range<Pos>,
        body: impl FnOnce(&mut Self, Seq) -> Result<T>,
    ) -> Result<T> {
        self.check_seq(seq)?;
        let part = self.spare()?;
        let (p0, p1, len) = (positions.start, positions.end, self.len_of(seq));
        if p0 < 0 || p0 >= p1 || p1 > len {
            return Err(invalid(format!("positions {p0} to {p1} are no part of sequence {seq}")));
        }
        // SAFETY: the memory is the live context's; both sequences exist, and the spare one is empty.
        unsafe { sys::llama_memory_seq_cp(self.memory, seq, part, p0, p1) };
        let result = body(self, part);
        // SAFETY: as above. Removing all never fails.
        unsafe { sys::llama_memory_seq_rm(self.memory, part, -1, -1) };
        result
    }
}
