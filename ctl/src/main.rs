//! `ctl`: the command a person uses to talk to `hearthd`.

use std::process::ExitCode;

fn main() -> ExitCode {
    hearth_ctl::run(std::env::args_os())
}
