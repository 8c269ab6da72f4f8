//! The CPU plugin, `libhearth_cpu.so`: llama.cpp with the build of ggml's CPU module that fits this processor best.
//!
//! It stands in one folder with `libllama.so.0`, `libllama-common.so.0`, `libggml.so.0`, `libggml-base.so.0` and the
//! `libggml-cpu-*.so` of the same build. Everything it does is in `hearth-llama`.

use hearth_llama::{Engine, LlamaBackend};
use std::ffi::CStr;

/// Runs every layer on the processor.
#[derive(Debug)]
struct Cpu;

impl Engine for Cpu {
    const NAME: &'static CStr = c"cpu";
    const DESCRIPTION: &'static CStr = c"llama.cpp b11434 on the processor";
    const FAMILY: &'static str = "cpu";
}

hearth_abi::export_plugin!(LlamaBackend<Cpu>);
