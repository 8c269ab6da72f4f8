//! Models as they are published, made into GGUF files: safetensors folders, and LoRA adapters.
//!
//! `convert` writes from front to back and holds a few MiB of the model at a time, besides its
//! vocabulary. Architectures are declarations, in `arch`; names, order and numbers are those of
//! llama.cpp's own converter, and `tests/convert/reference.rs` compares whole files with it.
//!
//! A folder may hold any bytes: lengths are checked against the files before they are believed, and
//! what is not understood is refused rather than guessed.

mod adapter;
mod arch;
mod config;
mod error;
mod folder;
mod general;
mod metadata;
mod output;
mod plan;
mod safetensors;
mod stream;
mod tokenizer;

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use hearth_gguf::Value;

pub use adapter::convert_adapter;
pub use error::ConvertError;
pub use output::OutputType;

use crate::arch::Source;
use crate::config::Config;
use crate::folder::Folder;
use crate::metadata::Metadata;
use crate::safetensors::Dtype;

/// ggml's version of its quantized types.
const QUANTIZATION_VERSION: u32 = 2;

#[derive(Debug, Clone)]
pub struct Options {
    /// What the model will say its name is.
    pub name: String,
    pub output_type: OutputType,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvertProgress {
    /// Of the tensors' data in the file to be.
    pub bytes_done: u64,
    pub bytes_total: u64,
}

/// Converts the model in `folder` and writes it to `out`, which need not be buffered. `progress` is
/// called from this thread, first when everything but the weights is understood, then about once
/// for each MiB; `Break` cancels.
pub fn convert<W: Write>(
    folder: &Path,
    options: &Options,
    out: W,
    progress: &mut dyn FnMut(ConvertProgress) -> ControlFlow<()>,
) -> Result<W, ConvertError> {
    let folder = Folder::open(folder)?;
    let mut config = Config::read(&folder)?;
    let architecture = arch::find(config.class()?)?;
    config.fill_in(architecture.defaults)?;
    let source = Source { folder, config };

    let mut metadata = Metadata::new(architecture.name);
    let computed = (architecture.computed)(&source, &mut metadata)?;
    let tensors = plan::model(architecture, &source, computed, options.output_type)?;
    metadata.text("general.type", "model");
    let n_weights =
        tensors.iter().fold(0_u64, |total, tensor| total.saturating_add(tensor.info.n_elements));
    general::write(&source.folder, &options.name, Some(n_weights), &mut metadata)?;
    architecture.describe(&source, options.output_type, &mut metadata)?;
    metadata.set("general.quantization_version", Value::U32(QUANTIZATION_VERSION));
    (architecture.tokenizer)(&source, &mut metadata)?;
    plan::check_vocabulary(&tensors, &metadata, &source)?;
    stream::write(&metadata, &tensors, out, progress)
}

/// The type of 16 bits that loses least of the model in `folder`.
pub fn half_type(folder: &Path) -> Result<OutputType, ConvertError> {
    let mut n_brain = 0_u64;
    let mut n_other = 0_u64;
    for tensor in safetensors::model_tensors(&Folder::open(folder)?)? {
        // What is of no type that is converted may be left out.
        let Ok(dtype) = tensor.dtype() else { continue };
        let n = if dtype == Dtype::Bf16 { &mut n_brain } else { &mut n_other };
        *n = n.saturating_add(tensor.n_bytes);
    }
    Ok(if n_brain > n_other { OutputType::Bf16 } else { OutputType::F16 })
}
