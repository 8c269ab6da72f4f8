//! The daemon from start to stop.

use crate::cli::RunArgs;
use crate::config::{Config, OLLAMAS_MODELS};
use crate::daemonize::{Forked, Parent, daemonize};
use crate::listen::{self, Listener, Socket, Stop};
use crate::manager::Sockets;
use crate::rpc::{self, Daemon, Requests};
use crate::settings::Settings;
use crate::supervisor::Supervisor;
use crate::{logging, manager};
use anyhow::Context;
use hearth_sessions::Sessions;
use hearth_store::{Store, Stores};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};

/// How long clients get to read what they were sent before the end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Runs the daemon until a signal ends it.
pub fn run(args: &RunArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut args = absolute(args.clone())?;
    let sockets = Sockets::take()?;
    args.socket = sockets.path().or(args.socket);
    let config = Config::load(&args)?;
    // Forks, and so must come before the runtime has threads.
    let parent = match args.daemonize.then(|| daemonize(&args)).transpose()? {
        Some(Forked::Parent) => return Ok(()),
        Some(Forked::Child(parent)) => Some(parent),
        None => None,
    };
    let pid_file = args.pid_file.clone();
    let result = run_here(args, config, sockets, parent, started);
    // A number left behind may soon be another process's.
    if let Some(path) = pid_file {
        let _ = std::fs::remove_file(path);
    }
    result
}

fn run_here(
    args: RunArgs,
    config: Config,
    sockets: Sockets,
    parent: Option<Parent>,
    started: Instant,
) -> anyhow::Result<()> {
    let level = logging::init(&config.log)?;
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // The daemon moves bytes; the cores are the workers'.
        .worker_threads(2)
        .thread_name("hearthd")
        .enable_all()
        .build()?;
    let settings = Arc::new(Settings::new(args, config, level)?);
    runtime.block_on(serve(settings, sockets, parent, started))
}

