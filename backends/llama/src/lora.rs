//! `hearth.lora/1`: low-rank adapters.

use crate::context::LlamaContext;
use crate::model::{LlamaModel, check_file};
use crate::shim::{
    c_string, captured, error, guarded, hearth_shim_adapter_load, hearth_shim_adapters_set, invalid,
};
use hearth_abi::author::LoraModel;
use hearth_abi::{Result, Status};
use llama_cpp_sys_2 as sys;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

/// An adapter that llama.cpp holds for one model.
#[derive(Debug)]
pub struct LlamaAdapter {
    raw: NonNull<sys::llama_adapter_lora>,
    model: Arc<LlamaModel>,
}

// SAFETY: an adapter is constant once loaded; closing it is a main-thread call.
unsafe impl Send for LlamaAdapter {}
// SAFETY: as above.
unsafe impl Sync for LlamaAdapter {}

impl Drop for LlamaAdapter {
    fn drop(&mut self) {
        // SAFETY: loaded once; the model is still held, and no context has it attached any more, by the contract.
        unsafe { sys::llama_adapter_lora_free(self.raw.as_ptr()) }
    }
}

impl LoraModel for LlamaModel {
    type Adapter = LlamaAdapter;

    fn adapter(self: &Arc<Self>, path: &Path) -> Result<LlamaAdapter> {
        check_file(path)?;
        let c_path = c_string(path.as_os_str().as_bytes(), "the adapter's path")?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the model is loaded; the path is NUL-terminated; the out-parameter is ours.
        let loaded = captured(|message| unsafe {
            hearth_shim_adapter_load(self.raw(), c_path.as_ptr(), &raw mut raw, message)
        });
        let raw = NonNull::new(raw).filter(|_| loaded.is_ok()).ok_or_else(|| {
            let why = loaded.why();
            error(Status::BadModel, format!("cannot open the adapter `{}`: {why}", path.display()))
        })?;
        Ok(LlamaAdapter { raw, model: Arc::clone(self) })
    }

    fn attach(context: &mut LlamaContext, adapters: &[(&LlamaAdapter, f32)]) -> Result<()> {
        if adapters.iter().any(|(adapter, _)| !Arc::ptr_eq(&adapter.model, context.model())) {
            return Err(invalid("the adapter is of another model"));
        }
        let mut raws: Vec<_> = adapters.iter().map(|(adapter, _)| adapter.raw.as_ptr()).collect();
        let mut scales: Vec<_> = adapters.iter().map(|(_, scale)| *scale).collect();
        let raw = context.raw();
        // SAFETY: a live context; the adapters are of its model; both arrays have the length given.
        guarded(|message| unsafe {
            hearth_shim_adapters_set(
                raw,
                raws.as_mut_ptr(),
                raws.len(),
                scales.as_mut_ptr(),
                message,
            )
        })
        .map_err(|why| error(Status::Failed, format!("cannot attach adapters: {why}")))
    }
}
