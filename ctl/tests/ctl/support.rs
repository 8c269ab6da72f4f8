//! A daemon that answers what a test tells it to, and the real `ctl` run against it.
//!
//! Each connection has a thread; each line of it becomes a [`Call`] for the test's handler. Dropping the daemon takes its socket away.

use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

pub(crate) struct FakeDaemon {
    dir: TempDir,
    calls: Arc<Mutex<Vec<(String, Value)>>>,
}

/// One request, to be answered or not.
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) params: Value,
    id: Value,
    stream: UnixStream,
}

impl FakeDaemon {
    pub(crate) fn start(handler: impl Fn(&Call) + Send + Sync + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let calls = Arc::new(Mutex::new(Vec::new()));
        // Connections are accepted as soon as it is bound, before the thread below runs.
        let listener = UnixListener::bind(dir.path().join("hearth.sock")).unwrap();
        let (handler, seen) = (Arc::new(handler), Arc::clone(&calls));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (handler, seen) = (Arc::clone(&handler), Arc::clone(&seen));
                std::thread::spawn(move || serve(stream.unwrap(), &seen, &*handler));
            }
        });
        Self { dir, calls }
    }

    /// Every call of `method` answered with one reply.
    pub(crate) fn replying(method: &'static str, reply: Value) -> Self {
        Self::start(move |call| {
            assert_eq!(call.method, method);
            call.reply(&reply);
        })
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("hearth.sock")
    }

    /// What was called so far, in order.
    pub(crate) fn calls(&self) -> Vec<(String, Value)> {
        self.calls.lock().unwrap().clone()
    }

    pub(crate) fn ctl(&self, args: &[&str]) -> Ran {
        self.ctl_with_stdin(args, "")
    }

    pub(crate) fn ctl_with_stdin(&self, args: &[&str], stdin: &str) -> Ran {
        run(self.command(args), stdin)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = ctl(self.dir.path());
        command.arg("--socket").arg(self.socket()).args(args);
        command
    }
}

fn serve(
    stream: UnixStream,
    seen: &Mutex<Vec<(String, Value)>>,
    handler: &(dyn Fn(&Call) + Send + Sync),
) {
    for line in BufReader::new(stream.try_clone().unwrap()).lines() {
        let Ok(line) = line else { return };
        let request: Value = serde_json::from_str(&line).unwrap();
        let call = Call {
            method: request["method"].as_str().unwrap().to_owned(),
            params: request["params"].clone(),
            id: request["id"].clone(),
            stream: stream.try_clone().unwrap(),
        };
        seen.lock().unwrap().push((call.method.clone(), call.params.clone()));
        handler(&call);
    }
}

impl Call {
    pub(crate) fn reply(&self, result: &Value) {
        self.send(&json!({ "jsonrpc": "2.0", "id": self.id, "result": result }));
    }

    pub(crate) fn error(&self, error: &Value) {
        self.send(&json!({ "jsonrpc": "2.0", "id": self.id, "error": error }));
    }

    pub(crate) fn events(&self, events: &[Value]) {
        let name = self.method.strip_suffix(".stream").unwrap();
        for event in events {
            let params = json!({ "subscription": 7, "result": event });
            self.send(
                &json!({ "jsonrpc": "2.0", "method": format!("{name}.event"), "params": params }),
            );
        }
    }

    /// A whole stream, or its beginning.
    pub(crate) fn stream(&self, events: &[Value]) {
        self.reply(&json!(7));
        self.events(events);
    }

    /// An event on the stream that `method` began over the same connection.
    pub(crate) fn event_of(&self, method: &str, event: &Value) {
        let params = json!({ "subscription": 7, "result": event });
        self.send(
            &json!({ "jsonrpc": "2.0", "method": format!("{method}.event"), "params": params }),
        );
    }

    pub(crate) fn send(&self, value: &Value) {
        self.send_text(&value.to_string());
    }

    /// A peer that is gone is no concern of the daemon's.
    pub(crate) fn send_text(&self, line: &str) {
        let _ = (&self.stream).write_all(format!("{line}\n").as_bytes());
    }

    pub(crate) fn hang_up(&self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

/// `ctl` in an environment with nothing of the person's in it.
pub(crate) fn ctl(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ctl"));
    command
        .env_clear()
        .env("HOME", home)
        // Without `systemctl`, unless a test puts one here.
        .env("PATH", home.join("bin"))
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

pub(crate) fn run(mut command: Command, stdin: &str) -> Ran {
    let mut child = command.spawn().unwrap();
    // A command that reads no stdin may have ended already.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    Ran::from(child.wait_with_output().unwrap())
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    /// Exit code, stdout and stderr, all three.
    #[track_caller]
    pub(crate) fn is(&self, code: i32, stdout: &str, stderr: &str) {
        assert_eq!(self.stdout, stdout, "stdout of {self:?}");
        assert_eq!(self.stderr, stderr, "stderr of {self:?}");
        assert_eq!(self.code, Some(code), "exit code of {self:?}");
    }
}
