//! Sessions as the daemon's methods have them: run where waiting for a disk holds nobody, with messages and errors of the
//! wire.

use super::{Daemon, apart};
use hearth_protocol::{ErrorKind, Message, RpcError, SessionSummary};
use hearth_sessions::{Session, SessionError, Sessions};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// Reads or writes sessions.
pub(crate) async fn kept<T: Send + 'static>(
    daemon: &Daemon,
    act: impl FnOnce(&Arc<Sessions>) -> Result<T, SessionError> + Send + 'static,
) -> Result<T, RpcError> {
    let Some(sessions) = daemon.sessions.clone() else {
        return Err(RpcError::new(ErrorKind::Io, "there is no folder to keep sessions in")
            .with_hint("start the daemon with `--state-dir DIR`"));
    };
    apart(move || act(&sessions).map_err(|error| wire_error(&error))).await
}

fn wire_error(error: &SessionError) -> RpcError {
    let kind = match error {
        SessionError::NotFound { .. } => ErrorKind::SessionNotFound,
        SessionError::NameTaken(_) | SessionError::BadName(_) => ErrorKind::InvalidParams,
        SessionError::Busy(_) => ErrorKind::InUse,
        SessionError::Newer { .. }
        | SessionError::Corrupt { .. }
        | SessionError::Full { .. }
        | SessionError::Io { .. } => {
            tracing::warn!("Using the sessions: {error}");
            ErrorKind::Io
        }
    };
    RpcError::new(kind, error.to_string()).with_hint(error.hint())
}

pub(super) fn summary(session: Session) -> SessionSummary {
    SessionSummary {
        id: session.id,
        name: session.name,
        model: session.model,
        messages: session.n_messages,
        created_s: u64::try_from(session.created_s).unwrap_or(0),
        updated_s: u64::try_from(session.updated_s).unwrap_or(0),
    }
}

/// As it is kept.
pub(crate) fn to_text(value: &impl Serialize) -> Result<String, RpcError> {
    serde_json::to_string(value)
        .map_err(|error| RpcError::new(ErrorKind::Internal, format!("cannot be kept: {error}")))
}

/// The opposite. Serde's own words could repeat what was said, so they are not told.
pub(crate) fn from_text<T: DeserializeOwned>(text: &str) -> Result<T, RpcError> {
    serde_json::from_str(text).map_err(|_| {
        RpcError::new(ErrorKind::Io, "what was kept of this conversation cannot be read")
            .with_hint("another version of Hearth may have written it")
    })
}

pub(crate) fn messages(kept: &[String]) -> Result<Vec<Message>, RpcError> {
    kept.iter().map(|text| from_text(text)).collect()
}
