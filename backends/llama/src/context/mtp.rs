//! `hearth.mtp/1`: a second context, of the layers that only guess, which follows the first one step by step.
//!
//! Such a layer reads a token together with the state that the trunk had behind the token before. So each decode of the trunk is
//! followed by one of the heads over the same tokens, each with the state of its predecessor, and what is done to a
//! sequence's memory is done to theirs. A guess is one more token, with the state behind the last one; the state behind a guess
//! is the head's own, and after guessing its cells are given back.
//!
//! Where the state behind a sequence's last token is not known (after a copy, a load, or a cut behind the last step), nothing is
//! guessed until the next decode, and that one's first token is read with zeros: its later guesses are a little worse, never wrong
//! text, because the host tests them.

use super::LlamaContext;
use super::params::raw_params;
use crate::shim::{
    BatchHandle, MtpToken, captured, error, guarded, hearth_shim_context_bytes,
    hearth_shim_context_new, hearth_shim_mtp_begin, hearth_shim_mtp_decode, hearth_shim_mtp_state,
    invalid, llama_batch_ext_free,
};
use hearth_abi::author::{BatchRef, MtpContext};
use hearth_abi::raw::{Pos, Seq, Token};
use hearth_abi::{ContextConfig, PluginError, Result, Status};
use llama_cpp_sys_2 as sys;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// States kept of a sequence's last step: as far back as a host cuts wrong guesses off.
const N_KEPT: usize = 33;
/// A single head says the token after the next one. It can go on from its own state, as llama-server lets it.
const MOST_OF_ONE_HEAD: u32 = 8;

/// The heads and what they need of the trunk.
#[derive(Debug)]
pub(super) struct Mtp {
    raw: NonNull<sys::llama_context>,
    batch: NonNull<BatchHandle>,
    memory: sys::llama_memory_t,
    n_embd: usize,
    n_vocab: usize,
    n_batch: usize,
    n_most: u32,
    /// The last states of each sequence.
    of: Vec<States>,
    /// Where a state is not known.
    zeros: Vec<f32>,
}

/// States behind the last tokens of a sequence.
#[derive(Debug, Clone, Default)]
struct States {
    /// The position of the first.
    first: Pos,
    rows: Vec<f32>,
}

impl States {
    fn at(&self, pos: Pos, n_embd: usize) -> Option<&[f32]> {
        let index = usize::try_from(pos - self.first).ok()?;
        self.rows.get(index * n_embd..(index + 1) * n_embd)
    }

    fn cut(&mut self, pos: Pos, n_embd: usize) {
        let keep = usize::try_from(pos - self.first).unwrap_or(0);
        self.rows.truncate(keep * n_embd);
    }
}

impl Drop for Mtp {
    fn drop(&mut self) {
        // SAFETY: both were created once; the model is held by the context that holds this.
        unsafe {
            llama_batch_ext_free(self.batch.as_ptr());
            sys::llama_free(self.raw.as_ptr());
        }
    }
}

impl Mtp {
    /// Reads the tokens of a step that the trunk has computed.
    pub(super) fn follow(
        &mut self,
        trunk: *mut sys::llama_context,
        batch: &BatchRef<'_>,
    ) -> Result<()> {
        let n_tokens = batch.tokens.len();
        let mut states = Vec::with_capacity(n_tokens * self.n_embd);
        for index in 0..n_tokens {
            // SAFETY: the trunk's last decode had n_tokens tokens, and keeps the states of all.
            states.extend_from_slice(unsafe { state(trunk, index, self.n_embd) }?);
        }
        let mut last: Vec<Option<usize>> = vec![None; self.of.len()];
        let tokens: Vec<MtpToken> = (0..n_tokens)
            .map(|index| {
                let (seq, pos) = (batch.sequences[index], batch.positions[index]);
                let slot = slot_of(seq);
                let before = match last[slot].replace(index) {
                    Some(before) => states.get(before * self.n_embd..(before + 1) * self.n_embd),
                    None => self.of[slot].at(pos - 1, self.n_embd),
                };
                let state = before.unwrap_or(&self.zeros).as_ptr();
                MtpToken { state, token: batch.tokens[index], pos, seq, output: false }
            })
            .collect();
        for part in tokens.chunks(self.n_batch) {
            self.decode(part)?;
        }
        for (index, seq) in batch.sequences.iter().enumerate() {
            let (slot, pos) = (slot_of(*seq), batch.positions[index]);
            let of = &mut self.of[slot];
            let end = last[slot].map_or(pos, |last| batch.positions[last]);
            if usize::try_from(end - pos).is_ok_and(|n_behind| n_behind >= N_KEPT) {
                continue;
            }
            if of.at(pos - 1, self.n_embd).is_none() {
                *of = States { first: pos, rows: Vec::new() };
            }
            of.cut(pos, self.n_embd);
            if of.rows.len() == N_KEPT * self.n_embd {
                of.rows.drain(..self.n_embd);
                of.first += 1;
            }
            of.rows.extend_from_slice(&states[index * self.n_embd..(index + 1) * self.n_embd]);
        }
        Ok(())
    }

