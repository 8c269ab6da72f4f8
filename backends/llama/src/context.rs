//! KV memory and the engine thread's calls: batches, logits, embeddings.
//!
//! llama.cpp asserts, and so ends the process, on most of what a caller can get wrong in a batch. [`LlamaContext::check`]
//! therefore checks a batch whole before llama.cpp sees any of it. The cache is unified: all sequences share the cells,
//! one may take them all, and a copied prefix costs nothing.

use crate::memory::MemoryKind;
use crate::model::{LlamaModel, is_about_memory};
use crate::shim::{
    captured, error, hearth_shim_context_bytes, hearth_shim_context_new, hearth_shim_decode,
    invalid,
};
use hearth_abi::author::{BatchRef, Context};
use hearth_abi::raw::{Pos, Seq};
use hearth_abi::{ContextConfig, ContextInfo, FlashAttention, ImageSpan, KvType, Result, Status};
use llama_cpp_sys_2 as sys;
use std::ffi::c_char;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

mod mtp;
mod params;
mod parts;
mod sequences;
mod sharing;

use mtp::Mtp;
use params::{check_room, pooling_type, raw_params};
use sharing::Sharing;

/// A context of llama.cpp.
#[derive(Debug)]
pub struct LlamaContext {
    raw: NonNull<sys::llama_context>,
    memory: sys::llama_memory_t,
    kind: MemoryKind,
    info: ContextInfo,
    /// `None`: logits. llama.cpp's own number otherwise.
    pooling: Option<sys::llama_pooling_type>,
    n_vocab: usize,
    n_embd: usize,
    /// Tells saved sequences of this sort of context from others.
    mark: u64,
    sharing: Sharing,
    /// For each sequence a position up to which it reaches, whatever its cells show.
    image_ends: Vec<Pos>,
    batch: BatchBuffers,
    kv_type: KvType,
    flash_attention: FlashAttention,
    /// Given up where it fails: guesses are no reason for a decode to fail.
    mtp: Option<Mtp>,
    abort: Arc<AtomicBool>,
    model: Arc<LlamaModel>,
}

/// Columns of a batch that llama.cpp wants in another form than the host gives. Reused from step to step.
#[derive(Debug, Default)]
struct BatchBuffers {
    n_seq_ids: Vec<i32>,
    seq_ids: Vec<*mut sys::llama_seq_id>,
    /// Of the last decode; empty when there are no results to read.
    outputs: Vec<i8>,
    /// Next position per sequence while a batch is checked; -1: not looked up yet.
    next: Vec<Pos>,
}

// SAFETY: llama.cpp's contexts are bound to no thread; `&mut self` keeps calls apart.
unsafe impl Send for LlamaContext {}

impl Drop for LlamaContext {
    fn drop(&mut self) {
        // The heads point to the trunk.
        self.mtp = None;
        // SAFETY: created once, and the model is still held.
        unsafe { sys::llama_free(self.raw.as_ptr()) }
    }
}

impl LlamaContext {
    pub(crate) fn create(model: &Arc<LlamaModel>, config: &ContextConfig) -> Result<Self> {
        let traits = model.traits();
        if traits.vocab_only {
            return Err(error(Status::Unsupported, "the model was opened for its vocabulary only"));
        }
        let can = hearth_abi::author::Model::info(&**model);
        match config.embeddings {
            Some(_) if !can.can_embed => {
                return Err(error(Status::Unsupported, "the model has no embeddings"));
            }
            None if traits.without_memory || traits.encoder => {
                return Err(error(Status::Unsupported, "the model yields embeddings only"));
            }
            _ => {}
        }
        // SAFETY: a plain function of constants.
        let n_seq_limit = unsafe { sys::llama_max_parallel_sequences() };
        if config.n_seq_max as usize > n_seq_limit {
            return Err(invalid(format!(
                "`n_seq_max` is {}, and llama.cpp has at most {n_seq_limit}",
                config.n_seq_max
            )));
        }
        check_room(config, model)?;
        let pooling =
            config.embeddings.map(|pooling| pooling_type(pooling, traits.pooling)).transpose()?;
        let abort = Arc::new(AtomicBool::new(false));
        // One more, for `parts`.
        let can_save_part = config.embeddings.is_none() && !traits.state && traits.n_swa <= 0;
        let n_more = u32::from(can_save_part && (config.n_seq_max as usize) < n_seq_limit);
        let params = raw_params(config, config.n_seq_max + n_more, pooling, &abort);
        let mut raw = std::ptr::null_mut();
        // SAFETY: the model is loaded; params are only read during the call; the out-parameter is ours.
        let created = captured(|message| unsafe {
            hearth_shim_context_new(model.raw(), &raw const params, &raw mut raw, message)
        });
        let Some(raw) = NonNull::new(raw).filter(|_| created.is_ok()) else {
            let why = created.why();
            let status = match config.kv_type {
                _ if is_about_memory(&why) => Status::OutOfMemory,
                // A model whose heads do not fit the format's blocks, or no flash attention, which llama.cpp needs for them.
                KvType::Q8_0 | KvType::Q4_0 => Status::Unsupported,
                _ => Status::Failed,
            };
            return Err(error(
                status,
                format!("cannot create a context of {} cells: {why}", config.n_ctx),
            ));
        };
        Ok(Self::wrap(raw, model, config, pooling, abort))
    }

