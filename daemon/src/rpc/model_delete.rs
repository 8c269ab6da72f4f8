//! `model.delete`

use super::model_list::problem;
use super::{Daemon, Handled, blocking};
use crate::listen::Caller;
use crate::supervisor::parse_name;
use hearth_protocol::{Deleted, ErrorKind, ModelDelete, ModelParams, RpcError};
use hearth_store::ModelName;
use std::sync::Arc;

pub(crate) async fn handle(
    daemon: Arc<Daemon>,
    _: Caller,
    params: ModelParams,
) -> Handled<ModelDelete> {
    let name = parse_name(&params.model)?;
    let store = Arc::clone(&daemon.store);
    let asked = name.clone();
    let id =
        blocking(move || Ok(store.manifest(&asked).ok().map(|found| found.id().hex()))).await?;
    // One that is loaded right after this still runs: its files live until its worker ends. And one
    // whose name has gone to another model since is not what is to be deleted.
    let mut loaded = daemon.supervisor.loaded().into_iter();
    if let Some(worker) = loaded.find(|worker| {
        Some(&worker.id) == id.as_ref() && worker.name.parse().is_ok_and(|of: ModelName| of == name)
    }) {
        let error = RpcError::new(ErrorKind::InUse, format!("`{}` is loaded", worker.name));
        return Err(error.with_hint(format!("`ctl stop {}` unloads it", worker.name)));
    }
    let stores = Arc::clone(&daemon.stores);
    let (deleted, uncovers) = blocking(move || {
        let deleted = stores.delete(&name)?;
        Ok((deleted, stores.find(&name).ok()))
    })
    .await?;
    tracing::info!(model = %deleted.name, freed = deleted.freed, "Model deleted");
    Ok(Deleted {
        name: deleted.name.to_string(),
        freed_bytes: deleted.freed,
        uncovers: uncovers.map(|(_, dir)| dir.display().to_string()),
        problem: deleted.problem.as_ref().map(problem),
    })
}
