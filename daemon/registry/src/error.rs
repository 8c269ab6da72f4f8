//! Every way a pull or a push can fail.

use hearth_store::StoreError;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    #[error(transparent)]
    Store(#[from] StoreError),

    #[error("`{source_text}` is no place for models: {reason}")]
    BadSource { source_text: String, reason: String },

    #[error("`{host}` has no `{what}`")]
    NotFound { host: String, what: String },

    #[error("`{host}` does not let this daemon have `{what}`: {reason}")]
    Denied {
        host: String,
        what: String,
        reason: String,
        /// The public part of the key that was shown.
        key: Option<String>,
    },

    #[error("the key `{}` cannot be used: {reason}", path.display())]
    Key { path: PathBuf, reason: String },

    #[error("`{host}` cannot be reached: {reason}")]
    Unreachable { host: String, reason: String },

    #[error("the connection to `{host}` broke: {reason}")]
    Broken { host: String, reason: String },

    #[error("`{host}` sent nothing for {seconds} s")]
    Stalled { host: String, seconds: u64 },

    #[error("`{host}` answered with status {status}: {reason}")]
    Status { host: String, status: u16, reason: String, retry_after: Option<Duration> },

    #[error("`{host}` answered what cannot be: {reason}")]
    BadAnswer { host: String, reason: String },

    #[error("the OCI layout `{}` cannot be used: {reason}", path.display())]
    BadLayout { path: PathBuf, reason: String },

    #[error("a task ended badly: {reason}")]
    Task { reason: String },
}

impl PullError {
    /// Whether the same may go well in a moment.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Broken { .. }
            | Self::Stalled { .. }
            | Self::BadAnswer { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500..=599),
            _ => false,
        }
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// One line that says what to do next, where there is something to do.
    pub fn hint(&self) -> Option<String> {
        const KEPT: &str = "what came through is kept, and the next attempt goes on from there";
        match self {
            Self::Store(error) => error.hint(),
            Self::BadSource { .. } => Some(
                "write `[host/][namespace/]model[:tag]`, `hf.co/user/repo[:quant]`, or the URL of a GGUF file"
                    .to_owned(),
            ),
            Self::NotFound { .. } => {
                Some("check the name and the tag on the registry's own pages".to_owned())
            }
            Self::Denied { host, key: Some(key), .. } => {
                Some(format!("add this key to your account at `{host}`: `{key}`"))
            }
            Self::Key { .. } => {
                Some("it is to be an ed25519 key that the daemon's user may read".to_owned())
            }
            Self::Denied { host, .. } => Some(format!(
                "a private or gated model needs a secret: name its file under `pull.credentials` in the configuration, for `{host}`"
            )),
            Self::Unreachable { .. } => {
                Some("check the name of the host, the network and the proxy; a registry without TLS is written with `http://`".to_owned())
            }
            Self::Broken { .. } | Self::Stalled { .. } | Self::Status { .. } => {
                Some(format!("try again later: {KEPT}"))
            }
            Self::BadAnswer { .. } => Some(
                "this is a fault of that server, or of a proxy before it; another source may do better"
                    .to_owned(),
            ),
            Self::BadLayout { .. } => {
                Some("`ctl export MODEL FOLDER/` writes one; other folders are for `ctl create`".to_owned())
            }
            Self::Task { .. } => None,
        }
    }
}
