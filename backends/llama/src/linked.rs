//! CPU modules that are parts of the program, where `backends/linked` made them that.

use crate::shim::{error, hearth_shim_linked_modules};
use hearth_abi::{Result, Status};
use llama_cpp_sys_2 as sys;
use std::ffi::{CStr, c_char};

/// `hearth_linked_module`
#[repr(C)]
#[derive(Debug)]
pub(crate) struct LinkedModule {
    name: *const c_char,
    init: unsafe extern "C" fn() -> sys::ggml_backend_reg_t,
    score: unsafe extern "C" fn() -> i32,
    /// Only for the kernels of this plugin.
    _functions: [unsafe extern "C" fn(); 4],
}

/// All of them; none where the modules are files.
pub(crate) fn modules() -> impl Iterator<Item = &'static LinkedModule> {
    // SAFETY: it answers the address of a constant.
    let first = unsafe { hearth_shim_linked_modules() };
    // SAFETY: the list, if there is one, is a constant and ends with an entry whose name is null.
    let at =
        move |index| unsafe { first.add(index).as_ref() }.filter(|module| !module.name.is_null());
    (0..).map_while(move |index| if first.is_null() { None } else { at(index) })
}

impl LinkedModule {
    pub(crate) fn name(&self) -> &'static str {
        // SAFETY: a constant text, and not null in what `modules` answers.
        unsafe { CStr::from_ptr(self.name) }.to_str().unwrap_or_default()
    }

    /// 0: not for this processor.
    pub(crate) fn score(&self) -> i32 {
        // SAFETY: the function reads CPU features only, and is built for the plainest processor.
        unsafe { (self.score)() }
    }

    /// Starts it for good, because ggml cannot end it.
    pub(crate) fn start(&self) -> Result<sys::ggml_backend_reg_t> {
        // SAFETY: the module fits this processor: its score says so.
        let registry = unsafe { (self.init)() };
        if registry.is_null() {
            return Err(error(
                Status::Failed,
                format!("the module `{}` did not start", self.name()),
            ));
        }
        // SAFETY: a live registry entry, registered once.
        unsafe { sys::ggml_backend_register(registry) };
        Ok(registry)
    }
}
