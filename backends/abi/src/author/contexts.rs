//! The C side of [`Context`]: one `extern "C"` function per pointer of `hearth_plugin_t` that takes a context.
//!
//! A handle is a `Box<ContextBox<C>>`, whose abort flag stands outside the part that a decode borrows.

use super::shims::{as_of_today, check_size, guard, invalid, model, slice, struct_size};
use super::{Backend, BatchRef, Context, Model};
use crate::raw::{self, Pos, Seq};
use crate::types::{ContextConfig, FlashAttention, KvType, PluginError, Pooling, Result, Status};
use std::cell::UnsafeCell;
use std::mem::offset_of;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What hosts of 1.0 do not set.
const SINCE_1_1: usize = offset_of!(raw::ContextParams, flash_attention);

type ContextOf<B> = <<B as Backend>::Model as Model>::Context;

struct ContextBox<C> {
    abort: Arc<AtomicBool>,
    inner: UnsafeCell<C>,
}

/// # Safety
/// `handle` is null or came from this plugin's `context_create`, is not destroyed, and the engine thread calls.
pub(super) unsafe fn context<'a, C>(handle: *const raw::Context) -> Result<&'a mut C> {
    // SAFETY: handles are Box<ContextBox<C>>; the engine thread is one at a time, so nobody else borrows `inner`.
    unsafe { handle.cast::<ContextBox<C>>().as_ref().map(|boxed| &mut *boxed.inner.get()) }
        .ok_or_else(|| invalid("the context is null"))
}

pub(super) unsafe extern "C" fn context_create<B: Backend>(
    handle: *mut raw::Model,
    params: *const raw::ContextParams,
    out: *mut *mut raw::Context,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: an open model of ours; params, out and error are the host's.
    unsafe {
        guard(error, || {
            if out.is_null() {
                return Err(invalid("the context's out-parameter is null"));
            }
            *out = std::ptr::null_mut();
            let params = as_of_today(params, SINCE_1_1)?;
            let config = context_config(&params)?;
            let created = model::<B::Model>(handle)?.context(&config)?;
            let boxed = ContextBox { abort: created.abort_flag(), inner: UnsafeCell::new(created) };
            *out = Box::into_raw(Box::new(boxed)).cast::<raw::Context>();
            Ok(())
        })
    }
}

fn context_config(params: &raw::ContextParams) -> Result<ContextConfig> {
    if params.n_ctx == 0 || params.n_batch == 0 || params.n_ubatch == 0 || params.n_seq_max == 0 {
        return Err(invalid("n_ctx, n_batch, n_ubatch and n_seq_max must be at least 1"));
    }
    let pooling = match params.pooling {
        0 => Pooling::None,
        1 => Pooling::Model,
        2 => Pooling::Mean,
        3 => Pooling::Cls,
        4 => Pooling::Last,
        _ => return Err(invalid("unknown pooling")),
    };
    let kv_type = match params.kv_type {
        0 => KvType::F16,
        1 => KvType::Q8_0,
        2 => KvType::Q4_0,
        3 => KvType::F32,
        _ => return Err(invalid("unknown kv_type")),
    };
    let flash_attention = match params.flash_attention {
        0 => FlashAttention::Auto,
        1 => FlashAttention::Off,
        2 => FlashAttention::On,
        _ => return Err(invalid("unknown flash_attention")),
    };
    Ok(ContextConfig {
        n_ctx: params.n_ctx,
        n_batch: params.n_batch,
        n_ubatch: params.n_ubatch,
        n_seq_max: params.n_seq_max,
        n_threads: params.n_threads,
        n_threads_batch: params.n_threads_batch,
        embeddings: params.embeddings.then_some(pooling),
        kv_type,
        flash_attention,
    })
}

pub(super) unsafe extern "C" fn context_destroy<B: Backend>(handle: *mut raw::Context) {
    if !handle.is_null() {
        // SAFETY: context_create made it by Box::into_raw, and the host destroys it once.
        let boxed = unsafe { Box::from_raw(handle.cast::<ContextBox<ContextOf<B>>>()) };
        let _ = catch_unwind(AssertUnwindSafe(|| drop(boxed)));
    }
}

