//! KV memory and the calls of the engine thread.
//!
//! `&mut self` stands for [engine-thread]: the borrow checker allows one call at a time, and results that the header
//! lets live until the next call borrow the context. [`Aborter`] is the one handle for other threads.

use super::{Adapter, Model, call, struct_size};
use crate::raw::{self, Pos, Seq, Token};
use crate::types::{BatchEntry, ContextConfig, ContextInfo, PluginError, Result, Status};
use smallvec::SmallVec;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

/// Tokens of one decode, in four columns. Reused from step to step.
#[derive(Debug, Default)]
pub struct Batch {
    tokens: Vec<Token>,
    positions: Vec<Pos>,
    sequences: Vec<Seq>,
    outputs: Vec<u8>,
}

impl Batch {
    /// Room for this many entries.
    pub fn with_capacity(n: usize) -> Self {
        Self {
            tokens: Vec::with_capacity(n),
            positions: Vec::with_capacity(n),
            sequences: Vec::with_capacity(n),
            outputs: Vec::with_capacity(n),
        }
    }

    /// Adds an entry and answers its index.
    pub fn push(&mut self, entry: BatchEntry) -> usize {
        self.tokens.push(entry.token);
        self.positions.push(entry.position);
        self.sequences.push(entry.sequence);
        self.outputs.push(u8::from(entry.output));
        self.tokens.len() - 1
    }

    /// Forgets all entries and keeps the room.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.sequences.clear();
        self.outputs.clear();
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}

/// A context of a model.
#[derive(Debug)]
pub struct Context {
    shared: Arc<Shared>,
    info: ContextInfo,
    n_vocab: usize,
    n_embd: usize,
    embeddings: bool,
    model: Arc<Model>,
    attached: Vec<Arc<Adapter>>,
}

/// The handle, emptied when the context is destroyed, so that an [`Aborter`] may outlive it.
#[derive(Debug)]
struct Shared {
    handle: Mutex<Option<NonNull<raw::Context>>>,
    raw: NonNull<raw::Context>,
}

// SAFETY: `raw` is used by the owning Context alone, and `handle` under its lock only for the [any-thread] decode_abort.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

/// Stops a running decode, from any thread.
#[derive(Debug, Clone)]
pub struct Aborter {
    shared: Arc<Shared>,
    model: Arc<Model>,
}

impl Aborter {
    /// Asks the decode that is running to answer `Cancelled`. Without one it does nothing.
    pub fn abort(&self) {
        let handle = self.shared.handle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = *handle {
            // SAFETY: the lock keeps Drop from destroying the context meanwhile.
            unsafe { (self.model.entry().decode_abort)(handle.as_ptr()) }
        }
    }
}

