//! `ctl`: the command a person uses to talk to `hearthd`.
//!
//! One file below `commands/` for each subcommand. A command connects, calls, and shows the reply: as words for a person,
//! or with `--json` exactly as it came. Every failure becomes one [`error::CtlError`], which knows its exit code; nothing else
//! ends the process.

mod absent;
mod answer;
mod args;
mod bars;
mod commands;
mod error;
mod format;
mod interrupt;
mod output;
mod session;
mod status_line;
mod upload;
mod wire;
mod wrap;

use clap::Parser as _;
use std::ffi::OsString;
use std::process::ExitCode;

pub use args::command;
pub use commands::name_from_file;

/// Does what a command line says; its first word is the program's name.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match args::Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => return error::report_usage(&error),
    };
    let context = commands::Context::new(args.global);
    match commands::run(&context, args.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(&context.out),
    }
}
