//! `tiny-models FOLDER` writes the models that the tests convert, for llama.cpp's own converter.

#[path = "../tests/convert/models.rs"]
mod models;
#[path = "../tests/convert/tokenizers.rs"]
mod tokenizers;

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: tiny-models FOLDER")?);
    for model in models::all() {
        model.write(&folder.join(model.name));
    }
    models::write_adapter(&folder.join("adapter"));
    Ok(())
}
