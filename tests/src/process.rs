//! Running programs to their end, and looking at processes.

use crate::wait::eventually;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::thread;

/// How a program ended and what it said.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    /// Exit code; `None` after a signal.
    pub code: Option<i32>,
    /// All of it.
    pub stdout: String,
    /// All of it.
    pub stderr: String,
}

impl Ran {
    /// Standard output of a program that must have succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// Standard output of a program that must have succeeded, as JSON.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        let stdout = self.ok();
        match serde_json::from_str(&stdout) {
            Ok(value) => value,
            Err(error) => panic!("not JSON: {error}\n{stdout}"),
        }
    }
}

/// Runs a program with this standard input, which is then closed.
#[track_caller]
pub fn run(command: &mut Command, stdin: &str) -> Ran {
    let spawned =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            panic!("cannot run {command:?}: {error}\nhint: `./dev test` installs what tests need")
        }
    };
    let (mut to, text) = (child.stdin.take().unwrap(), stdin.to_string());
    // A program that reads no standard input may have ended already.
    let writer = thread::spawn(move || drop(to.write_all(text.as_bytes())));
    let stdout = reader(child.stdout.take().unwrap());
    let stderr = reader(child.stderr.take().unwrap());
    let status = eventually(&format!("the end of {command:?}"), || child.try_wait().unwrap());
    writer.join().unwrap();
    Ran { code: status.code(), stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

fn reader(mut stream: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    })
}

/// Sends a signal to a process.
#[track_caller]
pub fn signal_process(pid: u32, signal: Signal) {
    kill_process(as_pid(pid), signal).unwrap();
}

fn as_pid(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

/// A process that stands still, whatever it is in the middle of, until this is dropped.
#[derive(Debug)]
pub struct Held(Pid);

impl Held {
    #[track_caller]
    pub(crate) fn new(pid: u32) -> Self {
        let pid = as_pid(pid);
        kill_process(pid, Signal::STOP).unwrap();
        Self(pid)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // It may have been killed meanwhile.
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// True while a process exists and has not ended. One that waits to be reaped has ended.
pub fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before it may hold anything, brackets and blanks included.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

/// The most memory a process has ever had resident.
pub fn peak_rss_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: u64 = line.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    kib * 1024
}
