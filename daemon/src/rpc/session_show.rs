//! `session.show`

use super::kept::{from_text, kept, messages, summary};
use super::{Daemon, Handled};
use crate::listen::Caller;
use hearth_protocol::{SessionDetails, SessionParams, SessionShow};
use std::sync::Arc;

pub(super) async fn handle(
    daemon: Arc<Daemon>,
    caller: Caller,
    params: SessionParams,
) -> Handled<SessionShow> {
    let shown = kept(&daemon, move |sessions| sessions.show(caller.uid, &params.session));
    let (mut session, said) = shown.await?;
    Ok(SessionDetails {
        system: session.system.take(),
        options: from_text(&session.options)?,
        summary: summary(session),
        said: messages(&said)?,
    })
}
