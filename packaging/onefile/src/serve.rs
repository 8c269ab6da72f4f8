//! `hearth serve FILE`: one model over HTTP, from a store and a configuration that last as long as the process.

use crate::scratch;
use anyhow::{Context as _, anyhow, bail};
use hearth_store::{ImportMode, ModelName, Store, import};
use hearthd::cli::RunArgs;
use serde::Serialize;
use std::io::Read as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The model
    #[arg(env = "HEARTH_FILE")]
    file: PathBuf,
    /// Where to listen, with `https://` before it for TLS; may be given several times, and with commas between in the variable
    #[arg(
        long,
        env = "HEARTH_LISTEN",
        value_name = "HOST:PORT",
        value_delimiter = ',',
        default_value = "127.0.0.1:8080"
    )]
    listen: Vec<String>,
    /// What clients call the model [default: made from the file's name]
    #[arg(long, env = "HEARTH_NAME")]
    name: Option<String>,
    /// Tokens that all conversations share
    #[arg(long, env = "HEARTH_CONTEXT", value_name = "TOKENS")]
    context: Option<u32>,
    /// Answers written at the same time
    #[arg(long, env = "HEARTH_PARALLEL", value_name = "NUMBER")]
    parallel: Option<u32>,
    /// Threads to compute with [default: as this machine is best used]
    #[arg(long, env = "HEARTH_THREADS", value_name = "NUMBER")]
    threads: Option<u32>,
    /// File with the keys that other machines must show, a line `USER KEY` each
    #[arg(long, env = "HEARTH_KEYS", value_name = "FILE")]
    keys: Option<PathBuf>,
    /// Other machines need no key
    #[arg(long, env = "HEARTH_OPEN")]
    open: bool,
    /// The certificate for TLS with those of who signed it, in PEM
    #[arg(long, env = "HEARTH_TLS_CERTIFICATE", value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// The certificate's key, in PEM
    #[arg(long, env = "HEARTH_TLS_KEY", value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// What to log: error, warn, info or debug
    #[arg(long, env = "HEARTH_LOG", value_name = "LEVEL", default_value = "info")]
    log: String,
    /// Listen on this Unix socket alone, and until standard input ends (used by `hearth chat` itself)
    #[arg(long, hide = true, value_name = "PATH")]
    for_chat: Option<PathBuf>,
}

/// As in `packaging/hearth.toml`.
#[derive(Debug, Serialize)]
struct Settings<'a> {
    socket_mode: &'static str,
    more_models: [PathBuf; 0],
    keep_alive: &'static str,
    log: &'a str,
    engine: Engine,
    http: Http<'a>,
}

#[derive(Debug, Serialize)]
struct Engine {
    context: Option<u32>,
    parallel: Option<u32>,
    threads: Option<u32>,
}

#[derive(Debug, Serialize)]
struct Http<'a> {
    listen: &'a [String],
    keys: Option<PathBuf>,
    open: bool,
    tls_certificate: Option<PathBuf>,
    tls_key: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let file = std::path::absolute(&args.file)?;
    let name = name(args, &file)?;
    let folder = scratch::folder(&file)?;
    let models = folder.path().join("models");
    // A file that is no model is refused now, and not at the first request.
    std::fs::create_dir(&models)?;
    let store = Store::open(models.clone());
    // To hash it would take minutes, and nobody else ever sees this store.
    import(&store, &file, &name, ImportMode::LinkUnread, &mut |_| ControlFlow::Continue(()))
        // Its cause is in its message.
        .map_err(|error| anyhow!("{error}"))?;
    let config = folder.path().join("hearth.toml");
    std::fs::write(&config, toml::to_string(&settings(args)?)?)?;
    if args.for_chat.is_some() {
        std::thread::Builder::new().name("until".into()).spawn(end_with_stdin)?;
    }
    hearthd::service::run(&RunArgs {
        config: Some(config),
        socket: Some(args.for_chat.clone().unwrap_or_else(|| folder.path().join("hearth.sock"))),
        state_dir: Some(folder.path().join("state")),
        models: Some(models),
        ..RunArgs::default()
    })
}

fn name(args: &Args, file: &Path) -> anyhow::Result<ModelName> {
    let Some(text) = args.name.clone().or_else(|| hearth_ctl::name_from_file(file)) else {
        bail!("no name can be made from `{}`\nhint: give one with `--name`", file.display());
    };
    text.parse().with_context(|| format!("`{text}` is no model's name"))
}

fn settings(args: &Args) -> anyhow::Result<Settings<'_>> {
    let Args { context, parallel, threads, .. } = *args;
    let absolute = |file: &Option<PathBuf>| file.as_ref().map(std::path::absolute).transpose();
    Ok(Settings {
        socket_mode: "0600",
        more_models: [],
        keep_alive: "-1",
        log: &args.log,
        engine: Engine { context, parallel, threads },
        http: Http {
            listen: if args.for_chat.is_some() { &[] } else { &args.listen },
            keys: absolute(&args.keys)?,
            open: args.open,
            tls_certificate: absolute(&args.tls_certificate)?,
            tls_key: absolute(&args.tls_key)?,
        },
    })
}

/// Stops the daemon, once whoever started it has gone.
fn end_with_stdin() {
    let mut stdin = std::io::stdin().lock();
    let mut buffer = [0; 64];
    while !matches!(stdin.read(&mut buffer), Ok(0) | Err(_)) {}
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
}
