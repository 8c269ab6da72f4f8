//! `tokenize`

use super::work::{Work, unexpected};
use super::{Daemon, Handled};
use crate::listen::Caller;
use crate::worker::frames::{Job, Reply};
use hearth_protocol::{Tokenize, TokenizeParams};
use std::sync::Arc;

pub(super) async fn handle(
    daemon: Arc<Daemon>,
    caller: Caller,
    params: TokenizeParams,
) -> Handled<Tokenize> {
    let (model, keep_alive) = (params.model.clone(), None);
    match Work::new(daemon, caller, model, keep_alive, None, Job::Tokenize(params)).finish().await?
    {
        (Reply::Tokenize(reply), ..) => Ok(reply),
        _ => Err(unexpected()),
    }
}
