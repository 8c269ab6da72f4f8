//! The Rust mirror of `include/hearth_plugin.h`, item for item.
//!
//! The header is the contract and holds the documentation: effects, threads, ownership, failure. Here are only the
//! layouts. `tests/header.rs` compiles the header with a C compiler and compares every size and offset.

mod images;
mod quantize;

use std::ffi::{c_char, c_void};

pub use images::{EXT_IMAGES, ImagePiece, Images};
pub use quantize::{EXT_QUANTIZE, Quantize, QuantizeParams};

/// Major version in the upper half, minor in the lower.
pub const ABI_VERSION: u32 = (1 << 16) | 1;
/// Name of the exported symbol.
pub const ENTRY_SYMBOL: &str = "hearth_plugin_entry";
/// Size of [`Error::message`].
pub const MESSAGE_MAX: usize = 512;

/// `HEARTH_EXT_CHAT`
pub const EXT_CHAT: &std::ffi::CStr = c"hearth.chat/1";
/// `HEARTH_EXT_GRAMMAR`
pub const EXT_GRAMMAR: &std::ffi::CStr = c"hearth.grammar/1";
/// `HEARTH_EXT_LORA`
pub const EXT_LORA: &std::ffi::CStr = c"hearth.lora/1";
/// `HEARTH_EXT_RANK`
pub const EXT_RANK: &std::ffi::CStr = c"hearth.rank/1";
/// `HEARTH_EXT_MTP`
pub const EXT_MTP: &std::ffi::CStr = c"hearth.mtp/1";
/// `HEARTH_EXT_PARTS`
pub const EXT_PARTS: &std::ffi::CStr = c"hearth.parts/1";

/// `hearth_token_t`
pub type Token = i32;
/// `hearth_seq_t`
pub type Seq = i32;
/// `hearth_pos_t`
pub type Pos = i32;

/// `hearth_status_t`
pub type RawStatus = i32;
/// `HEARTH_OK`
pub const OK: RawStatus = 0;

/// `HEARTH_MODEL_CAN_GENERATE`
pub const MODEL_CAN_GENERATE: u32 = 1;
/// `HEARTH_MODEL_CAN_EMBED`
pub const MODEL_CAN_EMBED: u32 = 2;
/// `HEARTH_MODEL_HAS_CHAT_TEMPLATE`
pub const MODEL_HAS_CHAT_TEMPLATE: u32 = 4;

/// `HEARTH_MEMORY_CAN_ROLL_BACK`
pub const MEMORY_CAN_ROLL_BACK: u32 = 1;
/// `HEARTH_MEMORY_CAN_SHIFT`
pub const MEMORY_CAN_SHIFT: u32 = 2;
/// `HEARTH_MEMORY_CAN_COPY_PART`
pub const MEMORY_CAN_COPY_PART: u32 = 4;
/// `HEARTH_MEMORY_CAN_SAVE`
pub const MEMORY_CAN_SAVE: u32 = 8;
/// `HEARTH_MEMORY_CAN_SAVE_PART`
pub const MEMORY_CAN_SAVE_PART: u32 = 16;

macro_rules! opaque {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[repr(C)]
        #[derive(Debug)]
        pub struct $name {
            _private: [u8; 0],
        }
    )*};
}

opaque! {
    /// `hearth_model_t`
    Model;
    /// `hearth_context_t`
    Context;
    /// `hearth_grammar_t`
    Grammar;
    /// `hearth_adapter_t`
    Adapter;
    /// `hearth_projector_t`
    Projector;
    /// `hearth_image_t`
    Image;
}

/// `hearth_error_t`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // The header documents every member.
pub struct Error {
    pub struct_size: u32,
    pub message: [c_char; MESSAGE_MAX],
}

/// `hearth_bytes_t`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // The header documents every member.
pub struct Bytes {
    pub data: *mut u8,
    pub len: usize,
}

/// `hearth_host_t`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // The header documents every member.
pub struct Host {
    pub struct_size: u32,
    pub host_data: *mut c_void,
    pub log: unsafe extern "C" fn(host_data: *mut c_void, level: i32, text: *const c_char),
}

/// `hearth_device_t`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // The header documents every member.
pub struct Device {
    pub struct_size: u32,
    pub kind: i32,
    pub memory_total: u64,
    pub memory_free: u64,
    pub id: [c_char; 64],
    pub name: [c_char; 128],
    pub detail: [c_char; 256],
}

/// `hearth_model_params_t`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // The header documents every member.
pub struct ModelParams {
    pub struct_size: u32,
    pub n_gpu_layers: i32,
    pub path: *const c_char,
    pub use_mmap: bool,
    pub use_mlock: bool,
    pub vocab_only: bool,
    pub progress: Option<unsafe extern "C" fn(progress_data: *mut c_void, fraction: f32) -> bool>,
    pub progress_data: *mut c_void,
    pub with_mtp: bool,
}