async fn serve(
    settings: Arc<Settings>,
    sockets: Sockets,
    parent: Option<Parent>,
    started: Instant,
) -> anyhow::Result<()> {
    let config = settings.config();
    let store = Arc::new(Store::open(config.models.clone()));
    let stores = Arc::new(Stores::new(Arc::clone(&store), more_models(&config)));
    let puller = rpc::puller(Arc::clone(&stores), &config.pull)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Before the socket is there: whoever knows of the daemon may send it.
    let mut hangup = signal(SignalKind::hangup())?;
    let bound = match bind(&settings, sockets).await {
        Ok(bound) => bound,
        Err(error) => {
            if let Some(parent) = parent {
                parent.failed(&error);
            }
            return Err(error);
        }
    };
    let supervisor = Supervisor::start(Arc::clone(&settings), executable()?);
    let daemon = Arc::new(Daemon {
        supervisor: Arc::clone(&supervisor),
        store,
        stores,
        puller,
        requests: Requests::default(),
        sessions: config.state.as_ref().map(|dir| Arc::new(Sessions::new(dir.join("state.db")))),
        started,
        measuring: tokio::sync::Mutex::default(),
        capabilities: rpc::Capabilities::default(),
        addresses: bound.addresses(),
        settings,
    });
    let methods = rpc::module(Arc::clone(&daemon)).into();
    let (drain, draining) = Stop::channel();
    let (stop, stopped) = Stop::channel();
    let (listeners, socket) = bound.until(&draining, &stopped);
    listen::serve(listeners, &daemon, methods, stopped);
    tell_ready(&daemon, parent);
    tokio::spawn(manager::pulse(Arc::clone(&daemon)));

    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => drop(daemon.reload().await),
        }
    }
    tracing::info!(
        requests = daemon.requests.n_running(),
        "Stopping: running requests may end first"
    );
    // New connections and new requests are refused from here on, or left to the next daemon if the service manager has the
    // sockets; a socket's file of our own goes, so that clients know.
    let _ = drain.send(());
    drop(socket);
    let drained = daemon.requests.drain();
    manager::stopping(&daemon);
    tokio::select! {
        () = drained => {}
        () = tokio::time::sleep(daemon.config().drain) => tracing::warn!("Ending requests that took longer than the drain time"),
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

/// The sockets that clients connect to.
struct Bound {
    unix: Vec<UnixListener>,
    /// Where `unix` was made here, which is where no service manager did.
    own: Option<listen::Bound>,
    /// The service manager's.
    given: Vec<Socket>,
    tcp: Vec<Socket>,
}

async fn bind(settings: &Settings, sockets: Sockets) -> anyhow::Result<Bound> {
    let config = settings.config();
    let tcp = |listeners: Vec<std::net::TcpListener>| {
        listeners.into_iter().map(TcpListener::from_std).collect::<Result<Vec<_>, _>>()
    };
    let given = tcp(sockets.tcp)?;
    let tcp = listen::bind_tcp(&config.http, settings.tls(), &given, tcp(sockets.kept)?).await?;
    let given = given.into_iter().map(|listener| Socket::Tcp(listener, None)).collect();
    let unix = sockets.unix.into_iter().map(UnixListener::from_std);
    let mut unix = unix.collect::<Result<Vec<_>, _>>()?;
    let mut own = None;
    if unix.is_empty() {
        let (listener, bound) = listen::bind(&config.socket, config.socket_mode)?;
        unix.push(listener);
        own = Some(bound);
    }
    Ok(Bound { unix, own, given, tcp })
}

impl Bound {
    fn addresses(&self) -> Vec<String> {
        self.given.iter().chain(&self.tcp).filter_map(Socket::address).collect()
    }

    /// What the service manager has takes connections until the daemon begins to stop: those that come later wait there for the
    /// next daemon. Others take them until the end, to say so.
    fn until(self, drain: &Stop, end: &Stop) -> (Vec<Listener>, Option<listen::Bound>) {
        let unix_until = if self.own.is_some() { end } else { drain };
        let tcp_until = if manager::keep(&self.tcp) { drain } else { end };
        let unix = self.unix.into_iter().map(|unix| (Socket::Unix(unix), unix_until));
        let given = self.given.into_iter().map(|tcp| (tcp, drain));
        let tcp = self.tcp.into_iter().map(|tcp| (tcp, tcp_until));
        let listeners = unix.chain(given).chain(tcp);
        let listener = |(socket, until): (_, &Stop)| Listener { socket, until: until.clone() };
        (listeners.map(listener).collect(), self.own)
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
    let config = daemon.config();
    tracing::info!(socket = %config.socket.display(), models = %config.models.display(), "Listening");
    for address in &daemon.addresses {
        tracing::info!(%address, "Listening for HTTP");
    }
    if config.sandbox.is_none() {
        tracing::warn!(
            "Backends run without a sandbox: a hostile model could do what this user can"
        );
    }
    manager::ready(daemon);
    if let Some(parent) = parent {
        parent.ready();
    }
}

/// Each connection is an open file. The usual soft limit of 1024 is there for programs that call `select`.
fn raise_file_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    let mut raised = Rlimit { current: maximum, maximum };
    if cfg!(target_os = "macos") {
        // OPEN_MAX: its setrlimit(2) takes no more, whatever the hard limit is.
        raised.current = Some(maximum.map_or(10_240, |maximum| maximum.min(10_240)));
    }
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!("Raising the limit of open files: {error}");
    }
}

/// The file to start workers from: this very program, also after an upgrade replaced the file on disk.
pub fn executable() -> anyhow::Result<PathBuf> {
    let own = PathBuf::from("/proc/self/exe");
    if cfg!(target_os = "linux") && own.exists() {
        return Ok(own);
    }
    // Without /proc, the kernel's word for what it started.
    #[cfg(target_os = "linux")]
    if let Ok(path) = rustix::param::linux_execfn().to_str() {
        return Ok(std::path::absolute(path)?);
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
