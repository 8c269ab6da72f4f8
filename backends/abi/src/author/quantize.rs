//! The author's side of `hearth.quantize/1`.

use super::Backend;
use super::shims::{check_size, guard, invalid, struct_size};
use crate::raw;
use crate::types::{QuantizeParams, Result};
use std::ffi::{CStr, OsStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// `hearth.quantize/1`
pub trait QuantizeBackend: Backend {
    /// Names of the types; the first can do without an importance matrix.
    const TYPES: &'static [&'static CStr];

    /// Writes the output. `progress` answers false when the host wants it cancelled.
    fn quantize(params: &QuantizeParams, progress: &mut dyn FnMut(f32) -> bool) -> Result<()>;
}

/// `hearth.quantize/1` of a backend.
pub const fn quantize_table<B: QuantizeBackend>() -> raw::Quantize {
    raw::Quantize {
        struct_size: struct_size::<raw::Quantize>(),
        type_name: type_name::<B>,
        quantize: quantize::<B>,
    }
}

unsafe extern "C" fn type_name<B: QuantizeBackend>(index: u32) -> *const c_char {
    B::TYPES.get(index as usize).map_or(std::ptr::null(), |name| name.as_ptr())
}

unsafe extern "C" fn quantize<B: QuantizeBackend>(
    params: *const raw::QuantizeParams,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: the host lends both for the call, and the texts are NUL-terminated by the contract.
    unsafe {
        guard(error, || {
            let params = params.as_ref().ok_or_else(|| invalid("the params are null"))?;
            check_size(params.struct_size, struct_size::<raw::QuantizeParams>())?;
            let path = |text| -> Result<PathBuf> {
                let bytes = bytes_at(text).ok_or_else(|| invalid("a path is null"))?;
                Ok(OsStr::from_bytes(bytes).into())
            };
            let type_name =
                bytes_at(params.type_name).ok_or_else(|| invalid("the type is null"))?;
            let owned = QuantizeParams {
                input: path(params.input)?,
                output: path(params.output)?,
                type_name: String::from_utf8_lossy(type_name).into_owned(),
                imatrix: bytes_at(params.imatrix).map(|bytes| OsStr::from_bytes(bytes).into()),
                n_threads: params.n_threads,
                requantize: params.requantize,
            };
            let mut progress = |fraction: f32| match params.progress {
                Some(report) => report(params.progress_data, fraction),
                None => true,
            };
            B::quantize(&owned, &mut progress)
        })
    }
}

/// # Safety
/// `text` is null or a NUL-terminated string that lives as long as the answer.
unsafe fn bytes_at<'a>(text: *const c_char) -> Option<&'a [u8]> {
    // SAFETY: promised by the caller, and not null.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_bytes())
}
