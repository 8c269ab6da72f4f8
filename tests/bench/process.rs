//! A server's process, which ends with its owner.

use crate::Result;
use hearth_tests::{Guard, signal_process};
use rustix::process::Signal;
use std::process::{Child, Command, Stdio};

#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    guard: Option<Guard>,
}

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot run {command:?}: {error}"))?;
        let guard = Some(Guard::new(child.id()));
        Ok(Self { child, guard })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// True once it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            signal_process(self.pid(), Signal::TERM);
        }
        // Before the process is reaped: its number is still its own.
        self.guard = None;
        let _ = self.child.wait();
    }
}
