//! The C side of [`Backend`] and [`Model`]: one `extern "C"` function per pointer of `hearth_plugin_t`, but for those
//! that take a context.
//!
//! A model handle is a `Box<Arc<M>>`, so that a context keeps its model alive whatever the host does. Every shim runs
//! its body through [`guard`], which writes the error and stops a panic.

use super::{Backend, HostLog, Model, contexts};
use crate::raw::{self, Token};
use crate::types::{OpenParams, PluginError, Result, Status};
use std::ffi::{CStr, OsStr, c_char, c_void};
use std::mem::offset_of;
use std::mem::size_of;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// The table to export; use [`export_plugin!`](crate::export_plugin).
pub const fn plugin_table<B: Backend>() -> raw::Plugin {
    raw::Plugin {
        struct_size: struct_size::<raw::Plugin>(),
        abi_version: raw::ABI_VERSION,
        name: B::NAME.as_ptr(),
        version: B::VERSION.as_ptr(),
        description: B::DESCRIPTION.as_ptr(),
        init: init::<B>,
        deinit: deinit::<B>,
        bytes_free,
        device_count: device_count::<B>,
        device_get: device_get::<B>,
        model_open: model_open::<B>,
        model_close: model_close::<B>,
        model_info: model_info::<B>,
        model_meta_count: model_meta_count::<B>,
        model_meta: model_meta::<B>,
        tokenize: tokenize::<B>,
        token_piece: token_piece::<B>,
        detokenize: detokenize::<B>,
        token_is_end: token_is_end::<B>,
        context_create: contexts::context_create::<B>,
        context_destroy: contexts::context_destroy::<B>,
        context_info: contexts::context_info::<B>,
        set_threads: contexts::set_threads::<B>,
        decode: contexts::decode::<B>,
        decode_abort: contexts::decode_abort::<B>,
        logits: contexts::logits::<B>,
        embedding: contexts::embedding::<B>,
        seq_remove: contexts::seq_remove::<B>,
        seq_copy: contexts::seq_copy::<B>,
        seq_shift: contexts::seq_shift::<B>,
        seq_save: contexts::seq_save::<B>,
        seq_load: contexts::seq_load::<B>,
        extension: extension::<B>,
    }
}

#[allow(clippy::cast_possible_truncation)] // No struct of the ABI comes near 4 GiB.
pub(super) const fn struct_size<T>() -> u32 {
    size_of::<T>() as u32
}

pub(super) fn invalid(message: &str) -> PluginError {
    PluginError::new(Status::InvalidArgument, message)
}

/// Runs `body`, writes its error into `error`, and turns a panic into `Failed`.
///
/// # Safety
/// `error` is null or points to a `hearth_error_t` that nobody else uses during the call.
pub(super) unsafe fn guard(
    error: *mut raw::Error,
    body: impl FnOnce() -> Result<()>,
) -> raw::RawStatus {
    let failed = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return raw::OK,
        Ok(Err(failed)) => failed,
        Err(panic) => {
            let what = panic
                .downcast_ref::<&str>()
                .copied()
                .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
                .unwrap_or("no message");
            PluginError::new(Status::Failed, format!("the plugin panicked: {what}"))
        }
    };
    // SAFETY: passed on from the caller.
    unsafe { write_message(error, &failed.message) };
    failed.status as raw::RawStatus
}

/// # Safety
/// As [`guard`].
unsafe fn write_message(error: *mut raw::Error, message: &str) {
    if error.is_null() {
        return;
    }
    let mut len = message.len().min(raw::MESSAGE_MAX - 1);
    while !message.is_char_boundary(len) {
        len -= 1;
    }
    // SAFETY: the host owns a whole hearth_error_t there, and len + 1 is at most the message's size.
    unsafe {
        let target = (&raw mut (*error).message).cast::<u8>();
        std::ptr::copy_nonoverlapping(message.as_ptr(), target, len);
        target.add(len).write(0);
    }
}

