//! `hearthd`: the daemon, and the processes it starts itself as.

use clap::{CommandFactory, Parser};
use hearthd::cli::{Cli, Command, PluginCommand};
use std::io::Write;
use std::process::ExitCode;

/// 0: ended as asked. 1: something failed, and standard error says what. 2: the command line is wrong (clap's own code).
fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        None => hearthd::service::run(&cli.run),
        Some(Command::Plugin {
            command: PluginCommand::Check { file, model, projector, here },
        }) => hearthd::plugin_check::run(file, model.as_deref(), projector.as_deref(), *here),
        Some(Command::Man { folder }) => {
            clap_mangen::generate_to(Cli::command(), folder).map_err(Into::into)
        }
        Some(Command::Probe { file, sandbox }) => hearthd::probe::run(file, sandbox.as_deref()),
        Some(Command::Quantize) => hearthd::quantize::process::run(),
        Some(Command::Worker) => hearthd::worker::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
