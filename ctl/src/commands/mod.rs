//! One file for each subcommand; what they share is the [`Context`].

mod backend;
mod bench;
mod chat;
mod completions;
mod cp;
mod create;
mod du;
mod export;
mod import;
mod load;
mod ls;
mod man;
mod progress;
mod prune;
mod ps;
mod pull;
mod push;
mod quantize;
mod reload;
mod rm;
mod rpc;
mod run;
mod session;
mod show;
mod status;
mod stop;
mod transfer;
mod verify;

pub use import::name_from_file;

use crate::args::{Command, Global};
use crate::error::CtlError;
use crate::output::Out;
use crate::session::{Session, socket_paths};
use std::path::PathBuf;

/// What every command has: where the daemon may be, and where the output goes.
#[derive(Debug)]
pub(crate) struct Context {
    sockets: Vec<PathBuf>,
    pub(crate) out: Out,
}

impl Context {
    pub(crate) fn new(global: Global) -> Self {
        Self { sockets: socket_paths(global.socket.as_deref()), out: Out::new(global.json) }
    }

    pub(crate) fn connect(&self) -> Result<Session, CtlError> {
        Session::open(&self.sockets)
    }
}

pub(crate) fn run(context: &Context, command: Command) -> Result<(), CtlError> {
    match command {
        Command::Chat { model, session, answer } => {
            chat::run(context, model, session.as_deref(), &answer)
        }
        Command::Run { model, prompt, answer, images, candidates } => {
            run::run(context, model, &prompt, &images, &answer, candidates)
        }
        Command::Ls => ls::run(context),
        Command::Show { model, part } => show::run(context, model, &part),
        Command::Export { model, to, format } => export::run(context, model, &to, format),
        Command::Import { file, name, mode } => import::run(context, &file, name, &mode),
        Command::Create { name, file, quantize, mode } => {
            create::run(context, name, &file, quantize, &mode)
        }
        Command::Quantize { model, type_name, name, imatrix, requantize } => {
            quantize::run(context, model, type_name, name, imatrix.as_deref(), requantize)
        }
        Command::Cp { from, to } => cp::run(context, from, to),
        Command::Rm { models } => rm::run(context, models),
        Command::Du => du::run(context),
        Command::Prune { dry_run, yes } => prune::run(context, dry_run, yes),
        Command::Verify { models, repair } => verify::run(context, models, repair),
        Command::Pull { source, name } => pull::run(context, source, name),
        Command::Ps { memory } => ps::run(context, memory),
        Command::Push { model, target, insecure } => push::run(context, model, target, insecure),
        Command::Load { model, draft, keep_alive } => {
            load::run(context, model, draft, keep_alive.keep_alive)
        }
        Command::Stop { model } => stop::run(context, model),
        Command::Bench { model, tune } => bench::run(context, model, tune),
        Command::Backend { .. } => backend::run(context),
        Command::Reload => reload::run(context),
        Command::Session { command } => session::run(context, command),
        Command::Status => status::run(context),
        Command::Rpc { method, params } => rpc::run(context, &method, params),
        Command::Completions { shell } => completions::run(context, shell),
        Command::Man { folder } => man::run(&folder),
    }
}
