//! `ctl man FOLDER`: manual pages, made from the command line's own definition.

use crate::args;
use crate::error::CtlError;
use std::path::Path;

pub(super) fn run(folder: &Path) -> Result<(), CtlError> {
    clap_mangen::generate_to(args::command(), folder).map_err(|error| {
        CtlError::failed(
            format!("cannot write manual pages to `{}`: {error}", folder.display()),
            "give a folder that exists",
        )
    })
}
