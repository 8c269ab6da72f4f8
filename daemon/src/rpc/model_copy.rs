//! `model.copy`

use super::reported::{Reporter, reported};
use super::store_error;
use super::work::{Events, Request, Work};
use crate::supervisor::parse_name;
use hearth_protocol::{Copied, CopyParams, ModelCopy, ProgressEvent, RpcError};

impl Work for ModelCopy {
    type Event = ProgressEvent<Copied>;

    fn name(params: &mut CopyParams) -> Option<String> {
        params.request.take()
    }

    async fn run(
        request: Request,
        params: CopyParams,
        events: Events<Self::Event>,
    ) -> Result<Copied, RpcError> {
        let (from, to) = (parse_name(&params.from)?, parse_name(&params.to)?);
        let work = move |reporter: &mut Reporter| {
            let mut told = |done, total| reporter.tell("copying", done, total);
            let copied = request.daemon.stores.copy(&from, &to, &mut told);
            let (name, id) = copied.map_err(|error| store_error(&error))?;
            tracing::info!(model = %name, "Model copied");
            Ok(Copied { name: name.to_string(), id: id.hex() })
        };
        reported(&events, work).await
    }
}
