//! The host's side of `hearth.quantize/1`.

use super::{Plugin, call, struct_size, text_at};
use crate::raw;
use crate::types::{PluginError, QuantizeParams, Result, Status};
use std::ffi::{CString, c_void};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::ptr;

/// A plugin that names more has no end of them.
const MAX_TYPES: u32 = 1000;

struct Progress<'a> {
    report: &'a mut dyn FnMut(f32) -> bool,
}

unsafe extern "C" fn take_progress(data: *mut c_void, fraction: f32) -> bool {
    // SAFETY: data is the Progress that `quantize` keeps on its stack during the call.
    let progress = unsafe { &mut *data.cast::<Progress<'_>>() };
    catch_unwind(AssertUnwindSafe(|| (progress.report)(fraction))).unwrap_or(false)
}

impl Plugin {
    /// Names of the types that this plugin quantizes to; none if it cannot quantize.
    pub fn quantize_types(&self) -> Vec<String> {
        let Some(table) = self.extension::<raw::Quantize>(raw::EXT_QUANTIZE) else {
            return Vec::new();
        };
        let names = (0..MAX_TYPES).map(|index| {
            // SAFETY: the plugin is initialised; what it answers is null or a string of its own.
            unsafe { (table.type_name)(index) }
        });
        let names = names.take_while(|name| !name.is_null());
        // SAFETY: not null, and it lives until deinit.
        names.map(|name| unsafe { text_at(name) }).collect()
    }

    /// Writes a model with smaller weights. `progress` answers false to cancel.
    pub fn quantize(
        &self,
        params: &QuantizeParams,
        progress: &mut dyn FnMut(f32) -> bool,
    ) -> Result<()> {
        let table = self
            .extension::<raw::Quantize>(raw::EXT_QUANTIZE)
            .ok_or_else(|| PluginError::new(Status::Unsupported, "this backend cannot quantize"))?;
        let nul = |_| PluginError::new(Status::InvalidArgument, "a name has a NUL in it");
        let path = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(nul);
        let (input, output) = (path(&params.input)?, path(&params.output)?);
        let type_name = CString::new(params.type_name.as_str()).map_err(nul)?;
        let imatrix = params.imatrix.as_deref().map(path).transpose()?;
        let mut progress = Progress { report: progress };
        let raw = raw::QuantizeParams {
            struct_size: struct_size::<raw::QuantizeParams>(),
            n_threads: params.n_threads,
            input: input.as_ptr(),
            output: output.as_ptr(),
            type_name: type_name.as_ptr(),
            imatrix: imatrix.as_ref().map_or(ptr::null(), |path| path.as_ptr()),
            requantize: params.requantize,
            progress: Some(take_progress),
            progress_data: (&raw mut progress).cast(),
        };
        // SAFETY: the plugin is initialised; the params and what they point to outlive the call.
        call(|error| unsafe { (table.quantize)(&raw const raw, error) })
    }
}
