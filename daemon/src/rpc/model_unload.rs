//! `model.unload`

use super::{Daemon, Handled, blocking};
use crate::listen::Caller;
use crate::supervisor::parse_name;
use hearth_protocol::{ModelParams, ModelUnload, Unloaded};
use std::sync::Arc;

pub(super) async fn handle(
    daemon: Arc<Daemon>,
    _: Caller,
    params: ModelParams,
) -> Handled<ModelUnload> {
    let name = parse_name(&params.model)?;
    let stores = Arc::clone(&daemon.stores);
    let manifest = blocking(move || stores.manifest(&name)).await?;
    Ok(Unloaded { unloaded: daemon.supervisor.unload(&manifest.id().hex()).await })
}
