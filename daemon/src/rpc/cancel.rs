//! `cancel`

use super::{Daemon, Handled};
use crate::listen::Caller;
use hearth_protocol::{CancelMethod, CancelParams, Cancelled, ErrorKind, RpcError};
use std::sync::Arc;

pub(super) async fn handle(
    daemon: Arc<Daemon>,
    caller: Caller,
    params: CancelParams,
) -> Handled<CancelMethod> {
    if daemon.requests.cancel(caller, &params.request) {
        return Ok(Cancelled { cancelled: true });
    }
    Err(RpcError::new(
        ErrorKind::RequestNotFound,
        format!("no request of yours named `{}` is running", params.request),
    )
    .with_hint("it may have ended already"))
}
