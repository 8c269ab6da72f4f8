//! From the host's wishes to llama.cpp's parameters, and what is refused on the way.

use crate::model::LlamaModel;
use crate::shim::{error, invalid};
use crate::{modules, threads};
use hearth_abi::{ContextConfig, FlashAttention, KvType, Pooling, Result, Status};
use llama_cpp_sys_2 as sys;
use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Refuses a context that this machine cannot hold. Linux would grant the memory and kill the process on first use.
pub(super) fn check_room(config: &ContextConfig, model: &LlamaModel) -> Result<()> {
    if i32::try_from(config.n_ctx).is_err() {
        return Err(invalid(format!(
            "`n_ctx` is {}, and positions end at {}",
            config.n_ctx,
            i32::MAX
        )));
    }
    let per_block: u64 = match config.kv_type {
        KvType::F32 => 32 * 4,
        KvType::F16 => 32 * 2,
        KvType::Q8_0 => 34,
        KvType::Q4_0 => 18,
    };
    let numbers = u64::from(config.n_ctx).saturating_mul(model.traits().kv_per_token);
    let needed = (numbers / 32).saturating_mul(per_block);
    match modules::available_memory().filter(|_| model.is_in_main_memory()) {
        Some(available) if needed > available => Err(error(
            Status::OutOfMemory,
            format!(
                "a context of {} cells takes {} MiB, and {} MiB are available",
                config.n_ctx,
                needed >> 20,
                available >> 20
            ),
        )),
        _ => Ok(()),
    }
}

/// llama.cpp's number for a pooling; the model's own where asked for.
pub(super) fn pooling_type(
    pooling: Pooling,
    of_model: Option<i32>,
) -> Result<sys::llama_pooling_type> {
    if of_model == Some(sys::LLAMA_POOLING_TYPE_RANK) {
        return match pooling {
            Pooling::Model => Ok(sys::LLAMA_POOLING_TYPE_RANK),
            _ => Err(error(Status::Unsupported, "the model ranks texts, it has no embeddings")),
        };
    }
    match pooling {
        Pooling::None => Ok(sys::LLAMA_POOLING_TYPE_NONE),
        Pooling::Mean => Ok(sys::LLAMA_POOLING_TYPE_MEAN),
        Pooling::Cls => Ok(sys::LLAMA_POOLING_TYPE_CLS),
        Pooling::Last => Ok(sys::LLAMA_POOLING_TYPE_LAST),
        Pooling::Model => match of_model {
            Some(
                kind @ (sys::LLAMA_POOLING_TYPE_MEAN
                | sys::LLAMA_POOLING_TYPE_CLS
                | sys::LLAMA_POOLING_TYPE_LAST),
            ) => Ok(kind),
            _ => Ok(sys::LLAMA_POOLING_TYPE_MEAN),
        },
    }
}

/// Parameters for [`ContextConfig`], with so many sequences. `abort` must outlive the context.
pub(super) fn raw_params(
    config: &ContextConfig,
    n_sequences: u32,
    pooling: Option<sys::llama_pooling_type>,
    abort: &Arc<AtomicBool>,
) -> sys::llama_context_params {
    // SAFETY: a plain function of constants.
    let mut params = unsafe { sys::llama_context_default_params() };
    params.n_ctx = config.n_ctx;
    // llama.cpp asserts that one output per sequence fits into a batch.
    params.n_batch = config.n_batch.max(n_sequences);
    // A pooled text, and every text of a non-causal model, is computed in one piece.
    params.n_ubatch =
        if pooling.is_some() { params.n_batch } else { config.n_ubatch.min(params.n_batch) };
    params.n_seq_max = n_sequences;
    params.n_threads = threads::number(config.n_threads);
    params.n_threads_batch = threads::number(config.n_threads_batch);
    params.embeddings = pooling.is_some();
    params.pooling_type = pooling.unwrap_or(sys::LLAMA_POOLING_TYPE_NONE);
    let kv_type = match config.kv_type {
        KvType::F16 => sys::GGML_TYPE_F16,
        KvType::Q8_0 => sys::GGML_TYPE_Q8_0,
        KvType::Q4_0 => sys::GGML_TYPE_Q4_0,
        KvType::F32 => sys::GGML_TYPE_F32,
    };
    params.type_k = kv_type;
    params.type_v = kv_type;
    params.flash_attn_type = match config.flash_attention {
        FlashAttention::Auto => sys::LLAMA_FLASH_ATTN_TYPE_AUTO,
        FlashAttention::Off => sys::LLAMA_FLASH_ATTN_TYPE_DISABLED,
        FlashAttention::On => sys::LLAMA_FLASH_ATTN_TYPE_ENABLED,
    };
    params.kv_unified = true;
    // A full-size cache for sliding windows could be rolled back, at several times the memory; the host uses
    // checkpoints where `can_roll_back` is false.
    params.swa_full = false;
    params.no_perf = true;
    params.abort_callback = Some(is_aborted);
    params.abort_callback_data = Arc::as_ptr(abort).cast_mut().cast::<c_void>();
    params
}

unsafe extern "C" fn is_aborted(flag: *mut c_void) -> bool {
    // SAFETY: the flag is the AtomicBool that the context holds an Arc of while llama.cpp has its address.
    unsafe { &*flag.cast::<AtomicBool>() }.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_models_pooling_is_used_where_it_has_one() {
        assert_eq!(pooling_type(Pooling::Model, Some(2)), Ok(sys::LLAMA_POOLING_TYPE_CLS));
        assert_eq!(pooling_type(Pooling::Model, Some(0)), Ok(sys::LLAMA_POOLING_TYPE_MEAN));
        assert_eq!(pooling_type(Pooling::Model, None), Ok(sys::LLAMA_POOLING_TYPE_MEAN));
        assert_eq!(pooling_type(Pooling::Model, Some(4)), Ok(sys::LLAMA_POOLING_TYPE_RANK));
        assert_eq!(pooling_type(Pooling::Last, Some(4)).unwrap_err().status, Status::Unsupported);
    }
}
