//! `chat.end_thinking`

use super::{Daemon, Handled};
use crate::listen::Caller;
use hearth_protocol::{ChatEndThinking, Empty, EndThinkingParams};
use std::sync::Arc;

pub(super) async fn handle(
    daemon: Arc<Daemon>,
    caller: Caller,
    params: EndThinkingParams,
) -> Handled<ChatEndThinking> {
    daemon.requests.end_thinking(caller, &params.request)?;
    Ok(Empty {})
}
