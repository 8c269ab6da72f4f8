//! Models from and to elsewhere: `/api/pull`, `/api/push`.

use super::{Answer, NDJSON, Status, error_body, model_of, named, read};
use crate::http::body::{self, Asked, Progress};
use crate::http::{Core, json_response, or_default};
use crate::rpc::Work;
use axum::body::Body;
use axum::http::StatusCode;
use hearth_protocol::{
    ModelPull, ModelPush, PullParams, PushParams, RpcError, TransferEvent, TransferState,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use std::collections::HashMap;

#[derive(Deserialize, JsonSchema)]
pub(super) struct Request {
    #[serde(default, deserialize_with = "or_default")]
    model: String,
    /// What the field was called once.
    #[serde(default, deserialize_with = "or_default")]
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    insecure: bool,
    stream: Option<bool>,
}

impl<R: Send + 'static> Progress for TransferEvent<R> {
    fn says_something(&self) -> bool {
        !matches!(self, Self::Accepted { .. })
    }

    fn error(&self) -> Option<&RpcError> {
        if let Self::Error { error } = self { Some(error) } else { None }
    }
}

pub(super) async fn pull(core: Core, body: Body) -> Answer {
    let said = Said {
        first: "pulling manifest",
        blob: "pulling",
        last: &["verifying sha256 digest", "writing manifest", "success"],
    };
    let params = |model: String, insecure: bool| {
        // Whoever names a scheme has decided.
        let scheme = if insecure && !model.contains("://") { "http://" } else { "" };
        PullParams { source: format!("{scheme}{model}"), name: None, request: None }
    };
    transfer::<ModelPull, _>(core, body, params, said).await
}

pub(super) async fn push(core: Core, body: Body) -> Answer {
    let said = Said {
        first: "retrieving manifest",
        blob: "pushing",
        last: &["pushing manifest", "success"],
    };
    let params = |model, insecure| PushParams { model, target: None, insecure, request: None };
    transfer::<ModelPush, _>(core, body, params, said).await
}

/// The words that clients of Ollama know.
struct Said {
    first: &'static str,
    blob: &'static str,
    last: &'static [&'static str],
}

async fn transfer<M, R>(
    core: Core,
    body: Body,
    params: impl FnOnce(String, bool) -> M::Params,
    said: Said,
) -> Answer
where
    M: Work<Event = TransferEvent<R>, Reply = R>,
    R: Send + 'static,
{
    let Asked { value: request, held } = read::<Request>(&core, body).await?;
    let model = if request.model.is_empty() { request.name } else { request.model };
    model_of(&model)?;
    let params = params(model.clone(), request.insecure);
    if !request.stream.unwrap_or(true) {
        core.run::<M>(params).await.map_err(|error| named(&model, error))?;
        return Ok(json_response(StatusCode::OK, &Status { status: "success" }));
    }
    let answering =
        body::begin(core.start::<M>(params), held).await.map_err(|error| named(&model, error))?;
    let mut began = false;
    let mut told = HashMap::new();
    Ok(answering.stream(NDJSON, move |event, out| {
        if !began {
            began = true;
            super::write_line(&Status { status: said.first }, out);
        }
        match event {
            TransferEvent::Progress { blobs } => {
                for blob in blobs.into_iter().filter(|blob| blob.state != TransferState::Waiting) {
                    let Some(digest) = blob.digest else { continue };
                    // Whoever draws a bar wants each change of it, and nothing else.
                    if told.insert(digest.clone(), blob.done_bytes) == Some(blob.done_bytes) {
                        continue;
                    }
                    let hex = digest.strip_prefix("sha256:").unwrap_or(&digest);
                    let line = json!({
                        "status": format!("{} {}", said.blob, hex.get(..12).unwrap_or(hex)),
                        "digest": digest,
                        "total": blob.size_bytes,
                        "completed": blob.done_bytes,
                    });
                    super::write_line(&line, out);
                }
            }
            TransferEvent::Done { .. } => {
                for status in said.last {
                    super::write_line(&Status { status }, out);
                }
            }
            TransferEvent::Error { error } => super::write_line(&error_body(&error), out),
            TransferEvent::Accepted { .. } => {}
        }
    }))
}
