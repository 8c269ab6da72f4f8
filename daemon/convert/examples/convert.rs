//! `convert FOLDER OUT TYPE NAME`, or `convert FOLDER OUT TYPE NAME BASE` for an adapter.

use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;

use hearth_convert::{Options, OutputType, convert, convert_adapter};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, out, kind, name, base @ ..] = &arguments[..] else {
        return Err("usage: convert FOLDER OUT f32|f16|bf16|q8_0 NAME [BASE]".into());
    };
    let output_type = match kind.as_str() {
        "f32" => OutputType::F32,
        "f16" => OutputType::F16,
        "bf16" => OutputType::Bf16,
        "q8_0" => OutputType::Q8_0,
        other => return Err(format!("`{other}` is not a type").into()),
    };
    let options = Options { name: name.clone(), output_type };
    let (folder, out) = (Path::new(folder), File::create(out)?);
    let progress = &mut |_| ControlFlow::Continue(());
    match base.first() {
        Some(base) => convert_adapter(folder, Path::new(base), &options, out, progress)?,
        None => convert(folder, &options, out, progress)?,
    };
    Ok(())
}