pub(super) unsafe extern "C" fn context_info<B: Backend>(
    handle: *const raw::Context,
    info: *mut raw::ContextInfo,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: a context of ours on the engine thread; info and error are the host's.
    unsafe {
        guard(error, || {
            let target = info.as_mut().ok_or_else(|| invalid("the info is null"))?;
            check_size(target.struct_size, struct_size::<raw::ContextInfo>())?;
            let found = context::<ContextOf<B>>(handle)?.info();
            target.memory = [
                (found.can_roll_back, raw::MEMORY_CAN_ROLL_BACK),
                (found.can_shift, raw::MEMORY_CAN_SHIFT),
                (found.can_copy_part, raw::MEMORY_CAN_COPY_PART),
                (found.can_save, raw::MEMORY_CAN_SAVE),
                (found.can_save_part, raw::MEMORY_CAN_SAVE_PART),
            ]
            .iter()
            .fold(0, |bits, (set, bit)| if *set { bits | bit } else { bits });
            target.n_ctx = found.n_ctx;
            target.n_ctx_seq = found.n_ctx_seq;
            target.n_batch = found.n_batch;
            target.n_ubatch = found.n_ubatch;
            target.n_seq_max = found.n_seq_max;
            target.n_threads = found.n_threads;
            target.memory_bytes = found.memory_bytes;
            Ok(())
        })
    }
}

pub(super) unsafe extern "C" fn set_threads<B: Backend>(
    handle: *mut raw::Context,
    n_threads: u32,
    n_threads_batch: u32,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: a context of ours on the engine thread.
    unsafe {
        guard(error, || {
            if n_threads == 0 || n_threads_batch == 0 {
                return Err(invalid("thread counts must be at least 1"));
            }
            context::<ContextOf<B>>(handle)?.set_threads(n_threads, n_threads_batch)
        })
    }
}

pub(super) unsafe extern "C" fn decode<B: Backend>(
    handle: *mut raw::Context,
    batch: *const raw::Batch,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: a context of ours on the engine thread; the batch's arrays have n_tokens entries and are only read.
    unsafe {
        guard(error, || {
            let batch = batch.as_ref().ok_or_else(|| invalid("the batch is null"))?;
            check_size(batch.struct_size, struct_size::<raw::Batch>())?;
            let n_tokens = batch.n_tokens as usize;
            if n_tokens == 0 {
                return Err(invalid("the batch is empty"));
            }
            context::<ContextOf<B>>(handle)?.decode(BatchRef {
                tokens: slice(batch.tokens, n_tokens)?,
                positions: slice(batch.positions, n_tokens)?,
                sequences: slice(batch.sequences, n_tokens)?,
                outputs: slice(batch.outputs, n_tokens)?,
            })
        })
    }
}

pub(super) unsafe extern "C" fn decode_abort<B: Backend>(handle: *mut raw::Context) {
    // SAFETY: a live context of ours; only the flag beside `inner` is touched, which decode does not borrow.
    if let Some(boxed) = unsafe { handle.cast::<ContextBox<ContextOf<B>>>().as_ref() } {
        boxed.abort.store(true, Ordering::Relaxed);
    }
}

pub(super) unsafe extern "C" fn logits<B: Backend>(
    handle: *mut raw::Context,
    index: u32,
    out: *mut *mut f32,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: a context of ours on the engine thread; the floats stay in it until its next call.
    unsafe {
        guard(error, || {
            let out = out.as_mut().ok_or_else(|| invalid("null out-parameter"))?;
            *out = context::<ContextOf<B>>(handle)?.logits(index)?.as_mut_ptr();
            Ok(())
        })
    }
}

pub(super) unsafe extern "C" fn embedding<B: Backend>(
    handle: *mut raw::Context,
    index: u32,
    out: *mut *const f32,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: a context of ours on the engine thread; the floats stay in it until its next call.
    unsafe {
        guard(error, || {
            let out = out.as_mut().ok_or_else(|| invalid("null out-parameter"))?;
            *out = context::<ContextOf<B>>(handle)?.embedding(index)?.as_ptr();
            Ok(())
        })
    }
}

