//! The dialects that other programs speak already, each a thin conversion onto the daemon's own methods.
//!
//! Only this folder knows Ollama, OpenAI and Anthropic. `core` is what it has of the daemon, `body` reads requests and writes
//! streams; the rest is one folder for each dialect.
//!
//! **Invariant.** A stream ends with an event that its dialect takes for the end, or for an error; and dropping an answer
//! ends the work behind it.

mod anthropic;
mod blobs;
mod body;
mod core;
mod download;
mod images;
mod ollama;
mod openai;
mod said;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, Uri, header::CONTENT_TYPE};
use axum::response::Response;
use hearth_protocol::{ErrorKind, RpcError};
use http_body_util::BodyExt;
use serde_json::{Value, json};

pub(crate) use core::Core;
use said::{Called, OfferedFunction, Token};

/// Every route of every dialect.
pub(crate) fn router() -> Router {
    Router::new()
        .merge(anthropic::router())
        .merge(ollama::router())
        .merge(openai::router())
        .route("/blobs/{digest}", blobs::route())
        .fallback(|uri: Uri, body: Body| {
            refuse(uri, body, StatusCode::NOT_FOUND, "there is nothing at this path")
        })
        .method_not_allowed_fallback(|uri: Uri, body: Body| {
            refuse(uri, body, StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method")
        })
}

/// A body is read to its end, or the client might not get to read the answer.
async fn refuse(uri: Uri, mut body: Body, status: StatusCode, why: &str) -> Response {
    while let Some(Ok(_)) = body.frame().await {}
    refusal(uri.path(), status, &RpcError::new(ErrorKind::InvalidRequest, why))
}

/// An error as the clients of a path read it.
pub(crate) fn refusal(path: &str, status: StatusCode, error: &RpcError) -> Response {
    let body = if path.starts_with("/v1/messages") {
        anthropic::error_body(status, error)
    } else if openai::has(path) {
        openai::error_body(status, error)
    } else if path == "/" || path.starts_with("/api/") {
        ollama::error_body(error)
    } else {
        json!({ "error": error })
    };
    json_response(status, &body)
}

/// What a person is told: what happened, and what to do next.
fn told(error: &RpcError) -> String {
    match error.hint() {
        Some(hint) => format!("{} (hint: {hint})", error.message),
        None => error.message.clone(),
    }
}

/// The status of an error, which is the same in every dialect.
fn status_of(error: &RpcError) -> StatusCode {
    match error.kind().unwrap_or(ErrorKind::Internal) {
        ErrorKind::ParseError
        | ErrorKind::InvalidRequest
        | ErrorKind::InvalidParams
        | ErrorKind::BadModel
        | ErrorKind::ContextOverflow
        | ErrorKind::Unsupported => StatusCode::BAD_REQUEST,
        ErrorKind::PermissionDenied => StatusCode::FORBIDDEN,
        ErrorKind::ModelNotFound
        | ErrorKind::MethodNotFound
        | ErrorKind::RequestNotFound
        | ErrorKind::SessionNotFound => StatusCode::NOT_FOUND,
        ErrorKind::InUse => StatusCode::CONFLICT,
        ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::Network => StatusCode::BAD_GATEWAY,
        ErrorKind::Overloaded | ErrorKind::ShuttingDown | ErrorKind::NoBackend => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        ErrorKind::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        // No registered one says that the client ended it; Ollama and nginx use this.
        ErrorKind::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn json_response(status: StatusCode, body: &impl serde::Serialize) -> Response {
    let text = serde_json::to_vec(body).unwrap_or_default();
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Null stands for nothing, as Go's and Python's clients write it.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + serde::Deserialize<'de>,
{
    Ok(<Option<T> as serde::Deserialize>::deserialize(deserializer)?.unwrap_or_default())
}

fn invalid(message: impl Into<String>) -> RpcError {
    RpcError::new(ErrorKind::InvalidParams, message)
}

/// A JSON text as it was written, or else as a string.
fn object_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
}

/// The first of an embedding's numbers, at length 1 again.
fn shorten(embedding: &mut Vec<f32>, dimensions: usize) {
    embedding.truncate(dimensions);
    let length = embedding.iter().map(|x| x * x).sum::<f32>().sqrt();
    if length > 0.0 {
        for x in embedding {
            *x /= length;
        }
    }
}
