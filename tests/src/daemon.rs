//! A private `hearthd`, and everything a test says to it.

use crate::gguf::reference_model;
use crate::guard::Guard;
use crate::process::{Held, Ran, is_alive, run, signal_process};
use crate::programs::{ctl_path, hearthd_path, reference_plugins};
use crate::raw::Raw;
use crate::wait::{eventually, eventually_is};
use hearth_protocol::{
    Client, DaemonStatus, Empty, ImportMode, ImportParams, ModelImport, ModelPs, RunningModel,
    Status,
};
use hearth_reference::Value;
use rustix::process::Signal;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use tempfile::TempDir;

/// How to start a daemon.
#[derive(Debug)]
pub struct Builder {
    dir: TempDir,
    config: String,
    backends: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    wrapper: Vec<String>,
    given: Option<OwnedFd>,
}

impl Builder {
    /// The folder that everything of this daemon's lies in.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Adds lines to the configuration.
    #[must_use]
    pub fn config(mut self, lines: &str) -> Self {
        self.config.push_str(lines);
        self.config.push('\n');
        self
    }

    /// Another folder of plugins than the one with the reference plugin.
    #[must_use]
    pub fn backends(mut self, folder: impl Into<PathBuf>) -> Self {
        self.backends = folder.into();
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Sets a variable; the daemon inherits none from the test but `PATH`.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Runs the daemon by another program, which must become it.
    #[must_use]
    pub fn wrapped(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|word| (*word).into()).collect();
        self
    }

    /// Gives the daemon a listening socket, as a service manager does.
    #[must_use]
    pub fn given(mut self, name: &str, listener: impl Into<OwnedFd>) -> Self {
        self.given = Some(listener.into());
        let names = format!("LISTEN_FDNAMES={name}");
        let become_it = r#"exec 3<&0 </dev/null; exec env LISTEN_FDS=1 LISTEN_PID=$$ "$@""#;
        self.wrapped(&["sh", "-c", become_it, "sh", &names])
    }

    /// The command that `run` runs.
    pub fn command(&self) -> Command {
        self.command_with(&self.config)
    }

    fn command_with(&self, config: &str) -> Command {
        let dir = self.dir.path();
        std::fs::write(dir.join("hearth.toml"), config).unwrap();
        let program = hearthd_path().into_os_string();
        let words: Vec<&OsStr> =
            self.wrapper.iter().map(OsStr::new).chain([program.as_os_str()]).collect();
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .arg("--config")
            .arg(dir.join("hearth.toml"))
            .arg("--socket")
            .arg(dir.join("sock"))
            .arg("--state-dir")
            .arg(dir.join("state"))
            .arg("--models")
            .arg(dir.join("models"))
            .arg("--backends")
            .arg(&self.backends)
            .args(&self.args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", dir)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(match &self.given {
                Some(listener) => Stdio::from(listener.try_clone().unwrap()),
                None => Stdio::null(),
            });
        command
    }

    /// Runs a daemon that is to end by itself.
    #[track_caller]
    pub fn run(&self) -> Ran {
        run(&mut self.command(), "")
    }

    /// Starts the daemon, which answers when this returns.
    #[track_caller]
    pub fn start(self) -> TestDaemon {
        let child = spawn(&self);
        let guard = Guard::new(child.id());
        let mut daemon = TestDaemon { builder: self, child, guard: Some(guard), ended: None };
        daemon.await_ready(None);
        daemon
    }
}

