//! `detokenize`

use super::work::{Work, unexpected};
use super::{Daemon, Handled};
use crate::listen::Caller;
use crate::worker::frames::{Job, Reply};
use hearth_protocol::{Detokenize, DetokenizeParams};
use std::sync::Arc;

pub(super) async fn handle(
    daemon: Arc<Daemon>,
    caller: Caller,
    params: DetokenizeParams,
) -> Handled<Detokenize> {
    let (model, keep_alive) = (params.model.clone(), None);
    match Work::new(daemon, caller, model, keep_alive, None, Job::Detokenize(params))
        .finish()
        .await?
    {
        (Reply::Detokenize(reply), ..) => Ok(reply),
        _ => Err(unexpected()),
    }
}
