//! `hearth.quantize/1`

use super::{Error, RawStatus};
use std::ffi::{CStr, c_char, c_void};

/// `HEARTH_EXT_QUANTIZE`
pub const EXT_QUANTIZE: &CStr = c"hearth.quantize/1";

/// `hearth_quantize_params_t`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // The header documents every member.
pub struct QuantizeParams {
    pub struct_size: u32,
    pub n_threads: u32,
    pub input: *const c_char,
    pub output: *const c_char,
    pub type_name: *const c_char,
    pub imatrix: *const c_char,
    pub requantize: bool,
    pub progress: Option<unsafe extern "C" fn(progress_data: *mut c_void, fraction: f32) -> bool>,
    pub progress_data: *mut c_void,
}

/// `hearth_quantize_t`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // The header documents every member.
pub struct Quantize {
    pub struct_size: u32,
    pub type_name: unsafe extern "C" fn(index: u32) -> *const c_char,
    pub quantize:
        unsafe extern "C" fn(params: *const QuantizeParams, error: *mut Error) -> RawStatus,
}
