//! `hearth.chat/1`: JSON through llama.cpp's `common/chat`. Error texts may quote messages, so none of them is logged.

use crate::model::LlamaModel;
use crate::shim::{
    ChatHandle, error, guarded, hearth_shim_bytes_free, hearth_shim_chat_free,
    hearth_shim_chat_new, hearth_shim_chat_parse, hearth_shim_chat_render, invalid,
};
use hearth_abi::author::ChatModel;
use hearth_abi::{Result, Status};
use llama_cpp_sys_2 as sys;
use std::ffi::c_char;
use std::ptr::NonNull;

/// Compiled templates and loaded parsers of one model.
#[derive(Debug)]
pub(crate) struct Chat(NonNull<ChatHandle>);

// SAFETY: the shim's handle locks what it changes.
unsafe impl Send for Chat {}
// SAFETY: as above.
unsafe impl Sync for Chat {}

impl Drop for Chat {
    fn drop(&mut self) {
        // SAFETY: made once by the shim.
        unsafe { hearth_shim_chat_free(self.0.as_ptr()) }
    }
}

impl Chat {
    /// # Safety
    /// The model is loaded and outlives the answer.
    pub(crate) unsafe fn new(model: *const sys::llama_model) -> Result<Self> {
        // SAFETY: promised by the caller.
        let handle = NonNull::new(unsafe { hearth_shim_chat_new(model) });
        handle.map(Self).ok_or_else(|| error(Status::OutOfMemory, "no memory for chat templates"))
    }
}

/// Runs a shim call that answers bytes, copies them and gives them back.
fn answered(
    what: &str,
    body: impl FnOnce(*mut *mut c_char, *mut usize, *mut c_char) -> bool,
) -> Result<String> {
    let (mut bytes, mut len) = (std::ptr::null_mut(), 0);
    guarded(|message| body(&raw mut bytes, &raw mut len, message))
        .map_err(|why| invalid(format!("cannot {what}: {}", why.trim().trim_end_matches('.'))))?;
    // SAFETY: the shim answered `len` bytes that are ours until given back, which happens once, right after the copy.
    let copy = unsafe {
        let copy = std::slice::from_raw_parts(bytes.cast::<u8>(), len).to_vec();
        hearth_shim_bytes_free(bytes);
        copy
    };
    String::from_utf8(copy)
        .map_err(|_| error(Status::Failed, format!("cannot {what}: the answer is not UTF-8")))
}

impl ChatModel for LlamaModel {
    fn render(&self, request: &str) -> Result<String> {
        let chat = self.chat()?.0.as_ptr();
        // SAFETY: the handle lives as long as the model; the request has the length given.
        answered("render the chat", |answer, answer_len, message| unsafe {
            hearth_shim_chat_render(
                chat,
                request.as_ptr().cast(),
                request.len(),
                answer,
                answer_len,
                message,
            )
        })
    }

    fn parse(&self, parser: &str, text: &str, partial: bool) -> Result<String> {
        let chat = self.chat()?.0.as_ptr();
        // SAFETY: the handle lives as long as the model; both texts have the lengths given.
        answered("read the answer", |answer, answer_len, message| unsafe {
            let (parser, parser_len) = (parser.as_ptr().cast(), parser.len());
            let (text, text_len) = (text.as_ptr().cast(), text.len());
            hearth_shim_chat_parse(
                chat, parser, parser_len, text, text_len, partial, answer, answer_len, message,
            )
        })
    }
}
