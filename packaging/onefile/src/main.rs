//! `hearth`: daemon, worker, client and CPU backend in one file that needs nothing beside it.
//!
//! Called `hearthd`, `ctl` or `hearthctl`, it is that program. Otherwise it is `ctl` with four commands more: `serve` and `chat`
//! with a file, `daemon`, and `licenses`.

mod chat;
mod scratch;
mod serve;

use anyhow::Context as _;
use clap::{CommandFactory, Parser, Subcommand};
use flate2::read::GzDecoder;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::process::ExitCode;

/// The commands that `ctl` does not have.
#[derive(Debug, Parser)]
#[command(name = "hearth", version)]
struct Own {
    #[command(subcommand)]
    command: OwnCommand,
}

#[derive(Debug, Subcommand)]
enum OwnCommand {
    /// Serve one GGUF file over HTTP, without a store or a configuration
    ///
    /// OpenAI's, Anthropic's and Ollama's interfaces are on one port. Nothing is left behind.
    Serve(serve::Args),
    /// Run the daemon, as `hearthd` does; `hearth daemon --help` lists its options
    #[command(disable_help_flag = true)]
    Daemon {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        options: Vec<OsString>,
    },
    /// Print the licences of all that is linked in
    #[command(alias = "licences")]
    Licenses,
}

/// 0: done. 1: something failed, and standard error says what. 2: the command line is wrong. Of `ctl`'s commands, see there.
fn main() -> ExitCode {
    hearthd::plugin::link_in(hearth_linked::NAME, hearth_linked::plugin());
    let args: Vec<OsString> = std::env::args_os().collect();
    let called = args.first().and_then(|path| Path::new(path).file_name());
    match called.and_then(OsStr::to_str) {
        Some("hearthd") => return hearthd::run(args),
        Some("ctl" | "hearthctl") => return hearth_ctl::run(args),
        _ => {}
    }
    let words: Vec<_> = args.iter().skip(1).map(|word| word.to_str().unwrap_or_default()).collect();
    match words.as_slice() {
        ["serve" | "daemon" | "licenses" | "licences" | "-V" | "--version", ..] => own(args),
        ["chat", file, ..] if is_file(file) => chat::run(args),
        [] | ["help" | "-h" | "--help"] => help(),
        _ => hearth_ctl::run(args),
    }
}

fn own(args: Vec<OsString>) -> ExitCode {
    let result = match Own::try_parse_from(&args) {
        Ok(Own { command: OwnCommand::Serve(args) }) => serve::run(&args),
        Ok(Own { command: OwnCommand::Licenses }) => licences(),
        Ok(Own { command: OwnCommand::Daemon { options } }) => {
            return hearthd::run([OsString::from("hearthd")].into_iter().chain(options));
        }
        Err(error) => error.exit(),
    };
    hearthd::exit_code(result)
}

fn licences() -> anyhow::Result<()> {
    match io::copy(&mut GzDecoder::new(hearth_linked::LICENCES), &mut io::stdout().lock()) {
        // Whoever read it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        copied => copied.map(|_| ()).context("cannot print the licences"),
    }
}

/// A model's name may have a slash, but no name ends so.
fn is_file(word: &str) -> bool {
    word.to_lowercase().ends_with(".gguf")
}

fn help() -> ExitCode {
    let own = Own::command();
    let mut all = hearth_ctl::command()
        .name("hearth")
        .about("Local models: daemon, client and CPU backend in one file");
    for command in own.get_subcommands() {
        all = all.subcommand(command.clone());
    }
    match all.print_help() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