    fn decode(&mut self, tokens: &[MtpToken]) -> Result<()> {
        let mut answer = 0;
        // SAFETY: a live context and its batch; the states have n_embd floats each and outlive the call.
        let called = captured(|message| unsafe {
            hearth_shim_mtp_decode(
                self.raw.as_ptr(),
                self.batch.as_ptr(),
                tokens.as_ptr(),
                tokens.len(),
                self.n_embd,
                &raw mut answer,
                message,
            )
        });
        if called.is_ok() && answer == 0 {
            return Ok(());
        }
        Err(error(Status::Failed, format!("cannot guess ahead: {}", called.why())))
    }

    /// Guesses for each sequence, one token of each in a round.
    fn draft(
        &mut self,
        sequences: &[Seq],
        tokens: &[Token],
        n_guesses: usize,
        guesses: &mut [Token],
    ) -> Result<()> {
        let n_rounds = n_guesses.min(self.n_most as usize);
        let mut next = Vec::new();
        for (row, (seq, token)) in sequences.iter().zip(tokens).enumerate() {
            // SAFETY: the memory is the live context's.
            let pos = unsafe { sys::llama_memory_seq_pos_max(self.memory, *seq) } + 1;
            if let Some(state) = self.of[slot_of(*seq)].at(pos - 1, self.n_embd) {
                next.push((row, *seq, *token, pos, state.to_vec()));
            }
        }
        next.truncate(self.n_batch);
        let firsts: Vec<_> = next.iter().map(|(_, seq, _, pos, _)| (*seq, *pos)).collect();
        let mut drafted = Ok(());
        for round in 0..n_rounds {
            let batch: Vec<_> = next
                .iter()
                .map(|(_, seq, token, pos, state)| {
                    let state = state.as_ptr();
                    MtpToken { state, token: *token, pos: *pos, seq: *seq, output: true }
                })
                .collect();
            if batch.is_empty() {
                break;
            }
            drafted = self.decode(&batch);
            if drafted.is_err() {
                break;
            }
            for (index, (row, _, token, pos, state)) in next.iter_mut().enumerate() {
                // SAFETY: the last decode had an output and a state for each of its tokens.
                let (best, after) = unsafe {
                    (self.best(index)?, self::state(self.raw.as_ptr(), index, self.n_embd)?)
                };
                guesses[*row * n_guesses + round] = best;
                (*token, *pos) = (best, *pos + 1);
                state.copy_from_slice(after);
            }
        }
        for (seq, pos) in firsts {
            // SAFETY: the memory is the live context's; what stands behind pos are guesses.
            unsafe { sys::llama_memory_seq_rm(self.memory, seq, pos, -1) };
        }
        drafted
    }

    /// The likeliest token behind an entry.
    ///
    /// # Safety
    /// The last decode had an output for it.
    unsafe fn best(&self, index: usize) -> Result<Token> {
        let index = i32::try_from(index).unwrap_or(i32::MAX);
        // SAFETY: promised by the caller; a row has n_vocab floats.
        let logits = unsafe {
            let logits = sys::llama_get_logits_ith(self.raw.as_ptr(), index);
            if logits.is_null() {
                return Err(error(Status::Failed, "llama.cpp has no logits for a guess"));
            }
            std::slice::from_raw_parts(logits, self.n_vocab)
        };
        let best = (0..).zip(logits).max_by(|(_, a), (_, b)| a.total_cmp(b));
        Ok(best.map_or(0, |(token, _)| token))
    }

    /// Forgets what stands from a position on.
    pub(super) fn cut(&mut self, seq: Seq, p0: Pos) {
        // SAFETY: the memory is the live context's; the sequence exists.
        unsafe { sys::llama_memory_seq_rm(self.memory, seq, p0, -1) };
        self.of[slot_of(seq)].cut(p0, self.n_embd);
    }

    pub(super) fn copied(&mut self, from: Seq, to: Seq, len: Pos) {
        // SAFETY: the memory is the live context's; both sequences exist, and `to` is empty.
        unsafe { sys::llama_memory_seq_cp(self.memory, from, to, -1, len) };
        let mut states = self.of[slot_of(from)].clone();
        states.cut(len, self.n_embd);
        self.of[slot_of(to)] = states;
    }