impl Context {
    pub(super) fn create(model: &Arc<Model>, config: &ContextConfig) -> Result<Self> {
        let params = raw::ContextParams {
            struct_size: struct_size::<raw::ContextParams>(),
            n_ctx: config.n_ctx,
            n_batch: config.n_batch,
            n_ubatch: config.n_ubatch,
            n_seq_max: config.n_seq_max,
            n_threads: config.n_threads,
            n_threads_batch: config.n_threads_batch,
            embeddings: config.embeddings.is_some(),
            pooling: config.embeddings.map_or(0, |pooling| pooling as i32),
            kv_type: config.kv_type as i32,
            flash_attention: config.flash_attention as i32,
        };
        let mut handle = std::ptr::null_mut();
        // SAFETY: the model is open; params are only read during the call.
        call(|error| unsafe {
            (model.entry().context_create)(model.raw(), &raw const params, &raw mut handle, error)
        })?;
        let raw = NonNull::new(handle)
            .ok_or_else(|| PluginError::new(Status::Failed, "the plugin made no context"))?;
        let shared = Arc::new(Shared { handle: Mutex::new(Some(raw)), raw });
        let mut info = raw::ContextInfo {
            struct_size: struct_size::<raw::ContextInfo>(),
            memory: 0,
            n_ctx: 0,
            n_ctx_seq: 0,
            n_batch: 0,
            n_ubatch: 0,
            n_seq_max: 0,
            n_threads: 0,
            memory_bytes: 0,
        };
        // SAFETY: the context was just created; info is ours.
        let asked = call(|error| unsafe {
            (model.entry().context_info)(raw.as_ptr(), &raw mut info, error)
        });
        let has = |bit| info.memory & bit != 0;
        let context = Self {
            shared,
            info: ContextInfo {
                can_roll_back: has(raw::MEMORY_CAN_ROLL_BACK),
                can_shift: has(raw::MEMORY_CAN_SHIFT),
                can_copy_part: has(raw::MEMORY_CAN_COPY_PART),
                can_save: has(raw::MEMORY_CAN_SAVE),
                can_save_part: has(raw::MEMORY_CAN_SAVE_PART)
                    && model.plugin().extension::<raw::Parts>(raw::EXT_PARTS).is_some(),
                n_ctx: info.n_ctx,
                n_ctx_seq: info.n_ctx_seq,
                n_batch: info.n_batch,
                n_ubatch: info.n_ubatch,
                n_seq_max: info.n_seq_max,
                n_threads: info.n_threads,
                memory_bytes: info.memory_bytes,
            },
            n_vocab: model.info().n_vocab as usize,
            n_embd: model.info().n_embd as usize,
            embeddings: config.embeddings.is_some(),
            model: Arc::clone(model),
            attached: Vec::new(),
        };
        asked?;
        Ok(context)
    }

