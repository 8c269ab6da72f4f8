//! `store.verify`

use super::reported::{Reporter, reported};
use super::store_error;
use super::work::{Events, Request, Work};
use crate::supervisor::parse_name;
use hearth_protocol::{ProgressEvent, RpcError, StoreVerify, Verified, VerifyFault, VerifyParams};
use hearth_store::{Fault, Stores};

impl Work for StoreVerify {
    type Event = ProgressEvent<Verified>;

    fn name(params: &mut VerifyParams) -> Option<String> {
        params.request.take()
    }

    async fn run(
        request: Request,
        params: VerifyParams,
        events: Events<Self::Event>,
    ) -> Result<Verified, RpcError> {
        let work = move |reporter: &mut Reporter| verify(&request.daemon.stores, &params, reporter);
        reported(&events, work).await
    }
}

fn verify(
    stores: &Stores,
    params: &VerifyParams,
    reporter: &mut Reporter,
) -> Result<Verified, RpcError> {
    let names = params.models.iter().map(|name| parse_name(name)).collect::<Result<Vec<_>, _>>()?;
    let verified = stores
        .verify(&names, &mut |done, total| reporter.tell("reading", done, total))
        .map_err(|error| store_error(&error))?;
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    tracing::info!(files = verified.n_blobs, faults = verified.faults.len(), "Models verified");
    let fault = |fault: Fault| VerifyFault {
        model: fault.model.map(|name| name.to_string()),
        path: fault.path.display().to_string(),
        message: fault.message,
        hint: fault.hint,
    };
    Ok(Verified {
        models: count(verified.n_models),
        files: count(verified.n_blobs),
        bytes: verified.bytes,
        faults: verified.faults.into_iter().map(fault).collect(),
    })
}