/// A slice the host lent, empty when `len` is 0 whatever the pointer.
///
/// # Safety
/// `data` points to `len` elements that stay unchanged during the call, unless `len` is 0.
pub(super) unsafe fn slice<'a, T>(data: *const T, len: usize) -> Result<&'a [T]> {
    if len == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(invalid("null pointer with a length that is not 0"));
    }
    // SAFETY: promised by the caller, and not null.
    Ok(unsafe { std::slice::from_raw_parts(data, len) })
}

/// # Safety
/// `handle` is null or came from this plugin's `model_open` and is not closed.
pub(super) unsafe fn model<'a, M>(handle: *const raw::Model) -> Result<&'a Arc<M>> {
    // SAFETY: handles are Box<Arc<M>> of this very plugin, alive until model_close.
    unsafe { handle.cast::<Arc<M>>().as_ref() }.ok_or_else(|| invalid("the model is null"))
}

/// Copies `from` out, or says how much room is needed.
///
/// # Safety
/// `buffer` has room for `capacity` elements and `n_out` is writable.
pub(super) unsafe fn copy_out<T: Copy>(
    from: &[T],
    buffer: *mut T,
    capacity: usize,
    n_out: *mut usize,
) -> Result<()> {
    if n_out.is_null() || (buffer.is_null() && capacity > 0) {
        return Err(invalid("null out-parameter"));
    }
    // SAFETY: not null, and the caller owns it.
    unsafe { *n_out = from.len() };
    if from.len() > capacity {
        return Err(PluginError::new(
            Status::BufferTooSmall,
            format!("the answer has {} elements", from.len()),
        ));
    }
    if !from.is_empty() {
        // SAFETY: from.len() <= capacity, and the host's buffer cannot overlap memory of ours.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), buffer, from.len()) };
    }
    Ok(())
}

fn write_text(target: &mut [c_char], text: &str) {
    let mut len = text.len().min(target.len() - 1);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    for (to, from) in target.iter_mut().zip(&text.as_bytes()[..len]) {
        *to = from.cast_signed();
    }
    target[len] = 0;
}

/// A struct of the host's, with zeros for what an older host does not set: the members from the offset `since` on.
///
/// # Safety
/// `params` is null or points to as many bytes as its first member, a u32, says, and zeros are a value of each member.
pub(super) unsafe fn as_of_today<T: Copy>(params: *const T, since: usize) -> Result<T> {
    if params.is_null() {
        return Err(invalid("the params are null"));
    }
    // SAFETY: every version begins with its size.
    let size = unsafe { params.cast::<u32>().read() };
    check_size(size, u32::try_from(since).unwrap_or(u32::MAX))?;
    let len = (size as usize).min(size_of::<T>());
    // SAFETY: zeros are a value, and the host's bytes are the members of its version.
    unsafe {
        let mut known: T = std::mem::zeroed();
        std::ptr::copy_nonoverlapping(params.cast::<u8>(), (&raw mut known).cast::<u8>(), len);
        Ok(known)
    }
}

pub(super) fn check_size(actual: u32, wanted: u32) -> Result<()> {
    if actual < wanted {
        return Err(invalid("struct_size is smaller than this plugin's version of the struct"));
    }
    Ok(())
}

unsafe extern "C" fn init<B: Backend>(
    host: *const raw::Host,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: the host passes its own struct, valid until deinit, and its error.
    unsafe {
        guard(error, || {
            let host = host.as_ref().ok_or_else(|| invalid("the host is null"))?;
            check_size(host.struct_size, struct_size::<raw::Host>())?;
            B::init(HostLog { host_data: host.host_data, log: host.log })
        })
    }
}

unsafe extern "C" fn deinit<B: Backend>() {
    let _ = catch_unwind(B::deinit);
}

/// Allocates what `bytes_free` gives back.
pub(super) fn into_bytes(text: String) -> raw::Bytes {
    let boxed = text.into_bytes().into_boxed_slice();
    let len = boxed.len();
    let data = if len == 0 { std::ptr::null_mut() } else { Box::into_raw(boxed).cast::<u8>() };
    raw::Bytes { data, len }
}

unsafe extern "C" fn bytes_free(bytes: raw::Bytes) {
    if !bytes.data.is_null() {
        // SAFETY: into_bytes made it from a boxed slice of exactly this length, and the host gives it back once.
        drop(unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(bytes.data, bytes.len)) });
    }
}

