//! The C++ shim's functions, mirrored by hand from `shim/engine.h` and `shim/chat.h`, and the error they share.

use crate::linked::LinkedModule;
use crate::log;
use hearth_abi::{PluginError, Status};
use llama_cpp_sys_2 as sys;
use std::ffi::{CStr, c_char};

/// `HEARTH_SHIM_MESSAGE`
const MESSAGE_MAX: usize = 512;

#[repr(C)]
pub(crate) struct ChatHandle {
    _private: [u8; 0],
}

/// `llama_grammar`
#[repr(C)]
pub(crate) struct GrammarHandle {
    _private: [u8; 0],
}

/// `llama_batch_ext`
#[repr(C)]
pub(crate) struct BatchHandle {
    _private: [u8; 0],
}

/// `hearth_shim_branch`
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Branch {
    pub(crate) token: sys::llama_token,
    pub(crate) above: i32,
    pub(crate) begin: u32,
    pub(crate) len: u32,
}

/// `hearth_shim_mtp_token`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct MtpToken {
    pub(crate) state: *const f32,
    pub(crate) token: sys::llama_token,
    pub(crate) pos: sys::llama_pos,
    pub(crate) seq: sys::llama_seq_id,
    pub(crate) output: bool,
}

#[rustfmt::skip]
unsafe extern "C" {
    pub(crate) fn hearth_shim_tokenize(vocab: *const sys::llama_vocab, text: *const c_char, text_len: i32, tokens: *mut sys::llama_token, capacity: i32, add_special: bool, parse_special: bool, answer: *mut i32, message: *mut c_char) -> bool;
    pub(crate) fn hearth_shim_token_piece(vocab: *const sys::llama_vocab, token: sys::llama_token, buffer: *mut c_char, capacity: i32, special: bool, answer: *mut i32, message: *mut c_char) -> bool;
    pub(crate) fn hearth_shim_detokenize(vocab: *const sys::llama_vocab, tokens: *const sys::llama_token, n_tokens: i32, buffer: *mut c_char, capacity: i32, remove_special: bool, unparse_special: bool, answer: *mut i32, message: *mut c_char) -> bool;
    pub(crate) fn hearth_shim_model_load(path: *const c_char, params: *const sys::llama_model_params, model: *mut *mut sys::llama_model, message: *mut c_char) -> bool;
    pub(crate) fn hearth_shim_context_new(model: *mut sys::llama_model, params: *const sys::llama_context_params, context: *mut *mut sys::llama_context, message: *mut c_char) -> bool;
    pub(crate) fn hearth_shim_position_rows(model: *const sys::llama_model) -> i64;
    pub(crate) fn hearth_shim_adapter_load(model: *mut sys::llama_model, path: *const c_char, adapter: *mut *mut sys::llama_adapter_lora, message: *mut c_char) -> bool;
    pub(crate) fn hearth_shim_adapters_set(context: *mut sys::llama_context, adapters: *mut *mut sys::llama_adapter_lora, n: usize, scales: *mut f32, message: *mut c_char) -> bool;
    pub(crate) fn hearth_shim_decode(context: *mut sys::llama_context, batch: *const sys::llama_batch, encode: bool, answer: *mut i32, message: *mut c_char) -> bool;
    pub(crate) fn hearth_shim_seq_size(context: *mut sys::llama_context, seq: sys::llama_seq_id, answer: *mut usize, message: *mut c_char) -> bool;
    pub(crate) fn hearth_shim_seq_get(context: *mut sys::llama_context, seq: sys::llama_seq_id, data: *mut u8, len: usize, answer: *mut usize, message: *mut c_char) -> bool;
    pub(crate) fn hearth_shim_seq_set(context: *mut sys::llama_context, seq: sys::llama_seq_id, data: *const u8, len: usize, answer: *mut usize, message: *mut c_char) -> bool;
    pub(crate) fn hearth_shim_seq_shift(context: *mut sys::llama_context, seq: sys::llama_seq_id, p0: sys::llama_pos, p1: sys::llama_pos, delta: sys::llama_pos, message: *mut c_char) -> bool;
    pub(crate) fn hearth_shim_context_bytes(context: *const sys::llama_context) -> u64;
    pub(crate) fn hearth_shim_mtp_begin(trunk: *mut sys::llama_context, heads: *mut sys::llama_context, batch: *mut *mut BatchHandle, message: *mut c_char) -> bool;
    pub(crate) fn hearth_shim_mtp_state(context: *mut sys::llama_context, index: i32, state: *mut *const f32, message: *mut c_char) -> bool;
    pub(crate) fn hearth_shim_mtp_decode(heads: *mut sys::llama_context, batch: *mut BatchHandle, tokens: *const MtpToken, n: usize, n_embd: usize, answer: *mut i32, message: *mut c_char) -> bool;
    pub(crate) fn llama_batch_ext_free(batch: *mut BatchHandle);
    pub(crate) fn hearth_shim_grammar_new(vocab: *const sys::llama_vocab, text: *const c_char, root: *const c_char, grammar: *mut *mut GrammarHandle, message: *mut c_char) -> bool;
    pub(crate) fn hearth_shim_grammar_free(grammar: *mut GrammarHandle);
    pub(crate) fn hearth_shim_grammar_apply(grammar: *const GrammarHandle, tokens: *mut sys::llama_token_data_array, message: *mut c_char) -> bool;
    pub(crate) fn hearth_shim_grammar_walk(grammar: *mut GrammarHandle, branches: *const Branch, n: usize, text: *const u32, may_come: *mut bool, walked: *mut bool, message: *mut c_char) -> bool;
    pub(crate) fn hearth_shim_grammar_accept(grammar: *mut GrammarHandle, token: sys::llama_token, message: *mut c_char) -> bool;
    pub(crate) fn hearth_shim_grammar_accept_text(grammar: *mut *mut GrammarHandle, text: *const c_char, text_len: usize, message: *mut c_char) -> bool;
    pub(crate) fn hearth_shim_silence_common();
    pub(crate) fn hearth_shim_map_buffers();
    pub(crate) fn hearth_shim_register_kernels(module_path: *const c_char) -> bool;
    pub(crate) fn hearth_shim_register_linked_kernels(module: *const LinkedModule) -> bool;
    pub(crate) fn hearth_shim_linked_modules() -> *const LinkedModule;

    pub(crate) fn hearth_shim_chat_new(model: *const sys::llama_model) -> *mut ChatHandle;
    pub(crate) fn hearth_shim_chat_free(chat: *mut ChatHandle);
    pub(crate) fn hearth_shim_chat_render(chat: *mut ChatHandle, request: *const c_char, request_len: usize, answer: *mut *mut c_char, answer_len: *mut usize, message: *mut c_char) -> bool;
    pub(crate) fn hearth_shim_chat_parse(chat: *mut ChatHandle, parser: *const c_char, parser_len: usize, text: *const c_char, text_len: usize, partial: bool, answer: *mut *mut c_char, answer_len: *mut usize, message: *mut c_char) -> bool;
    pub(crate) fn hearth_shim_bytes_free(bytes: *mut c_char);
}

