//! `rpc.discover`

use super::{Daemon, Handled};
use crate::listen::Caller;
use hearth_protocol::{Empty, RpcDiscover, openrpc};
use std::sync::Arc;

pub(super) async fn handle(_: Arc<Daemon>, _: Caller, Empty {}: Empty) -> Handled<RpcDiscover> {
    Ok(openrpc())
}