/// `hearth_model_info_t`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // The header documents every member.
pub struct ModelInfo {
    pub struct_size: u32,
    pub capabilities: u32,
    pub n_vocab: u32,
    pub n_ctx_train: u32,
    pub n_embd: u32,
    pub n_layer: u32,
    pub n_params: u64,
    pub size_bytes: u64,
    pub bos_token: Token,
    pub eos_token: Token,
    pub add_bos: bool,
    pub architecture: [c_char; 64],
    pub description: [c_char; 128],
}

/// `hearth_context_params_t`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // The header documents every member.
pub struct ContextParams {
    pub struct_size: u32,
    pub n_ctx: u32,
    pub n_batch: u32,
    pub n_ubatch: u32,
    pub n_seq_max: u32,
    pub n_threads: u32,
    pub n_threads_batch: u32,
    pub embeddings: bool,
    pub pooling: i32,
    pub kv_type: i32,
    pub flash_attention: i32,
}

/// `hearth_context_info_t`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // The header documents every member.
pub struct ContextInfo {
    pub struct_size: u32,
    pub memory: u32,
    pub n_ctx: u32,
    pub n_ctx_seq: u32,
    pub n_batch: u32,
    pub n_ubatch: u32,
    pub n_seq_max: u32,
    pub n_threads: u32,
    pub memory_bytes: u64,
}

/// `hearth_batch_t`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // The header documents every member.
pub struct Batch {
    pub struct_size: u32,
    pub n_tokens: u32,
    pub tokens: *const Token,
    pub positions: *const Pos,
    pub sequences: *const Seq,
    pub outputs: *const u8,
}

/// `hearth_plugin_t`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // The header documents every member.
pub struct Plugin {
    pub struct_size: u32,
    pub abi_version: u32,
    pub name: *const c_char,
    pub version: *const c_char,
    pub description: *const c_char,
    pub init: unsafe extern "C" fn(host: *const Host, error: *mut Error) -> RawStatus,
    pub deinit: unsafe extern "C" fn(),
    pub bytes_free: unsafe extern "C" fn(bytes: Bytes),
    pub device_count: unsafe extern "C" fn(error: *mut Error) -> u32,
    pub device_get:
        unsafe extern "C" fn(index: u32, device: *mut Device, error: *mut Error) -> RawStatus,
    pub model_open: unsafe extern "C" fn(
        params: *const ModelParams,
        model: *mut *mut Model,
        error: *mut Error,
    ) -> RawStatus,
    pub model_close: unsafe extern "C" fn(model: *mut Model),
    pub model_info: unsafe extern "C" fn(
        model: *const Model,
        info: *mut ModelInfo,
        error: *mut Error,
    ) -> RawStatus,
    pub model_meta_count: unsafe extern "C" fn(model: *const Model) -> u32,
    pub model_meta: unsafe extern "C" fn(
        model: *const Model,
        index: u32,
        key: *mut *const c_char,
        value: *mut *const c_char,
        error: *mut Error,
    ) -> RawStatus,
    pub tokenize: unsafe extern "C" fn(
        model: *const Model,
        text: *const c_char,
        text_len: usize,
        add_special: bool,
        parse_special: bool,
        tokens: *mut Token,
        capacity: usize,
        n_out: *mut usize,
        error: *mut Error,
    ) -> RawStatus,
    pub token_piece: unsafe extern "C" fn(
        model: *const Model,
        token: Token,
        special: bool,
        buffer: *mut c_char,
        capacity: usize,
        n_out: *mut usize,
        error: *mut Error,
    ) -> RawStatus,
    pub detokenize: unsafe extern "C" fn(
        model: *const Model,
        tokens: *const Token,
        n_tokens: usize,
        special: bool,
        buffer: *mut c_char,
        capacity: usize,
        n_out: *mut usize,
        error: *mut Error,
    ) -> RawStatus,
    pub token_is_end: unsafe extern "C" fn(model: *const Model, token: Token) -> bool,
    pub context_create: unsafe extern "C" fn(
        model: *mut Model,
        params: *const ContextParams,
        context: *mut *mut Context,
        error: *mut Error,
    ) -> RawStatus,
    pub context_destroy: unsafe extern "C" fn(context: *mut Context),
    pub context_info: unsafe extern "C" fn(
        context: *const Context,
        info: *mut ContextInfo,
        error: *mut Error,
    ) -> RawStatus,
    pub set_threads: unsafe extern "C" fn(
        context: *mut Context,
        n_threads: u32,
        n_threads_batch: u32,
        error: *mut Error,
    ) -> RawStatus,
    pub decode: unsafe extern "C" fn(
        context: *mut Context,
        batch: *const Batch,
        error: *mut Error,
    ) -> RawStatus,
    pub decode_abort: unsafe extern "C" fn(context: *mut Context),
    pub logits: unsafe extern "C" fn(
        context: *mut Context,
        index: u32,
        logits: *mut *mut f32,
        error: *mut Error,
    ) -> RawStatus,
    pub embedding: unsafe extern "C" fn(
        context: *mut Context,
        index: u32,
        embedding: *mut *const f32,
        error: *mut Error,
    ) -> RawStatus,
    pub seq_remove: unsafe extern "C" fn(
        context: *mut Context,
        seq: Seq,
        p0: Pos,
        p1: Pos,
        error: *mut Error,
    ) -> RawStatus,
    pub seq_copy: unsafe extern "C" fn(
        context: *mut Context,
        from: Seq,
        to: Seq,
        p0: Pos,
        p1: Pos,
        error: *mut Error,
    ) -> RawStatus,
    pub seq_shift: unsafe extern "C" fn(
        context: *mut Context,
        seq: Seq,
        p0: Pos,
        p1: Pos,
        delta: Pos,
        error: *mut Error,
    ) -> RawStatus,
    pub seq_save: unsafe extern "C" fn(
        context: *mut Context,
        seq: Seq,
        buffer: *mut u8,
        capacity: usize,
        n_out: *mut usize,
        error: *mut Error,
    ) -> RawStatus,
    pub seq_load: unsafe extern "C" fn(
        context: *mut Context,
        seq: Seq,
        data: *const u8,
        len: usize,
        error: *mut Error,
    ) -> RawStatus,
    pub extension: unsafe extern "C" fn(id: *const c_char) -> *const c_void,
}