/// Runs one shim call with a message buffer, and answers the exception's text if there was one.
pub(crate) fn guarded(body: impl FnOnce(*mut c_char) -> bool) -> Result<(), String> {
    let mut message = [0; MESSAGE_MAX];
    if body(message.as_mut_ptr()) {
        return Ok(());
    }
    // SAFETY: the shim wrote a NUL-terminated text of at most MESSAGE_MAX bytes before it answered false.
    Err(unsafe { CStr::from_ptr(message.as_ptr()) }.to_string_lossy().into_owned())
}

/// What a captured call left behind besides its answer.
#[derive(Debug)]
pub(crate) struct Captured {
    thrown: Option<String>,
    lines: Vec<String>,
}

/// As [`guarded`], for calls whose reason for failing is in llama.cpp's log.
pub(crate) fn captured(body: impl FnOnce(*mut c_char) -> bool) -> Captured {
    let (called, lines) = log::capture(|| guarded(body));
    Captured { thrown: called.err(), lines }
}

impl Captured {
    /// Nothing was thrown. The answer may tell of a failure all the same.
    pub(crate) fn is_ok(&self) -> bool {
        self.thrown.is_none()
    }

    pub(crate) fn mentions(&self, words: &str) -> bool {
        self.lines.iter().chain(&self.thrown).any(|line| line.contains(words))
    }

    /// Why the call failed, for a person.
    pub(crate) fn why(self) -> String {
        let why = self
            .thrown
            .or_else(|| log::reason(&self.lines))
            .unwrap_or_else(|| "no reason given".into());
        why.trim().trim_end_matches('.').to_owned()
    }
}

/// An error of this plugin.
pub(crate) fn error(status: Status, message: impl Into<String>) -> PluginError {
    PluginError::new(status, message)
}

pub(crate) fn invalid(message: impl Into<String>) -> PluginError {
    error(Status::InvalidArgument, message)
}

/// A C string for a text that must have no NUL in it.
pub(crate) fn c_string(
    text: impl Into<Vec<u8>>,
    what: &str,
) -> hearth_abi::Result<std::ffi::CString> {
    std::ffi::CString::new(text).map_err(|_| invalid(format!("{what} has a NUL in it")))
}
