//! Kills a process when the test process is gone, however that ended.
//!
//! A shell waits on a pipe whose other end only this process holds. The end of this process, also by SIGKILL, closes the
//! pipe, and the shell kills what it guards. Ctrl-C reaches the shell too, and must not end it first.

use std::process::{Child, Command, Stdio};

const SCRIPT: &str = r#"trap "" INT HUP TERM; read -r _; kill -9 "$1""#;

/// Guards one process until it is dropped. Dropped before the process is reaped, so that its number is still its own.
#[derive(Debug)]
pub struct Guard {
    shell: Child,
}

impl Guard {
    /// Guards the process with this number.
    pub fn new(pid: u32) -> Self {
        let shell = Command::new("sh")
            .args(["-c", SCRIPT, "guard", &pid.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { shell }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // SIGKILL: the shell must not see the pipe close first.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
