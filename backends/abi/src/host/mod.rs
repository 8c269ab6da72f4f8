//! The host's side: load a plugin, and call it through handles that keep each other alive.
//!
//! [`Plugin`] ← [`Model`] ← [`Context`], [`Grammar`], [`Adapter`], [`Projector`] ← [`Image`]: each holds an `Arc` of what it needs, so that drop
//! order follows the header's by itself. A library is never unloaded: engines leave thread-locals and handlers
//! behind, and a process holds one plugin for its whole life.
//!
//! Buffers that the plugin fills are sized by asking again after BUFFER_TOO_SMALL; none of the calls on the
//! engine's hot path (`decode`, `logits`, `token_piece`, `token_is_end`) allocates.

mod context;
mod extensions;
mod images;
mod loader;
mod model;
mod quantize;

pub use context::{Aborter, Batch, Context};
pub use extensions::{Adapter, Grammar};
pub use images::{Image, Projector};
pub use loader::{LoadError, LogSink, Plugin};
pub use model::Model;

use crate::raw;
use crate::types::{PluginError, Result, Status};
use smallvec::SmallVec;
use std::ffi::{CStr, c_char};
use std::mem::size_of;

#[allow(clippy::cast_possible_truncation)] // No struct of the ABI comes near 4 GiB.
const fn struct_size<T>() -> u32 {
    size_of::<T>() as u32
}

/// Runs one fallible call with a fresh error struct.
pub(crate) fn call(body: impl FnOnce(*mut raw::Error) -> raw::RawStatus) -> Result<()> {
    let mut error =
        raw::Error { struct_size: struct_size::<raw::Error>(), message: [0; raw::MESSAGE_MAX] };
    match body(&raw mut error) {
        raw::OK => Ok(()),
        status => {
            Err(PluginError { status: Status::from_raw(status), message: text_of(&error.message) })
        }
    }
}

/// Text in a fixed array: up to the first NUL, or all of it.
fn text_of(array: &[c_char]) -> String {
    let bytes: Vec<u8> =
        array.iter().take_while(|byte| **byte != 0).map(|byte| byte.cast_unsigned()).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// # Safety
/// `text` is null or a NUL-terminated string that lives during the call.
unsafe fn text_at(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: promised by the caller, and not null.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Calls `body(buffer, capacity, n_out)` until the buffer is large enough.
fn filled<T: Copy + Default>(
    first_capacity: usize,
    mut body: impl FnMut(*mut T, usize, *mut usize, *mut raw::Error) -> raw::RawStatus,
) -> Result<SmallVec<[T; 32]>> {
    let mut buffer = SmallVec::from_elem(T::default(), first_capacity);
    // A plugin that keeps asking for more is broken; three rounds are two more than an honest one needs.
    for _ in 0..3 {
        let mut n_out = 0_usize;
        match call(|error| body(buffer.as_mut_ptr(), buffer.len(), &raw mut n_out, error)) {
            Ok(()) if n_out <= buffer.len() => {
                buffer.truncate(n_out);
                return Ok(buffer);
            }
            Err(error) if error.status == Status::BufferTooSmall && n_out > buffer.len() => {
                buffer.resize(n_out, T::default());
            }
            Err(error) if error.status != Status::BufferTooSmall => return Err(error),
            _ => break,
        }
    }
    Err(PluginError::new(Status::Failed, "the plugin gives impossible buffer sizes"))
}
