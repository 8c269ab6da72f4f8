//! `session.create`

use super::kept::{kept, summary, to_text};
use super::{Daemon, Handled};
use crate::listen::Caller;
use crate::random;
use crate::supervisor::parse_name;
use hearth_protocol::{SessionCreate, SessionCreateParams};
use hearth_sessions::NewSession;
use std::sync::Arc;

pub(super) async fn handle(
    daemon: Arc<Daemon>,
    caller: Caller,
    params: SessionCreateParams,
) -> Handled<SessionCreate> {
    let model = parse_name(&params.model)?.to_string();
    let options = to_text(&params.options)?;
    let id = random::name("sess_");
    let session = kept(&daemon, move |sessions| {
        let (name, system) = (params.name.as_deref(), params.system.as_deref());
        let new = NewSession { id: &id, name, model: &model, system, options: &options };
        sessions.create(caller.uid, &new)
    });
    Ok(summary(session.await?))
}
