//! OpenAI's API, as far as it concerns models: chat completions, completions, embeddings, models; and the two routes of
//! llama-server about tokens.

mod answer;
mod chat;
mod chat_request;
mod completions;
mod content;
mod embeddings;
mod models;
mod options;
mod responses;
mod texts;
mod tokens;

use super::{Core, status_of, told};
use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hearth_protocol::{ErrorKind, RpcError};
use serde_json::{Value, json};

pub(super) fn router() -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat::chat))
        .route("/v1/completions", post(completions::completions))
        .route("/v1/embeddings", post(embeddings::embeddings))
        .merge(responses::router())
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*model}", get(models::one))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
}

/// Whether the clients of a path read errors as OpenAI's do.
pub(super) fn has(path: &str) -> bool {
    path.starts_with("/v1/") || path == "/tokenize" || path == "/detokenize"
}

/// An error, as OpenAI's clients read it.
pub(super) struct Failure(RpcError);

impl From<RpcError> for Failure {
    fn from(error: RpcError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = status_of(&self.0);
        super::json_response(status, &error_body(status, &self.0))
    }
}

pub(super) fn error_body(status: StatusCode, error: &RpcError) -> Value {
    let kind = match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::NOT_FOUND => "not_found_error",
        status if status.is_client_error() => "invalid_request_error",
        _ => "api_error",
    };
    let code = match error.kind() {
        _ if status == StatusCode::UNAUTHORIZED => json!("invalid_api_key"),
        Some(ErrorKind::ContextOverflow) => json!("context_length_exceeded"),
        kind => json!(kind),
    };
    json!({ "error": { "message": told(error), "type": kind, "param": null, "code": code } })
}

type Answer = Result<Response, Failure>;

async fn read<T: serde::de::DeserializeOwned>(
    core: &Core,
    body: Body,
) -> Result<super::body::Asked<T>, Failure> {
    Ok(super::body::read(core, body).await?)
}

/// A request's model, which must be there.
fn model_of(model: &str) -> Result<(), Failure> {
    if model.is_empty() {
        return Err(super::invalid("you must provide a model parameter").into());
    }
    Ok(())
}
