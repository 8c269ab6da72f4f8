//! `backend.list`

use super::{Daemon, Handled};
use crate::listen::Caller;
use hearth_protocol::{BackendList, BackendListMethod, Empty};
use std::sync::Arc;

pub(super) async fn handle(
    daemon: Arc<Daemon>,
    _: Caller,
    Empty {}: Empty,
) -> Handled<BackendListMethod> {
    Ok(BackendList { backends: daemon.supervisor.backends().await.list.clone() })
}