    fn wrap(
        raw: NonNull<sys::llama_context>,
        model: &Arc<LlamaModel>,
        config: &ContextConfig,
        pooling: Option<sys::llama_pooling_type>,
        abort: Arc<AtomicBool>,
    ) -> Self {
        let traits = model.traits();
        let at = raw.as_ptr();
        // SAFETY: the context was just created, and all of these only read it.
        let (memory, mut info) = unsafe {
            let memory = sys::llama_get_memory(at);
            let info = ContextInfo {
                can_roll_back: false,
                can_shift: sys::llama_memory_can_shift(memory),
                can_copy_part: false,
                can_save: !memory.is_null(),
                can_save_part: false,
                n_ctx: sys::llama_n_ctx(at),
                n_ctx_seq: sys::llama_n_ctx_seq(at),
                n_batch: sys::llama_n_batch(at),
                n_ubatch: sys::llama_n_ubatch(at),
                n_seq_max: config.n_seq_max,
                n_threads: sys::llama_n_threads(at).unsigned_abs(),
                memory_bytes: hearth_shim_context_bytes(at),
            };
            (memory, info)
        };
        let kind = match traits.n_swa {
            _ if memory.is_null() => MemoryKind::None,
            _ if traits.state => MemoryKind::State,
            // No token of a sequence that short ever leaves the window.
            n_swa if n_swa > 0 && n_swa.unsigned_abs() < info.n_ctx_seq => {
                MemoryKind::Window { n_swa }
            }
            _ => MemoryKind::Full,
        };
        if traits.position_limit > 0 {
            info.n_ctx_seq = info.n_ctx_seq.min(traits.position_limit);
        }
        info.can_roll_back = kind.can_roll_back();
        info.can_copy_part = kind.can_copy_part();
        // SAFETY: the context was just created, and this only reads it.
        let n_sequences = unsafe { sys::llama_n_seq_max(at) };
        info.can_save_part = kind == MemoryKind::Full && n_sequences > config.n_seq_max;
        let n_batch = info.n_batch as usize;
        let n_seq_max = config.n_seq_max as usize;
        Self {
            raw,
            memory,
            kind,
            pooling,
            n_vocab: model.vocab().n_tokens() as usize,
            n_embd: hearth_abi::author::Model::info(&**model).n_embd as usize,
            mark: traits.mark.rotate_left(8)
                ^ (config.kv_type as u64)
                ^ (u64::from(config.flash_attention == FlashAttention::Off) << 2)
                ^ (u64::from(traits.without_memory) << 8),
            sharing: Sharing::new(n_seq_max),
            image_ends: vec![0; n_seq_max],
            kv_type: config.kv_type,
            flash_attention: config.flash_attention,
            mtp: None,
            batch: BatchBuffers {
                n_seq_ids: vec![1; n_batch],
                seq_ids: Vec::with_capacity(n_batch),
                outputs: Vec::with_capacity(n_batch),
                next: vec![-1; n_seq_max],
            },
            info,
            abort,
            model: Arc::clone(model),
        }
    }

    pub(crate) fn raw(&self) -> *mut sys::llama_context {
        self.raw.as_ptr()
    }

    pub(crate) fn model(&self) -> &Arc<LlamaModel> {
        &self.model
    }

    /// Refuses a batch that breaks the contract, before anything was changed.
    fn check(&mut self, batch: &BatchRef<'_>) -> Result<()> {
        if batch.tokens.len() > self.info.n_batch as usize {
            let (len, most) = (batch.tokens.len(), self.info.n_batch);
            return Err(invalid(format!("the batch has {len} tokens, and `n_batch` is {most}")));
        }
        let result = self.check_entries(batch);
        for seq in batch.sequences {
            if let Some(next) =
                usize::try_from(*seq).ok().and_then(|seq| self.batch.next.get_mut(seq))
            {
                *next = -1;
            }
        }
        result
    }

