//! Conversions of tiny models that the tests make.

mod hostile;
mod models;
mod reference;
mod tokenizers;
mod vocabularies;

use std::ops::ControlFlow;
use std::path::Path;

use hearth_convert::{ConvertError, Options, OutputType, convert};

/// The model of that name in a folder of its own.
fn written(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    models::all().into_iter().find(|model| model.name == name).unwrap().write(folder.path());
    folder
}

fn converted(folder: &Path) -> Result<Vec<u8>, ConvertError> {
    let options = Options { name: "Tiny".to_owned(), output_type: OutputType::F16 };
    convert(folder, &options, Vec::new(), &mut |_| ControlFlow::Continue(()))
}