    /// After a shift or a load what the heads hold does not fit any more.
    pub(super) fn lost(&mut self, seq: Seq) {
        // SAFETY: the memory is the live context's; the sequence exists.
        unsafe { sys::llama_memory_seq_rm(self.memory, seq, -1, -1) };
        self.of[slot_of(seq)] = States::default();
    }

    pub(super) fn set_threads(&mut self, few: i32, many: i32) {
        // SAFETY: a live context.
        unsafe { sys::llama_set_n_threads(self.raw.as_ptr(), few, many) };
    }
}

/// # Safety
/// The last decode of the context kept the state of that token.
unsafe fn state<'a>(
    context: *mut sys::llama_context,
    index: usize,
    n_embd: usize,
) -> Result<&'a [f32]> {
    let (index, mut state) = (i32::try_from(index).unwrap_or(i32::MAX), std::ptr::null());
    // SAFETY: a live context; the out-parameter is ours.
    guarded(|message| unsafe { hearth_shim_mtp_state(context, index, &raw mut state, message) })
        .map_err(|why| error(Status::Failed, format!("cannot guess ahead: {why}")))?;
    // SAFETY: a row of n_embd floats, llama.cpp's until the next decode.
    Ok(unsafe { std::slice::from_raw_parts(state, n_embd) })
}

/// Of a sequence that exists.
fn slot_of(seq: Seq) -> usize {
    usize::try_from(seq).unwrap_or(0)
}

fn unsupported(what: &str) -> PluginError {
    error(Status::Unsupported, what)
}

impl MtpContext for LlamaContext {
    fn begin(&mut self) -> Result<u32> {
        // SAFETY: the model is loaded.
        let n_heads = unsafe { sys::llama_model_n_layer_nextn(self.model.raw()) };
        if n_heads <= 0 || !self.model.has_mtp() {
            return Err(unsupported("the model was opened without layers that guess ahead"));
        }
        if self.pooling.is_some() || self.mtp.is_some() {
            return Err(invalid("guessing begins once, in a context with logits"));
        }
        let info = &self.info;
        let config = ContextConfig {
            n_ctx: info.n_ctx,
            n_batch: info.n_batch,
            n_ubatch: info.n_ubatch,
            n_seq_max: info.n_seq_max,
            n_threads: info.n_threads,
            n_threads_batch: info.n_threads,
            embeddings: None,
            kv_type: self.kv_type,
            flash_attention: self.flash_attention,
        };
        let mut params =
            raw_params(&config, config.n_seq_max, None, &Arc::new(AtomicBool::new(false)));
        // It is one layer, and what the trunk has computed must be followed to the end.
        params.abort_callback = None;
        params.abort_callback_data = std::ptr::null_mut();
        params.ctx_type = sys::LLAMA_CONTEXT_TYPE_MTP;
        params.ctx_other = self.raw();
        let (mut raw, mut batch) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: the model is loaded, the trunk lives as long as the answer; the out-parameters are ours.
        let created = captured(|message| unsafe {
            hearth_shim_context_new(self.model.raw(), &raw const params, &raw mut raw, message)
                && (raw.is_null()
                    || hearth_shim_mtp_begin(self.raw(), raw, &raw mut batch, message))
        });
        let (Some(raw), Some(batch)) = (NonNull::new(raw), NonNull::new(batch)) else {
            return Err(unsupported(&format!("no context to guess with: {}", created.why())));
        };
        // SAFETY: a live context.
        let (memory, bytes) = unsafe {
            (sys::llama_get_memory(raw.as_ptr()), hearth_shim_context_bytes(raw.as_ptr()))
        };
        // SAFETY: the model is loaded.
        let n_embd = unsafe { sys::llama_model_n_embd_out(self.model.raw()) };
        let n_embd = usize::try_from(n_embd).unwrap_or(0);
        self.info.memory_bytes += bytes;
        // Several heads are each for one place, and are to be read one after the other; the first one alone is sound.
        let n_most = if n_heads == 1 { MOST_OF_ONE_HEAD } else { 1 };
        self.mtp = Some(Mtp {
            raw,
            batch,
            memory,
            n_embd,
            n_vocab: self.n_vocab,
            n_batch: self.info.n_batch as usize,
            n_most,
            of: vec![States::default(); self.info.n_seq_max as usize],
            zeros: vec![0.0; n_embd],
        });
        Ok(n_most)
    }

    fn draft(
        &mut self,
        sequences: &[Seq],
        tokens: &[Token],
        n_guesses: usize,
        guesses: &mut [Token],
    ) -> Result<()> {
        for (seq, token) in sequences.iter().zip(tokens) {
            self.check_seq(*seq)?;
            self.model.vocab().check(*token)?;
        }
        match &mut self.mtp {
            Some(mtp) => mtp.draft(sequences, tokens, n_guesses, guesses),
            None => Err(unsupported("guessing was not begun, or had to end")),
        }
    }
}