fn spawn(builder: &Builder) -> Child {
    let log = File::options().create(true).append(true).open(builder.dir().join("log")).unwrap();
    // Before the rest, which may end in a table. Nothing of the machine's own Ollama is looked at.
    let defaults = ["log = \"debug\"\n", "more_models = []\n"].into_iter().filter(|line| {
        line.split_inclusive("= ").next().is_none_or(|key| !builder.config.contains(key))
    });
    let config: String = defaults.chain([builder.config.as_str()]).collect();
    builder.command_with(&config).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

/// A running daemon. Dropping it kills it, and prints its log if the test has failed.
#[derive(Debug)]
pub struct TestDaemon {
    builder: Builder,
    child: Child,
    guard: Option<Guard>,
    ended: Option<ExitStatus>,
}

impl TestDaemon {
    /// A daemon with the reference plugin.
    #[track_caller]
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// The same, to be changed first.
    pub fn builder() -> Builder {
        Self::builder_with(reference_plugins())
    }

    /// A daemon with other plugins.
    pub fn builder_with(backends: PathBuf) -> Builder {
        // The kernel's limit for a socket's path is 108 bytes, and `$TMPDIR` may be long.
        let dir = tempfile::Builder::new().prefix("hearth").tempdir_in("/tmp").unwrap();
        let config = String::new();
        let (args, env, wrapper) = Default::default();
        Builder { dir, config, backends, args, env, wrapper, given: None }
    }

    /// Waits until it listens, and not a child of the one `before` it, that was killed before the child had closed the socket.
    #[track_caller]
    fn await_ready(&mut self, before: Option<u32>) {
        let socket = self.socket();
        let is_its_own = |stream: &UnixStream| {
            let listener = rustix::net::sockopt::socket_peercred(stream).unwrap().pid;
            before.is_none_or(|before| i64::from(listener.as_raw_pid()) != i64::from(before))
        };
        eventually("the daemon's socket", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.ended = Some(status);
                panic!("the daemon ended with {status} before it listened");
            }
            UnixStream::connect(&socket).ok().filter(is_its_own)
        });
    }

    /// The folder that everything of this daemon's lies in.
    pub fn dir(&self) -> &Path {
        self.builder.dir()
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.dir().join("sock")
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir().join("log")).unwrap()
    }

    /// A connection.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(&self.socket()).unwrap()
    }

    /// A connection for saying anything.
    #[track_caller]
    pub fn raw(&self) -> Raw {
        Raw::connect(&self.socket())
    }

    /// `daemon.status`, which also shows that it is well.
    #[track_caller]
    pub fn status(&self) -> Status {
        self.client().call::<DaemonStatus>(&Empty {}).unwrap()
    }

    /// Where it listens for HTTP over TCP, such as `127.0.0.1:4711`.
    #[track_caller]
    pub fn http(&self) -> String {
        self.status().http.remove(0)
    }

    /// Waits until nothing runs any more.
    #[track_caller]
    pub fn await_idle(&self) {
        let mut client = self.client();
        eventually_is("no active requests", || {
            client.call::<DaemonStatus>(&Empty {}).unwrap().active_requests == 0
                && self.loaded().iter().all(|model| model.active_requests == 0)
        });
    }

    /// `model.ps`
    #[track_caller]
    pub fn loaded(&self) -> Vec<RunningModel> {
        self.client().call::<ModelPs>(&Empty {}).unwrap().models
    }

    /// The process of the one loaded model.
    #[track_caller]
    pub fn worker_pid(&self) -> u32 {
        let loaded = self.loaded();
        assert_eq!(loaded.len(), 1, "{loaded:?}");
        loaded[0].pid
    }

    /// Makes the one loaded model's process stand still until what this answers is dropped.
    #[track_caller]
    pub fn hold_worker(&self) -> Held {
        Held::new(self.worker_pid())
    }

    /// Makes a model that writes for longer than anything here waits: a step takes 50 ms, and 32,768 tokens fill its context.
    #[track_caller]
    pub fn endless(&self, name: &str) {
        let settings = [
            ("eos_one_in", 0.into()),
            ("context_length", 32_768.into()),
            ("slow_us_per_decode", 50_000.into()),
        ];
        self.model(name, &settings);
    }

    /// Makes a reference model with these settings and imports it.
    #[track_caller]
    pub fn model(&self, name: &str, settings: &[(&str, Value)]) {
        let path = reference_model(self.dir(), name, settings);
        self.import(&path, name, ImportMode::Copy);
    }

    /// Imports a file.
    #[track_caller]
    pub fn import(&self, path: &Path, name: &str, mode: ImportMode) {
        let path = path.to_str().unwrap().into();
        let params = ImportParams { path, name: Some(name.into()), mode, request: None };
        self.client().call::<ModelImport>(&params).unwrap();
    }

    /// Adds layers to a model's manifest, as creating it from a Modelfile would. Kinds are as in media types.
    pub fn add_layers(&self, name: &str, layers: &[(&str, &str)]) {
        let models = self.dir().join("models");
        let path = models.join("manifests/registry.ollama.ai/library").join(name).join("latest");
        let mut manifest: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        for (kind, text) in layers {
            let hash: String =
                Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
            std::fs::write(models.join(format!("blobs/sha256-{hash}")), text).unwrap();
            manifest["layers"].as_array_mut().unwrap().push(json!({
                "mediaType": format!("application/vnd.ollama.image.{kind}"),
                "digest": format!("sha256:{hash}"), "size": text.len(),
            }));
        }
        std::fs::write(path, manifest.to_string()).unwrap();
    }

    /// Runs `ctl` to its end.
    #[track_caller]
    pub fn ctl<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Ran {
        self.ctl_with_stdin(args, "")
    }

    /// The same, with standard input.
    #[track_caller]
    pub fn ctl_with_stdin<A: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = A>,
        stdin: &str,
    ) -> Ran {
        run(self.command(ctl_path()).args(args), stdin)
    }

    /// A program that finds this daemon, and nothing of the person's who runs the test.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir())
            .env("HEARTH_SOCKET", self.socket())
            .current_dir(self.dir());
        command
    }

    /// Sends it a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        signal_process(self.pid(), signal);
    }

    /// Waits for its end.
    #[track_caller]
    pub fn await_end(&mut self) -> ExitStatus {
        let status = eventually("the end of the daemon", || self.child.try_wait().unwrap());
        self.ended = Some(status);
        self.guard = None;
        status
    }

    /// SIGKILL, and nothing more.
    #[track_caller]
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.await_end();
    }

    /// SIGTERM; it must leave with success and take its socket with it.
    #[track_caller]
    pub fn stop_cleanly(mut self) {
        self.signal(Signal::TERM);
        let status = self.await_end();
        assert!(status.success(), "the daemon ended with {status}");
        assert!(!self.socket().exists(), "the socket is still there");
    }

    /// Starts it again in the same place, after it ended.
    #[track_caller]
    pub fn restart(&mut self) {
        assert!(self.ended.take().is_some(), "the daemon has not ended yet");
        let before = self.child.id();
        self.child = spawn(&self.builder);
        self.guard = Some(Guard::new(self.child.id()));
        self.await_ready(Some(before));
    }
}

impl Drop for TestDaemon {
    fn drop(&mut self) {
        if self.ended.is_none() && is_alive(self.pid()) {
            let _ = self.child.kill();
        }
        self.guard = None;
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir().join("log")).unwrap_or_default();
            #[allow(clippy::print_stderr)] // The test harness shows it with the failure.
            {
                eprintln!("--- log of hearthd\n{log}---");
            }
        }
    }
}
