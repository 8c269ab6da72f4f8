//! `embed`

use super::work::{Work, unexpected};
use super::{Daemon, Handled};
use crate::listen::Caller;
use crate::worker::frames::{Job, Reply};
use hearth_protocol::{Embed, EmbedParams};
use std::sync::Arc;

pub(super) async fn handle(
    daemon: Arc<Daemon>,
    caller: Caller,
    params: EmbedParams,
) -> Handled<Embed> {
    let (model, keep_alive) = (params.model.clone(), params.keep_alive);
    match Work::new(daemon, caller, model, keep_alive, None, Job::Embed(params)).finish().await? {
        (Reply::Embed(reply), ..) => Ok(reply),
        _ => Err(unexpected()),
    }
}
