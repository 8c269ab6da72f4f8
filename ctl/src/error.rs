//! The one error of `ctl`, what a person reads about it, and its exit code.
//!
//! On stderr: `error: MESSAGE`, then `hint: HINT` where there is one. With `--json` an error that the daemon answered is
//! also on stdout as `{"error": …}`, so that a script always finds one JSON value there.

use crate::output::{Out, printable};
use hearth_protocol::RpcError;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// The daemon or the model said no, or the connection broke.
const FAILED: u8 = 1;
/// The command line cannot be understood.
const USAGE: u8 = 2;
/// No daemon answers.
const NO_DAEMON: u8 = 3;
/// Ctrl-C, as shells count it: 128 + SIGINT.
const INTERRUPTED: u8 = 130;

#[derive(Debug, thiserror::Error)]
pub(crate) enum CtlError {
    #[error("{message}")]
    Usage { message: String, hint: Option<String> },
    #[error("{message}")]
    NoDaemon { message: String, hint: String },
    /// The daemon answered with an error. `hint` replaces the daemon's own.
    #[error("{error}")]
    Rpc { error: RpcError, hint: Option<String> },
    /// The connection ended without an answer.
    #[error("the daemon closed the connection before it answered")]
    Disconnected,
    #[error("{message}")]
    Failed { message: String, hint: Option<String> },
    #[error("interrupted")]
    Interrupted,
    #[error("cannot write the output: {0}")]
    Output(#[source] io::Error),
}

impl CtlError {
    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: Some(hint.into()) }
    }

    pub(crate) fn failed(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), hint: Some(hint.into()) }
    }

    pub(crate) fn hint(&self) -> Option<&str> {
        match self {
            Self::Usage { hint, .. } | Self::Failed { hint, .. } => hint.as_deref(),
            Self::NoDaemon { hint, .. } => Some(hint),
            Self::Rpc { error, hint } => hint.as_deref().or(error.hint()),
            Self::Disconnected => {
                Some("it was stopped or restarted; run the command again, or look at its log")
            }
            Self::Output(_) => Some("see that there is room where the output goes"),
            Self::Interrupted => None,
        }
    }

    /// Says what happened and gives the exit code.
    pub(crate) fn report(&self, out: &Out) -> ExitCode {
        match self {
            Self::Interrupted => return ExitCode::from(INTERRUPTED),
            // Whoever read the output has seen enough, as in `ctl ls | head -1`.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return ExitCode::SUCCESS;
            }
            _ => {}
        }
        if let Self::Rpc { error, .. } = self
            && out.is_json()
        {
            // The same words follow on stderr, so a failure to write them here loses nothing.
            let _ = out.json(&serde_json::json!({ "error": error }));
        }
        self.print(out);
        ExitCode::from(match self {
            Self::Usage { .. } => USAGE,
            Self::NoDaemon { .. } => NO_DAEMON,
            _ => FAILED,
        })
    }

    /// Only the words, for a chat that goes on.
    pub(crate) fn print(&self, out: &Out) {
        out.complain("error", &self.to_string());
        if let Some(hint) = self.hint() {
            out.complain("hint", hint);
        }
    }
}

/// What clap has to say: help and version on stdout with success, all else on stderr.
pub(crate) fn report_usage(error: &clap::Error) -> ExitCode {
    let printed = error.print().and_then(|()| io::stdout().flush());
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::from(FAILED),
        _ if error.use_stderr() => ExitCode::from(USAGE),
        _ => ExitCode::SUCCESS,
    }
}

/// `a`, `b` and `c`, each in backticks.
pub(crate) fn listed<S: AsRef<str>>(names: &[S]) -> String {
    let quoted: Vec<String> =
        names.iter().map(|name| format!("`{}`", printable(name.as_ref()))).collect();
    match quoted.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}
