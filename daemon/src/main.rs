//! `hearthd`: the daemon, and the processes it starts itself as.

use std::process::ExitCode;

fn main() -> ExitCode {
    hearthd::run(std::env::args_os())
}
