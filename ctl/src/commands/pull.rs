//! `ctl pull SOURCE [NAME]`: fetch a model.
//!
//! The daemon does the work: Ctrl-C cancels it there, unless somebody else waits for the same, and what was fetched is kept.

use super::{Context, import, transfer};
use crate::answer::request_name;
use crate::args::ImportModeArgs;
use crate::error::CtlError;
use crate::format::bytes;
use hearth_protocol::{ModelPull, PullParams};
use std::path::Path;

pub(super) fn run(context: &Context, source: String, name: Option<String>) -> Result<(), CtlError> {
    if let Some(file) = local_file(&source) {
        let mode = ImportModeArgs { copy: false, reflink: false, link: false };
        return import::run(context, file, name, &mode);
    }
    let request = request_name();
    let params = PullParams { source, name, request: Some(request.clone()) };
    let pulled = transfer::follow::<ModelPull>(context, &params, &request)?;
    pulled.map_or(Ok(()), |pulled| {
        context.out.line(&format!(
            "`{}` pulled, {}; `ctl run {0}` runs it",
            pulled.name,
            bytes(pulled.size_bytes)
        ))
    })
}

/// A path is no name of a model: it begins with `/` or `.`, or a GGUF file is there.
fn local_file(source: &str) -> Option<&Path> {
    let path = source.strip_prefix("file://").unwrap_or(source);
    let is_path = path.starts_with('/')
        || path.starts_with("./")
        || path.starts_with("../")
        || (path.ends_with(".gguf") && Path::new(path).is_file());
    is_path.then(|| Path::new(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_from_names() {
        for path in ["/m/x.gguf", "./x", "../x.gguf", "file:///m/x"] {
            assert!(local_file(path).is_some(), "{path}");
        }
        for name in ["smollm2", "hf.co/u/r:q", "https://h/x.gguf", "x.gguf"] {
            assert!(local_file(name).is_none(), "{name}");
        }
    }
}