    fn check_entries(&mut self, batch: &BatchRef<'_>) -> Result<()> {
        let limit = Pos::try_from(self.model.traits().position_limit).unwrap_or(Pos::MAX);
        for ((token, position), seq) in
            batch.tokens.iter().zip(batch.positions).zip(batch.sequences)
        {
            self.model.vocab().check(*token)?;
            let slot = self.check_seq(*seq)?;
            if self.batch.next[slot] < 0 {
                let len = self.len_of(*seq);
                if len > 0
                    && matches!(self.pooling, Some(kind) if kind != sys::LLAMA_POOLING_TYPE_NONE)
                {
                    return Err(invalid(format!(
                        "sequence {seq} goes on, and a pooled embedding needs the whole text in one batch"
                    )));
                }
                self.batch.next[slot] = len;
            }
            let next = &mut self.batch.next[slot];
            if *position != *next {
                return Err(invalid(format!(
                    "position {position} in sequence {seq}, which goes on at {next}"
                )));
            }
            *next += 1;
            if limit > 0 && *next > limit {
                return Err(invalid(format!(
                    "the text in sequence {seq} is longer than the model's {limit} positions"
                )));
            }
        }
        Ok(())
    }

    /// Fills llama.cpp's columns. The answer points into the buffers and into the host's batch.
    fn raw_batch(&mut self, batch: &BatchRef<'_>) -> sys::llama_batch {
        let buffers = &mut self.batch;
        buffers.seq_ids.clear();
        buffers
            .seq_ids
            .extend(batch.sequences.iter().map(|seq| std::ptr::from_ref(seq).cast_mut()));
        buffers.outputs.clear();
        // With embeddings llama.cpp wants all of them, and pools them itself.
        let all = self.pooling.is_some();
        buffers.outputs.extend(batch.outputs.iter().map(|output| i8::from(all || *output != 0)));
        sys::llama_batch {
            // At most n_batch, as just checked.
            n_tokens: i32::try_from(batch.tokens.len()).unwrap_or(i32::MAX),
            token: batch.tokens.as_ptr().cast_mut(),
            embd: std::ptr::null_mut(),
            pos: batch.positions.as_ptr().cast_mut(),
            n_seq_id: buffers.n_seq_ids.as_mut_ptr(),
            seq_id: buffers.seq_ids.as_mut_ptr(),
            logits: buffers.outputs.as_mut_ptr(),
        }
    }

    /// Lets an image follow in a sequence that goes on at `position`, by `body`, which answers as llama.cpp's decode does.
    pub(crate) fn append_image(
        &mut self,
        seq: Seq,
        position: Pos,
        span: ImageSpan,
        body: impl FnOnce(*mut sys::llama_context, &mut i32, *mut c_char) -> bool,
    ) -> Result<()> {
        let slot = self.check_seq(seq)?;
        let next = self.len_of(seq);
        if position != next || self.pooling.is_some() {
            return Err(invalid(format!(
                "an image at position {position} in sequence {seq}, which goes on at {next}"
            )));
        }
        self.abort.store(false, Ordering::Relaxed);
        self.batch.outputs.clear();
        let (raw, mut answer) = (self.raw(), 0);
        let called = captured(|message| body(raw, &mut answer, message));
        if let Some(mtp) = &mut self.mtp {
            // The heads read no images.
            mtp.lost(seq);
        }
        match answer {
            0 if called.is_ok() => {
                // At most n_cells, which llama.cpp counts by positions.
                self.image_ends[slot] = position + Pos::try_from(span.n_positions).unwrap_or(0);
                Ok(())
            }
            1 => Err(error(
                Status::NoKvSpace,
                format!("no room in the context for {} embeddings more", span.n_cells),
            )),
            2 => Err(error(Status::Cancelled, "decoding was cancelled")),
            _ => Err(error(Status::Failed, format!("cannot decode an image: {}", called.why()))),
        }
    }

    fn has_output(&self, index: u32) -> bool {
        self.batch.outputs.get(index as usize).is_some_and(|output| *output != 0)
    }
}

impl Context for LlamaContext {
    fn info(&self) -> ContextInfo {
        self.info.clone()
    }

