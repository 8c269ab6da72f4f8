//! `cancel`

use super::{Daemon, Handled};
use crate::listen::Caller;
use hearth_protocol::{CancelMethod, CancelParams, Cancelled};
use std::sync::Arc;

pub(super) async fn handle(
    daemon: Arc<Daemon>,
    caller: Caller,
    params: CancelParams,
) -> Handled<CancelMethod> {
    daemon.requests.cancel(caller, &params.request)?;
    Ok(Cancelled { cancelled: true })
}