unsafe extern "C" fn device_count<B: Backend>(error: *mut raw::Error) -> u32 {
    let mut count = 0;
    // SAFETY: the host's own error struct.
    unsafe {
        guard(error, || {
            count = u32::try_from(B::devices()?.len()).unwrap_or(u32::MAX);
            Ok(())
        });
    }
    count
}

unsafe extern "C" fn device_get<B: Backend>(
    index: u32,
    device: *mut raw::Device,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: device and error belong to the host, who lends them for the call.
    unsafe {
        guard(error, || {
            let target = device.as_mut().ok_or_else(|| invalid("the device is null"))?;
            check_size(target.struct_size, struct_size::<raw::Device>())?;
            let devices = B::devices()?;
            let found =
                devices.get(index as usize).ok_or_else(|| invalid("no device has this index"))?;
            target.kind = found.kind as i32;
            target.memory_total = found.memory_total;
            target.memory_free = found.memory_free;
            write_text(&mut target.id, &found.id);
            write_text(&mut target.name, &found.name);
            write_text(&mut target.detail, &found.detail);
            Ok(())
        })
    }
}

unsafe extern "C" fn model_open<B: Backend>(
    params: *const raw::ModelParams,
    handle: *mut *mut raw::Model,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: the host lends all three for the call; params.path is NUL-terminated by the contract.
    unsafe {
        guard(error, || {
            if handle.is_null() {
                return Err(invalid("the model's out-parameter is null"));
            }
            *handle = std::ptr::null_mut();
            let params = as_of_today(params, offset_of!(raw::ModelParams, with_mtp))?;
            if params.path.is_null() {
                return Err(invalid("the path is null"));
            }
            let open = OpenParams {
                path: OsStr::from_bytes(CStr::from_ptr(params.path).to_bytes()).into(),
                n_gpu_layers: u32::try_from(params.n_gpu_layers).ok(),
                use_mmap: params.use_mmap,
                use_mlock: params.use_mlock,
                vocab_only: params.vocab_only,
                with_mtp: params.with_mtp,
            };
            let mut progress = |fraction: f32| match params.progress {
                Some(report) => report(params.progress_data, fraction),
                None => true,
            };
            let opened = B::open(&open, &mut progress)?;
            *handle = Box::into_raw(Box::new(Arc::new(opened))).cast::<raw::Model>();
            Ok(())
        })
    }
}

unsafe extern "C" fn model_close<B: Backend>(handle: *mut raw::Model) {
    if !handle.is_null() {
        // SAFETY: model_open made it by Box::into_raw, and the host closes it once.
        let boxed = unsafe { Box::from_raw(handle.cast::<Arc<B::Model>>()) };
        let _ = catch_unwind(AssertUnwindSafe(|| drop(boxed)));
    }
}

unsafe extern "C" fn model_info<B: Backend>(
    handle: *const raw::Model,
    info: *mut raw::ModelInfo,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: an open model of ours; info and error are the host's.
    unsafe {
        guard(error, || {
            let target = info.as_mut().ok_or_else(|| invalid("the info is null"))?;
            check_size(target.struct_size, struct_size::<raw::ModelInfo>())?;
            let found = model::<B::Model>(handle)?.info();
            target.capabilities = [
                (found.can_generate, raw::MODEL_CAN_GENERATE),
                (found.can_embed, raw::MODEL_CAN_EMBED),
                (found.has_chat_template, raw::MODEL_HAS_CHAT_TEMPLATE),
            ]
            .iter()
            .fold(0, |bits, (set, bit)| if *set { bits | bit } else { bits });
            target.n_vocab = found.n_vocab;
            target.n_ctx_train = found.n_ctx_train;
            target.n_embd = found.n_embd;
            target.n_layer = found.n_layer;
            target.n_params = found.n_params;
            target.size_bytes = found.size_bytes;
            target.bos_token = found.bos_token.unwrap_or(-1);
            target.eos_token = found.eos_token.unwrap_or(-1);
            target.add_bos = found.add_bos;
            write_text(&mut target.architecture, &found.architecture);
            write_text(&mut target.description, &found.description);
            Ok(())
        })
    }
}

