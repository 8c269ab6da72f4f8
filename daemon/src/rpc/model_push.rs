//! `model.push`

use super::transferred::{transfer_error, transferred};
use super::work::{Events, Request, Work};
use crate::supervisor::parse_name;
use hearth_protocol::{ModelPush, PushParams, Pushed, RpcError, TransferEvent};
use hearth_registry::Repository;

impl Work for ModelPush {
    type Event = TransferEvent<Pushed>;

    fn name(params: &mut PushParams) -> Option<String> {
        params.request.take()
    }

    async fn run(
        request: Request,
        params: PushParams,
        events: Events<Self::Event>,
    ) -> Result<Pushed, RpcError> {
        let name = parse_name(&params.model)?;
        let target = params.target.unwrap_or_else(|| name.to_string());
        let target = Repository::parse(&target, params.insecure);
        let target = target.map_err(|error| transfer_error(&error))?;
        let puller = &request.daemon.puller;
        let pushed =
            transferred(&events, async |progress| puller.push(&name, &target, progress).await);
        let pushed = pushed.await?;
        let (host, there) = (target.host().to_owned(), target.to_string());
        tracing::info!(model = %name, host, name = there, bytes = pushed.size, "Model pushed");
        Ok(Pushed { host, name: there, id: pushed.id.hex(), size_bytes: pushed.size })
    }
}
