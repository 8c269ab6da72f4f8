//! Models from and to elsewhere: `/api/pull`.

use super::{Answer, NDJSON, error_body, model_of, named, read};
use crate::http::body::{self, Asked, Progress};
use crate::http::{Core, json_response, or_default};
use axum::body::Body;
use axum::http::StatusCode;
use hearth_protocol::{ModelPull, PullEvent, PullParams, PullState, RpcError};
use serde::Deserialize;
use serde_json::json;
use std::collections::HashMap;

#[derive(Deserialize)]
struct Request {
    #[serde(default, deserialize_with = "or_default")]
    model: String,
    /// What the field was called once.
    #[serde(default, deserialize_with = "or_default")]
    name: String,
    stream: Option<bool>,
}

impl Progress for PullEvent {
    fn says_something(&self) -> bool {
        !matches!(self, Self::Accepted { .. })
    }

    fn error(&self) -> Option<&RpcError> {
        if let Self::Error { error } = self { Some(error) } else { None }
    }
}

pub(super) async fn pull(core: Core, body: Body) -> Answer {
    let Asked { value: request, held } = read::<Request>(&core, body).await?;
    let model = if request.model.is_empty() { request.name } else { request.model };
    model_of(&model)?;
    let params = PullParams { source: model.clone(), name: None, request: None };
    if !request.stream.unwrap_or(true) {
        core.run::<ModelPull>(params).await.map_err(|error| named(&model, error))?;
        return Ok(json_response(StatusCode::OK, &json!({ "status": "success" })));
    }
    let answering = body::begin(core.start::<ModelPull>(params), held)
        .await
        .map_err(|error| named(&model, error))?;
    let mut began = false;
    let mut told = HashMap::new();
    Ok(answering.stream(NDJSON, move |event, out| {
        if !began {
            began = true;
            super::write_line(&json!({ "status": "pulling manifest" }), out);
        }
        match event {
            PullEvent::Progress { blobs } => {
                for blob in blobs.into_iter().filter(|blob| blob.state != PullState::Waiting) {
                    let Some(digest) = blob.digest else { continue };
                    // Whoever draws a bar wants each change of it, and nothing else.
                    if told.insert(digest.clone(), blob.done_bytes) == Some(blob.done_bytes) {
                        continue;
                    }
                    let hex = digest.strip_prefix("sha256:").unwrap_or(&digest);
                    let line = json!({
                        "status": format!("pulling {}", hex.get(..12).unwrap_or(hex)),
                        "digest": digest,
                        "total": blob.size_bytes,
                        "completed": blob.done_bytes,
                    });
                    super::write_line(&line, out);
                }
            }
            PullEvent::Done { .. } => {
                for status in ["verifying sha256 digest", "writing manifest", "success"] {
                    super::write_line(&json!({ "status": status }), out);
                }
            }
            PullEvent::Error { error } => super::write_line(&error_body(&error), out),
            PullEvent::Accepted { .. } => {}
        }
    }))
}