pub(super) unsafe extern "C" fn seq_remove<B: Backend>(
    handle: *mut raw::Context,
    seq: Seq,
    p0: Pos,
    p1: Pos,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: a context of ours on the engine thread.
    unsafe { guard(error, || context::<ContextOf<B>>(handle)?.seq_remove(seq, p0, p1)) }
}

pub(super) unsafe extern "C" fn seq_copy<B: Backend>(
    handle: *mut raw::Context,
    from: Seq,
    to: Seq,
    p0: Pos,
    p1: Pos,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: a context of ours on the engine thread.
    unsafe { guard(error, || context::<ContextOf<B>>(handle)?.seq_copy(from, to, p0, p1)) }
}

pub(super) unsafe extern "C" fn seq_shift<B: Backend>(
    handle: *mut raw::Context,
    seq: Seq,
    p0: Pos,
    p1: Pos,
    delta: Pos,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: a context of ours on the engine thread.
    unsafe { guard(error, || context::<ContextOf<B>>(handle)?.seq_shift(seq, p0, p1, delta)) }
}

pub(super) unsafe extern "C" fn seq_save<B: Backend>(
    handle: *mut raw::Context,
    seq: Seq,
    buffer: *mut u8,
    capacity: usize,
    n_out: *mut usize,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: a context of ours on the engine thread; buffer has room for capacity bytes.
    unsafe {
        guard(error, || {
            let context = context::<ContextOf<B>>(handle)?;
            let needed = context.seq_save_len(seq)?;
            fill(buffer, capacity, n_out, needed, |buffer| context.seq_save(seq, buffer))
        })
    }
}

/// Lets `write` fill the `needed` first bytes of the host's buffer, if it has so many.
///
/// # Safety
/// The buffer has room for `capacity` bytes; `n_out` is null or the host's.
pub(super) unsafe fn fill(
    buffer: *mut u8,
    capacity: usize,
    n_out: *mut usize,
    needed: usize,
    write: impl FnOnce(&mut [u8]) -> Result<usize>,
) -> Result<()> {
    // SAFETY: promised by the caller.
    let n_out = unsafe { n_out.as_mut() }.ok_or_else(|| invalid("null out-parameter"))?;
    *n_out = needed;
    if needed > capacity {
        let message = format!("the state has {needed} bytes");
        return Err(PluginError::new(Status::BufferTooSmall, message));
    }
    if buffer.is_null() {
        return Err(invalid("the buffer is null"));
    }
    // SAFETY: room for `needed` bytes. The host's buffer may never have been written; a &mut [u8] over it must not expose that.
    let buffer = unsafe {
        std::ptr::write_bytes(buffer, 0, needed);
        std::slice::from_raw_parts_mut(buffer, needed)
    };
    *n_out = write(buffer)?;
    Ok(())
}

pub(super) unsafe extern "C" fn seq_load<B: Backend>(
    handle: *mut raw::Context,
    seq: Seq,
    data: *const u8,
    len: usize,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: a context of ours on the engine thread; data has len bytes.
    unsafe { guard(error, || context::<ContextOf<B>>(handle)?.seq_load(seq, slice(data, len)?)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(struct_size: u32) -> raw::ContextParams {
        raw::ContextParams {
            struct_size,
            n_ctx: 64,
            n_batch: 32,
            n_ubatch: 32,
            n_seq_max: 1,
            n_threads: 1,
            n_threads_batch: 1,
            embeddings: false,
            pooling: 0,
            kv_type: KvType::Q8_0 as i32,
            flash_attention: FlashAttention::Off as i32,
        }
    }

    #[test]
    fn a_host_of_1_0_leaves_flash_attention_to_the_plugin() {
        let sizes =
            [(40, FlashAttention::Auto), (44, FlashAttention::Off), (52, FlashAttention::Off)];
        for (size, wanted) in sizes {
            // SAFETY: the member that is beyond 40 bytes is there, and none beyond 44 is read.
            let known = unsafe { as_of_today(&params(size), SINCE_1_1) }.unwrap();
            let config = context_config(&known).unwrap();
            assert_eq!((config.kv_type, config.flash_attention), (KvType::Q8_0, wanted));
        }
        // SAFETY: as above.
        assert!(unsafe { as_of_today(&params(36), SINCE_1_1) }.is_err());
    }
}
