//! The daemon's body, as a library that `main` calls.
//!
//! `listen` takes connections, `rpc` answers methods, `http` puts other programs' dialects before them, `supervisor` keeps worker
//! processes, and `worker` is what such a process runs. The daemon itself runs no native inference code: only `worker`, `probe`,
//! `quantize` and `plugin_check` do, each in a process of its own.

mod chat_template;
pub mod cli;
pub mod config;
mod daemonize;
mod http;
mod listen;
mod logging;
mod manager;
mod nearest;
pub mod plugin;
pub mod plugin_check;
pub mod probe;
pub mod quantize;
mod random;
mod rpc;
mod sandbox;
pub mod service;
mod settings;
mod supervisor;
pub mod worker;

use clap::{CommandFactory, Parser};
use cli::{Cli, Command, PluginCommand};
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

/// Does what a command line of `hearthd` says; its first word is the program's name.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = Cli::parse_from(args);
    exit_code(match &cli.command {
        None => service::run(&cli.run),
        Some(Command::Plugin {
            command: PluginCommand::Check { file, model, projector, here },
        }) => plugin_check::run(file, model.as_deref(), projector.as_deref(), *here),
        Some(Command::Man { folder }) => {
            clap_mangen::generate_to(Cli::command(), folder).map_err(Into::into)
        }
        Some(Command::Probe { file, sandbox }) => probe::run(file, sandbox.as_deref()),
        Some(Command::Quantize) => quantize::process::run(),
        Some(Command::Worker) => worker::run(),
    })
}

/// 0: ended as asked. 1: something failed, and standard error says what. 2: the command line is wrong (clap's own code).
pub fn exit_code(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