unsafe extern "C" fn model_meta_count<B: Backend>(handle: *const raw::Model) -> u32 {
    // SAFETY: an open model of ours.
    unsafe { model::<B::Model>(handle) }
        .map_or(0, |model| u32::try_from(model.meta().len()).unwrap_or(u32::MAX))
}

unsafe extern "C" fn model_meta<B: Backend>(
    handle: *const raw::Model,
    index: u32,
    key: *mut *const c_char,
    value: *mut *const c_char,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: an open model of ours; the strings live in it, so until model_close.
    unsafe {
        guard(error, || {
            if key.is_null() || value.is_null() {
                return Err(invalid("null out-parameter"));
            }
            let entry = model::<B::Model>(handle)?
                .meta()
                .get(index as usize)
                .ok_or_else(|| invalid("no metadata entry has this index"))?;
            *key = entry.0.as_ptr();
            *value = entry.1.as_ptr();
            Ok(())
        })
    }
}

unsafe extern "C" fn tokenize<B: Backend>(
    handle: *const raw::Model,
    text: *const c_char,
    text_len: usize,
    add_special: bool,
    parse_special: bool,
    tokens: *mut Token,
    capacity: usize,
    n_out: *mut usize,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: an open model of ours; text and tokens are the host's, with the lengths given.
    unsafe {
        guard(error, || {
            let text = slice(text.cast::<u8>(), text_len)?;
            let found = model::<B::Model>(handle)?.tokenize(text, add_special, parse_special)?;
            copy_out(&found, tokens, capacity, n_out)
        })
    }
}

unsafe extern "C" fn token_piece<B: Backend>(
    handle: *const raw::Model,
    token: Token,
    special: bool,
    buffer: *mut c_char,
    capacity: usize,
    n_out: *mut usize,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: an open model of ours; the buffer is the host's, with the capacity given.
    unsafe {
        guard(error, || {
            let piece = model::<B::Model>(handle)?.token_piece(token, special)?;
            copy_out(&piece, buffer.cast::<u8>(), capacity, n_out)
        })
    }
}

unsafe extern "C" fn detokenize<B: Backend>(
    handle: *const raw::Model,
    tokens: *const Token,
    n_tokens: usize,
    special: bool,
    buffer: *mut c_char,
    capacity: usize,
    n_out: *mut usize,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: an open model of ours; tokens and buffer are the host's, with the lengths given.
    unsafe {
        guard(error, || {
            let text = model::<B::Model>(handle)?.detokenize(slice(tokens, n_tokens)?, special)?;
            copy_out(&text, buffer.cast::<u8>(), capacity, n_out)
        })
    }
}

unsafe extern "C" fn token_is_end<B: Backend>(handle: *const raw::Model, token: Token) -> bool {
    // SAFETY: an open model of ours.
    unsafe { model::<B::Model>(handle) }.is_ok_and(|model| model.token_is_end(token))
}

unsafe extern "C" fn extension<B: Backend>(id: *const c_char) -> *const c_void {
    fn table<T>(extension: &'static Option<T>) -> *const c_void {
        extension.as_ref().map_or(std::ptr::null(), |table| std::ptr::from_ref(table).cast())
    }
    if id.is_null() {
        return std::ptr::null();
    }
    // SAFETY: a NUL-terminated string of the host's, by the contract.
    let id = unsafe { CStr::from_ptr(id) };
    if id == raw::EXT_CHAT {
        table(const { &B::CHAT })
    } else if id == raw::EXT_GRAMMAR {
        table(const { &B::GRAMMAR })
    } else if id == raw::EXT_LORA {
        table(const { &B::LORA })
    } else if id == raw::EXT_IMAGES {
        table(const { &B::IMAGES })
    } else if id == raw::EXT_MTP {
        table(const { &B::MTP })
    } else if id == raw::EXT_PARTS {
        table(const { &B::PARTS })
    } else if id == raw::EXT_RANK {
        table(const { &B::RANK })
    } else if id == raw::EXT_QUANTIZE {
        table(const { &B::QUANTIZE })
    } else {
        std::ptr::null()
    }
}
