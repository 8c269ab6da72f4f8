//! `ctl completions SHELL`: a script for the shell, made from the command line's own definition.

use super::Context;
use crate::args;
use crate::error::CtlError;

pub(super) fn run(context: &Context, shell: clap_complete::Shell) -> Result<(), CtlError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::command(), "ctl", &mut script);
    context.out.write(&String::from_utf8_lossy(&script))
}
