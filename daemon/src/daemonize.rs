//! Going into the background on machines without a service manager.
//!
//! The parent waits on a pipe and leaves with success only when the child says that its socket listens; the child's
//! first error comes back through the same pipe.

use crate::cli::RunArgs;
use anyhow::{Context, bail};
use rustix::fs::FlockOperation;
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::path::Path;

/// The child's end.
#[derive(Debug)]
pub(crate) struct Parent(PipeWriter);

/// What this process is after the fork.
pub(crate) enum Forked {
    /// The child is ready; the parent has only to leave.
    Parent,
    Child(Parent),
}

/// Forks. Called before any thread exists.
pub(crate) fn daemonize(args: &RunArgs) -> anyhow::Result<Forked> {
    let (reader, writer) = std::io::pipe()?;
    let mut daemon = daemonize::Daemonize::new().working_directory("/").umask(0o027);
    if let Some(path) = &args.pid_file {
        may_have(path)?;
        daemon = daemon.pid_file(std::path::absolute(path)?);
    }
    if let Some(path) = &args.log_file {
        let log = File::options().create(true).append(true).open(path);
        let log = log.with_context(|| format!("cannot open the log `{}`", path.display()))?;
        daemon = daemon.stderr(log);
    }
    match daemon.execute() {
        daemonize::Outcome::Parent(Ok(_)) => {
            drop(writer);
            wait(reader)?;
            Ok(Forked::Parent)
        }
        daemonize::Outcome::Child(Ok(_)) => Ok(Forked::Child(Parent(writer))),
        daemonize::Outcome::Parent(Err(error)) | daemonize::Outcome::Child(Err(error)) => {
            Err(error).context("cannot go into the background")
        }
    }
}

/// Says in words what would go wrong with the file after the fork.
fn may_have(pid_file: &Path) -> anyhow::Result<()> {
    let shown = pid_file.display();
    let file = File::options().create(true).append(true).open(pid_file);
    let file = file.with_context(|| format!("cannot open the pid file `{shown}`"))?;
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!(
            "another daemon has the pid file `{shown}`\nhint: stop it first, or give this one another `--pid-file`"
        );
    }
    Ok(())
}

fn wait(mut reader: PipeReader) -> anyhow::Result<()> {
    let mut said = String::new();
    reader.read_to_string(&mut said)?;
    match said.as_str() {
        "ready" => Ok(()),
        "" => bail!(
            "the daemon ended before its socket listened\nhint: start it without --daemonize to see why"
        ),
        error => bail!("{error}"),
    }
}

impl Parent {
    /// Lets the parent leave with success.
    pub(crate) fn ready(mut self) {
        let _ = self.0.write_all(b"ready");
    }

    /// Lets the parent leave with this error.
    pub(crate) fn failed(mut self, error: &anyhow::Error) {
        let _ = write!(self.0, "{error:#}");
    }
}