    fn abort_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.abort)
    }

    fn set_threads(&mut self, n_threads: u32, n_threads_batch: u32) -> Result<()> {
        let count = |n: u32| i32::try_from(n).ok().filter(|n| (1..=512).contains(n));
        let (Some(few), Some(many)) = (count(n_threads), count(n_threads_batch)) else {
            return Err(invalid(format!(
                "{n_threads} and {n_threads_batch} threads are not between 1 and 512"
            )));
        };
        // SAFETY: a live context.
        unsafe { sys::llama_set_n_threads(self.raw(), few, many) };
        if let Some(mtp) = &mut self.mtp {
            mtp.set_threads(few, many);
        }
        self.info.n_threads = n_threads;
        Ok(())
    }

    fn decode(&mut self, batch: BatchRef<'_>) -> Result<()> {
        self.check(&batch)?;
        self.abort.store(false, Ordering::Relaxed);
        let raw_batch = self.raw_batch(&batch);
        let (raw, encode) = (self.raw(), self.model.traits().encoder);
        let mut answer = 0;
        // SAFETY: a live context; the batch was checked, and its columns outlive the call, which only reads them.
        let called = captured(|message| unsafe {
            hearth_shim_decode(raw, &raw const raw_batch, encode, &raw mut answer, message)
        });
        self.batch.seq_ids.clear();
        let n_tokens = batch.tokens.len();
        let failed = match answer {
            0 if called.is_ok() => {
                let raw = self.raw();
                if self.mtp.as_mut().is_some_and(|mtp| mtp.follow(raw, &batch).is_err()) {
                    self.mtp = None;
                }
                return Ok(());
            }
            1 => error(
                Status::NoKvSpace,
                format!("no room in the context for {n_tokens} more tokens"),
            ),
            2 => error(Status::Cancelled, "decoding was cancelled"),
            _ => {
                error(Status::Failed, format!("cannot decode {n_tokens} tokens: {}", called.why()))
            }
        };
        self.batch.outputs.clear();
        Err(failed)
    }

    fn logits(&mut self, index: u32) -> Result<&mut [f32]> {
        if self.pooling.is_some() {
            return Err(invalid("this context yields embeddings, not logits"));
        }
        if !self.has_output(index) {
            return Err(invalid(format!("entry {index} of the last decode has no output")));
        }
        // SAFETY: a live context; the entry is one of the last decode that had its output set.
        let logits = unsafe { sys::llama_get_logits_ith(self.raw(), index.cast_signed()) };
        if logits.is_null() {
            return Err(error(
                Status::Failed,
                format!("llama.cpp has no logits for entry {index}"),
            ));
        }
        // SAFETY: a row of n_vocab floats, llama.cpp's until the next decode, which the borrow of self forbids.
        Ok(unsafe { std::slice::from_raw_parts_mut(logits, self.n_vocab) })
    }

    fn embedding(&mut self, index: u32) -> Result<&[f32]> {
        let Some(pooling) = self.pooling else {
            return Err(invalid("this context yields logits, not embeddings"));
        };
        let per_token = pooling == sys::LLAMA_POOLING_TYPE_NONE;
        if per_token && !self.has_output(index) {
            return Err(invalid(format!("entry {index} is not in the last decode")));
        }
        // SAFETY: a live context; the entry is in the last decode, and llama.cpp answers null for an unknown sequence.
        let embedding = unsafe {
            match per_token {
                true => sys::llama_get_embeddings_ith(self.raw(), index.cast_signed()),
                false => sys::llama_get_embeddings_seq(self.raw(), index.cast_signed()),
            }
        };
        if embedding.is_null() {
            return Err(invalid(format!("the last decode has no embedding {index}")));
        }
        // SAFETY: n_embd floats, llama.cpp's until the next decode, which the borrow of self forbids.
        Ok(unsafe { std::slice::from_raw_parts(embedding, self.n_embd) })
    }

    fn seq_remove(&mut self, seq: Seq, p0: Pos, p1: Pos) -> Result<()> {
        self.remove(seq, p0, p1)
    }

    fn seq_copy(&mut self, from: Seq, to: Seq, p0: Pos, p1: Pos) -> Result<()> {
        self.copy(from, to, p0, p1)
    }

    fn seq_shift(&mut self, seq: Seq, p0: Pos, p1: Pos, delta: Pos) -> Result<()> {
        self.shift(seq, p0, p1, delta)
    }

    fn seq_save_len(&mut self, seq: Seq) -> Result<usize> {
        self.save_len(seq)
    }

    fn seq_save(&mut self, seq: Seq, buffer: &mut [u8]) -> Result<usize> {
        self.save(seq, buffer)
    }

    fn seq_load(&mut self, seq: Seq, data: &[u8]) -> Result<()> {
        self.load(seq, data)
    }
}