// SAFETY: the struct is read-only after the library is loaded; its strings are constants of that library.
unsafe impl Sync for Plugin {}

/// `hearth_chat_t`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // The header documents every member.
pub struct Chat {
    pub struct_size: u32,
    pub render: unsafe extern "C" fn(
        model: *const Model,
        request: *const c_char,
        request_len: usize,
        answer: *mut Bytes,
        error: *mut Error,
    ) -> RawStatus,
    pub parse: unsafe extern "C" fn(
        model: *const Model,
        parser: *const c_char,
        parser_len: usize,
        text: *const c_char,
        text_len: usize,
        partial: bool,
        message: *mut Bytes,
        error: *mut Error,
    ) -> RawStatus,
}

/// `hearth_grammar_ext_t`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // The header documents every member.
pub struct GrammarExt {
    pub struct_size: u32,
    pub create: unsafe extern "C" fn(
        model: *const Model,
        text: *const c_char,
        text_len: usize,
        root: *const c_char,
        grammar: *mut *mut Grammar,
        error: *mut Error,
    ) -> RawStatus,
    pub destroy: unsafe extern "C" fn(grammar: *mut Grammar),
    pub mask: unsafe extern "C" fn(
        grammar: *mut Grammar,
        tokens: *const Token,
        logits: *mut f32,
        n: usize,
        error: *mut Error,
    ) -> RawStatus,
    pub accept:
        unsafe extern "C" fn(grammar: *mut Grammar, token: Token, error: *mut Error) -> RawStatus,
    pub accept_text: unsafe extern "C" fn(
        grammar: *mut Grammar,
        text: *const c_char,
        text_len: usize,
        error: *mut Error,
    ) -> RawStatus,
}

/// `hearth_lora_t`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // The header documents every member.
pub struct Lora {
    pub struct_size: u32,
    pub open: unsafe extern "C" fn(
        model: *mut Model,
        path: *const c_char,
        adapter: *mut *mut Adapter,
        error: *mut Error,
    ) -> RawStatus,
    pub close: unsafe extern "C" fn(adapter: *mut Adapter),
    pub attach: unsafe extern "C" fn(
        context: *mut Context,
        adapters: *const *mut Adapter,
        scales: *const f32,
        n: usize,
        error: *mut Error,
    ) -> RawStatus,
}

/// `hearth_mtp_t`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // The header documents every member.
pub struct Mtp {
    pub struct_size: u32,
    pub begin: unsafe extern "C" fn(
        context: *mut Context,
        n_most: *mut u32,
        error: *mut Error,
    ) -> RawStatus,
    pub draft: unsafe extern "C" fn(
        context: *mut Context,
        sequences: *const Seq,
        tokens: *const Token,
        n: usize,
        n_guesses: usize,
        guesses: *mut Token,
        error: *mut Error,
    ) -> RawStatus,
}

/// `hearth_parts_t`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // The header documents every member.
pub struct Parts {
    pub struct_size: u32,
    pub save: unsafe extern "C" fn(
        context: *mut Context,
        seq: Seq,
        p0: Pos,
        p1: Pos,
        buffer: *mut u8,
        capacity: usize,
        n_out: *mut usize,
        error: *mut Error,
    ) -> RawStatus,
    pub load: unsafe extern "C" fn(
        context: *mut Context,
        seq: Seq,
        data: *const u8,
        len: usize,
        error: *mut Error,
    ) -> RawStatus,
}

/// `hearth_rank_t`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // The header documents every member.
pub struct Rank {
    pub struct_size: u32,
    pub tokenize: unsafe extern "C" fn(
        model: *const Model,
        query: *const c_char,
        query_len: usize,
        text: *const c_char,
        text_len: usize,
        tokens: *mut Token,
        capacity: usize,
        n_out: *mut usize,
        error: *mut Error,
    ) -> RawStatus,
}
