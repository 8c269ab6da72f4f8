//! The command line of `hearthd`.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// The local-LLM daemon
#[derive(Debug, Parser)]
#[command(name = "hearthd", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub run: RunArgs,
}

/// How to run the daemon.
#[derive(Debug, Default, Clone, Args)]
pub struct RunArgs {
    /// Configuration file [default: ~/.config/hearth/hearth.toml, then /etc/hearth/hearth.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Unix socket to listen on
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Folder for the daemon's own files
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Folder with models, in Ollama's layout
    #[arg(long, value_name = "DIR")]
    pub models: Option<PathBuf>,
    /// Folder with backend plugins; may be given several times
    #[arg(long, value_name = "DIR")]
    pub backends: Vec<PathBuf>,
    /// Backend to load models with, or `auto`
    #[arg(long, value_name = "NAME")]
    pub backend: Option<String>,
    /// Go into the background; succeed only once the socket listens
    #[arg(long)]
    pub daemonize: bool,
    /// With --daemonize: file to write the process number to
    #[arg(long, value_name = "FILE", requires = "daemonize")]
    pub pid_file: Option<PathBuf>,
    /// With --daemonize: file to write the log to [default: nowhere]
    #[arg(long, value_name = "FILE", requires = "daemonize")]
    pub log_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Try a backend plugin
    Plugin {
        #[command(subcommand)]
        command: PluginCommand,
    },
    /// Write manual pages to a folder
    #[command(hide = true)]
    Man { folder: PathBuf },
    /// List a plugin's devices as JSON (used by the daemon itself)
    #[command(hide = true)]
    Probe {
        file: PathBuf,
        /// As JSON; without, the plugin may do what this process may
        #[arg(long)]
        sandbox: Option<String>,
    },
    /// Make one model's weights smaller (used by the daemon itself)
    #[command(hide = true)]
    Quantize,
    /// Run one model (used by the daemon itself)
    #[command(hide = true)]
    Worker,
}

#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// Check a plugin against the ABI's contract
    Check {
        /// The shared library
        file: PathBuf,
        /// A model it can open, for the checks that need one
        #[arg(long, value_name = "FILE")]
        model: Option<PathBuf>,
        /// A projector that goes with the model, for the checks of images
        #[arg(long, value_name = "FILE", requires = "model")]
        projector: Option<PathBuf>,
        /// Run the checks in this process (used by the command itself)
        #[arg(long, hide = true)]
        here: bool,
    },
}
