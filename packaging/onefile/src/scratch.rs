//! A folder that goes with its process.

use anyhow::Context as _;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// In the first of the usual places that can be written to. An empty root has none of them, but the folder of the file.
pub(crate) fn folder(file: &Path) -> anyhow::Result<TempDir> {
    let beside = file.parent().map(Path::to_path_buf);
    let usual =
        [std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from), Some(std::env::temp_dir())];
    let mut last = None;
    for place in usual.into_iter().chain([beside]).flatten() {
        match tempfile::Builder::new().prefix("hearth.").tempdir_in(&place) {
            Ok(folder) => return Ok(folder),
            Err(error) => last = Some(error),
        }
    }
    let error = last.unwrap_or_else(|| std::io::ErrorKind::NotFound.into());
    Err(error).context("there is no place for a few small files\nhint: set TMPDIR to a folder that can be written to")
}
