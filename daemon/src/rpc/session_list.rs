//! `session.list`

use super::kept::{kept, summary};
use super::{Daemon, Handled};
use crate::listen::Caller;
use hearth_protocol::{Empty, SessionList, SessionListMethod};
use std::sync::Arc;

pub(super) async fn handle(
    daemon: Arc<Daemon>,
    caller: Caller,
    Empty {}: Empty,
) -> Handled<SessionListMethod> {
    let sessions = kept(&daemon, move |sessions| sessions.list(caller.uid)).await?;
    Ok(SessionList { sessions: sessions.into_iter().map(summary).collect() })
}