    fn entry(&self) -> &'static raw::Plugin {
        self.model.entry()
    }

    pub(crate) fn raw(&mut self) -> *mut raw::Context {
        self.shared.raw.as_ptr()
    }

    pub(super) fn set_attached(&mut self, adapters: Vec<Arc<Adapter>>) {
        self.attached = adapters;
    }

    /// What it can do and how large it is.
    pub fn info(&self) -> &ContextInfo {
        &self.info
    }

    /// The model it belongs to.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// A handle that stops a running decode.
    pub fn aborter(&self) -> Aborter {
        Aborter { shared: Arc::clone(&self.shared), model: Arc::clone(&self.model) }
    }

    /// Threads to use from the next decode on, each at least 1.
    pub fn set_threads(&mut self, n_threads: u32, n_threads_batch: u32) -> Result<()> {
        let (entry, raw) = (self.entry(), self.raw());
        // SAFETY: a live context, on the thread that holds it mutably.
        call(|error| unsafe { (entry.set_threads)(raw, n_threads, n_threads_batch, error) })
    }

    /// Computes a batch.
    pub fn decode(&mut self, batch: &Batch) -> Result<()> {
        let (entry, raw) = (self.entry(), self.raw());
        let n_tokens = u32::try_from(batch.len())
            .map_err(|_| PluginError::new(Status::InvalidArgument, "the batch is too long"))?;
        let raw_batch = raw::Batch {
            struct_size: struct_size::<raw::Batch>(),
            n_tokens,
            tokens: batch.tokens.as_ptr(),
            positions: batch.positions.as_ptr(),
            sequences: batch.sequences.as_ptr(),
            outputs: batch.outputs.as_ptr(),
        };
        // SAFETY: a live context; the four columns have n_tokens entries each, by Batch::push.
        call(|error| unsafe { (entry.decode)(raw, &raw const raw_batch, error) })
    }

    /// Logits of an entry of the last decode that had `output` set. They may be changed in place.
    pub fn logits(&mut self, index: usize) -> Result<&mut [f32]> {
        let (entry, raw, n_vocab) = (self.entry(), self.raw(), self.n_vocab);
        if self.embeddings {
            return Err(PluginError::new(
                Status::InvalidArgument,
                "this context yields embeddings, not logits",
            ));
        }
        let mut logits = std::ptr::null_mut();
        // SAFETY: a live context; the out-parameter is ours.
        call(|error| unsafe { (entry.logits)(raw, to_u32(index), &raw mut logits, error) })?;
        if logits.is_null() {
            return Err(PluginError::new(Status::Failed, "the plugin gave no logits"));
        }
        // SAFETY: n_vocab floats, the plugin's until the next call, which the borrow of self forbids meanwhile.
        Ok(unsafe { std::slice::from_raw_parts_mut(logits, n_vocab) })
    }

    /// An embedding of the last decode: of an entry without pooling, of a sequence with it.
    pub fn embedding(&mut self, index: usize) -> Result<&[f32]> {
        let (entry, raw, n_embd) = (self.entry(), self.raw(), self.n_embd);
        if !self.embeddings {
            return Err(PluginError::new(
                Status::InvalidArgument,
                "this context yields logits, not embeddings",
            ));
        }
        let mut embedding = std::ptr::null();
        // SAFETY: a live context; the out-parameter is ours.
        call(|error| unsafe { (entry.embedding)(raw, to_u32(index), &raw mut embedding, error) })?;
        if embedding.is_null() {
            return Err(PluginError::new(Status::Failed, "the plugin gave no embedding"));
        }
        // SAFETY: n_embd floats, the plugin's until the next call, which the borrow of self forbids meanwhile.
        Ok(unsafe { std::slice::from_raw_parts(embedding, n_embd) })
    }

    /// Forgets positions from `p0` up to `p1`, or to the end.
    pub fn seq_remove(&mut self, seq: Seq, p0: Pos, p1: Option<Pos>) -> Result<()> {
        let (entry, raw) = (self.entry(), self.raw());
        // SAFETY: a live context, on the thread that holds it mutably.
        call(|error| unsafe { (entry.seq_remove)(raw, seq, p0, p1.unwrap_or(-1), error) })
    }

    /// Makes the empty sequence `to` begin with the first `len` positions of `from`, or with all.
    pub fn seq_copy(&mut self, from: Seq, to: Seq, len: Option<Pos>) -> Result<()> {
        let (entry, raw) = (self.entry(), self.raw());
        // SAFETY: as in seq_remove.
        call(|error| unsafe { (entry.seq_copy)(raw, from, to, 0, len.unwrap_or(-1), error) })
    }

    /// Adds `delta` to positions from `p0` up to `p1`.
    pub fn seq_shift(&mut self, seq: Seq, p0: Pos, p1: Pos, delta: Pos) -> Result<()> {
        let (entry, raw) = (self.entry(), self.raw());
        // SAFETY: as in seq_remove.
        call(|error| unsafe { (entry.seq_shift)(raw, seq, p0, p1, delta, error) })
    }

    /// Serialises a sequence.
    pub fn seq_save(&mut self, seq: Seq) -> Result<Vec<u8>> {
        let (entry, raw) = (self.entry(), self.raw());
        let saved = super::filled(0, |buffer, capacity, n_out, error| {
            // SAFETY: a live context; the buffer has the capacity given.
            unsafe { (entry.seq_save)(raw, seq, buffer, capacity, n_out, error) }
        });
        saved.map(SmallVec::into_vec)
    }

    /// Replaces a sequence by saved bytes.
    pub fn seq_load(&mut self, seq: Seq, data: &[u8]) -> Result<()> {
        let (entry, raw) = (self.entry(), self.raw());
        // SAFETY: a live context; data has the length given.
        call(|error| unsafe { (entry.seq_load)(raw, seq, data.as_ptr(), data.len(), error) })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        let handle = self.shared.handle.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(handle) = handle {
            // SAFETY: created once; `take` under the lock keeps aborters away from here on.
            unsafe { (self.entry().context_destroy)(handle.as_ptr()) }
        }
    }
}

fn to_u32(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
