//! The daemon from start to stop.

use crate::cli::RunArgs;
use crate::config::{Config, OLLAMAS_MODELS};
use crate::daemonize::{Forked, Parent, daemonize};
use crate::listen::{self, Bound, Listener, Tls};
use crate::logging;
use crate::rpc::{self, Daemon, Requests};
use crate::supervisor::Supervisor;
use anyhow::Context;
use hearth_store::{Store, Stores};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// How long clients get to read what they were sent before the end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Runs the daemon until a signal ends it.
pub fn run(args: &RunArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    let args = absolute(args.clone())?;
    let config = Config::load(&args)?;
    // Forks, and so must come before the runtime has threads.
    let parent = match args.daemonize.then(|| daemonize(&args)).transpose()? {
        Some(Forked::Parent) => return Ok(()),
        Some(Forked::Child(parent)) => Some(parent),
        None => None,
    };
    let result = run_here(config, parent, started);
    // A number left behind may soon be another process's.
    if let Some(path) = args.pid_file {
        let _ = std::fs::remove_file(path);
    }
    result
}

fn run_here(config: Config, parent: Option<Parent>, started: Instant) -> anyhow::Result<()> {
    logging::init(&config.log)?;
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // The daemon moves bytes; the cores are the workers'.
        .worker_threads(2)
        .thread_name("hearthd")
        .enable_all()
        .build()?;
    runtime.block_on(serve(Arc::new(config), parent, started))
}

async fn serve(
    config: Arc<Config>,
    parent: Option<Parent>,
    started: Instant,
) -> anyhow::Result<()> {
    let store = Arc::new(Store::open(config.models.clone()));
    let stores = Arc::new(Stores::new(Arc::clone(&store), more_models(&config)));
    let puller = rpc::puller(Arc::clone(&stores), &config.pull)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Before the socket is there: whoever knows of the daemon may send it.
    let mut reload = signal(SignalKind::hangup())?;
    let Bindings { listeners, socket, tls } = match bind(&config).await {
        Ok(bound) => bound,
        Err(error) => {
            if let Some(parent) = parent {
                parent.failed(&error);
            }
            return Err(error);
        }
    };
    let addresses = listeners.iter().filter_map(Listener::address).collect();
    let supervisor = Supervisor::start(Arc::clone(&config), executable()?);
    let daemon = Arc::new(Daemon {
        supervisor: Arc::clone(&supervisor),
        store,
        stores,
        puller,
        requests: Requests::default(),
        started,
        measuring: tokio::sync::Mutex::default(),
        addresses,
        config: Arc::clone(&config),
    });
    let methods = rpc::module(Arc::clone(&daemon)).into();
    let (stop, stopped) = listen::Stop::channel();
    listen::serve(listeners, &daemon, methods, &config.http, stopped)?;
    tell_ready(&daemon, parent);

    loop {
        tokio::select! {
            _ = reload.recv() => read_again(tls.as_deref()),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    tracing::info!(
        requests = daemon.requests.n_running(),
        "Stopping: running requests may end first"
    );
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    // New connections and new requests are refused from here on; the socket's file goes, so that clients know.
    drop(socket);
    tokio::select! {
        () = daemon.requests.drain() => {}
        () = tokio::time::sleep(config.drain) => tracing::warn!("Ending requests that took longer than the drain time"),
        _ = terminate.recv() => tracing::info!("Ending at once, after a second signal"),
        _ = interrupt.recv() => tracing::info!("Ending at once, after a second signal"),
    }
    daemon.requests.end();
    for worker in supervisor.loaded() {
        worker.unload().await;
    }
    let _ = stop.send(());
    // A client that does not read keeps its connection's last words from going out, and nothing else.
    if tokio::time::timeout(LAST_WORDS, stop.closed()).await.is_err() {
        tracing::warn!("Ending with clients that did not read their replies");
    }
    Ok(())
}

/// Where the daemon listens.
struct Bindings {
    listeners: Vec<Listener>,
    socket: Bound,
    tls: Option<Arc<Tls>>,
}

async fn bind(config: &Config) -> anyhow::Result<Bindings> {
    let tls = config.http.tls.as_ref().map(Tls::load).transpose()?;
    let mut listeners = listen::bind_tcp(&config.http, tls.as_ref()).await?;
    let (listener, socket) = listen::bind(&config.socket, config.socket_mode)?;
    listeners.push(Listener::Unix(listener));
    Ok(Bindings { listeners, socket, tls })
}

/// What may have changed since the daemon began.
fn read_again(tls: Option<&Tls>) {
    match tls.map(Tls::reload) {
        None => tracing::info!("Nothing to read again: there is no certificate"),
        Some(Ok(())) => tracing::info!("Read the certificate and its key again"),
        Some(Err(error)) => tracing::warn!("Keeping the certificate there is: {error:#}"),
    }
}

/// Nobody need have an Ollama, nor let us read its models. What the configuration names besides is to be there.
fn more_models(config: &Config) -> Vec<PathBuf> {
    let is_there = |dir: &&PathBuf| {
        dir.as_os_str() != OLLAMAS_MODELS || std::fs::read_dir(dir.join("manifests")).is_ok()
    };
    config.more_models.iter().filter(is_there).cloned().collect()
}

fn tell_ready(daemon: &Daemon, parent: Option<Parent>) {
    let config = &daemon.config;
    tracing::info!(socket = %config.socket.display(), models = %config.models.display(), "Listening");
    for address in &daemon.addresses {
        tracing::info!(%address, "Listening for HTTP");
    }
    let status = format!("Listening on {}", config.socket.display());
    let _ = sd_notify::notify(&[
        sd_notify::NotifyState::Ready,
        sd_notify::NotifyState::Status(&status),
    ]);
    if let Some(parent) = parent {
        parent.ready();
    }
}

/// Each connection is an open file. The usual soft limit of 1024 is there for programs that call `select`.
fn raise_file_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: maximum, maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!("Raising the limit of open files: {error}");
    }
}

/// The file to start workers from: this very program, also after an upgrade replaced the file on disk.
fn executable() -> anyhow::Result<PathBuf> {
    if cfg!(target_os = "linux") {
        return Ok("/proc/self/exe".into());
    }
    std::env::current_exe().context("cannot find this program's own file")
}

/// Paths on the command line, as seen from here: the working directory may change.
fn absolute(mut args: RunArgs) -> anyhow::Result<RunArgs> {
    let paths = [
        &mut args.config,
        &mut args.socket,
        &mut args.state_dir,
        &mut args.models,
        &mut args.pid_file,
        &mut args.log_file,
    ];
    for path in paths.into_iter().flatten().chain(&mut args.backends) {
        *path = std::path::absolute(&*path)?;
    }
    Ok(args)
}
