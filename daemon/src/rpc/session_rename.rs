//! `session.rename`

use super::kept::{kept, summary};
use super::{Daemon, Handled};
use crate::listen::Caller;
use hearth_protocol::{SessionRename, SessionRenameParams};
use std::sync::Arc;

pub(super) async fn handle(
    daemon: Arc<Daemon>,
    caller: Caller,
    params: SessionRenameParams,
) -> Handled<SessionRename> {
    let SessionRenameParams { session, name } = params;
    let renamed = kept(&daemon, move |sessions| sessions.rename(caller.uid, &session, &name));
    Ok(summary(renamed.await?))
}
