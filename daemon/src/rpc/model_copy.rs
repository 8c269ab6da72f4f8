//! `model.copy`

use super::{Daemon, Handled, blocking};
use crate::listen::Caller;
use crate::supervisor::parse_name;
use hearth_protocol::{Copied, CopyParams, ModelCopy};
use std::sync::Arc;

pub(crate) async fn handle(
    daemon: Arc<Daemon>,
    _: Caller,
    params: CopyParams,
) -> Handled<ModelCopy> {
    let (from, to) = (parse_name(&params.from)?, parse_name(&params.to)?);
    let store = Arc::clone(&daemon.store);
    let (name, id) = blocking(move || store.copy(&from, &to)).await?;
    tracing::info!(model = %name, "Model copied");
    Ok(Copied { name: name.to_string(), id: id.hex() })
}
