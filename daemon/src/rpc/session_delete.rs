//! `session.delete`

use super::kept::{kept, summary};
use super::{Daemon, Handled};
use crate::listen::Caller;
use hearth_protocol::{SessionDelete, SessionParams};
use std::sync::Arc;

pub(super) async fn handle(
    daemon: Arc<Daemon>,
    caller: Caller,
    params: SessionParams,
) -> Handled<SessionDelete> {
    let deleted = kept(&daemon, move |sessions| sessions.delete(caller.uid, &params.session));
    Ok(summary(deleted.await?))
}
