//! `generate`

use super::work::{Work, unexpected};
use super::{Daemon, Handled, Source};
use crate::listen::Caller;
use crate::worker::frames::{Job, Reply};
use hearth_protocol::{Event, Generate, GenerateParams, GenerateReply, RpcError};
use std::sync::Arc;

pub(super) async fn handle(
    daemon: Arc<Daemon>,
    caller: Caller,
    params: GenerateParams,
) -> Handled<Generate> {
    let (reply, request, load_us) = start(daemon, caller, params).0.finish().await?;
    finished(reply, request, load_us)
}

pub(super) fn start(daemon: Arc<Daemon>, caller: Caller, params: GenerateParams) -> Stream {
    let (model, keep_alive, request) =
        (params.model.clone(), params.keep_alive, params.request.clone());
    Stream(Work::new(daemon, caller, model, keep_alive, request, Job::Generate(Box::new(params))))
}

pub(super) struct Stream(Work);

impl Source<Event<GenerateReply>> for Stream {
    async fn next(&mut self) -> Option<Event<GenerateReply>> {
        self.0.next_event(finished).await
    }
}

fn finished(reply: Reply, request: String, load_us: u64) -> Result<GenerateReply, RpcError> {
    let Reply::Generate(mut reply) = reply else { return Err(unexpected()) };
    reply.request = request;
    reply.timings.load_us = load_us;
    Ok(reply)
}
