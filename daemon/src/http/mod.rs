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
mod routes;
mod said;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderValue, StatusCode, Uri, header::CONTENT_TYPE};
use axum::response::Response;
use hearth_protocol::{ErrorKind, RpcError};
use http_body_util::BodyExt;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

pub(crate) use core::Core;
use routes::{Routes, Says, schema};
use said::{Called, DebugInfo, OfferedFunction, Token, image_count};

/// Most bytes that are read of a request that is refused.
const MAX_DRAINED: usize = 64 << 20;

/// Every route of every dialect.
pub(crate) fn router() -> Router {
    routes()
        .into_router()
        .fallback(|uri: Uri, body: Body| {
            refuse(uri, body, StatusCode::NOT_FOUND, "there is nothing at this path")
        })
        .method_not_allowed_fallback(|uri: Uri, body: Body| {
            refuse(uri, body, StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method")
        })
}

fn routes() -> Routes {
    let document = || async { json_response(StatusCode::OK, &routes().document()) };
    let says = Says::new("This document.").answers::<Value>();
    blobs::routes("/blobs/{digest}")
        .merge(anthropic::routes())
        .merge(ollama::routes())
        .merge(openai::routes())
        .get("/openapi.json", document, says)
}

async fn refuse(uri: Uri, body: Body, status: StatusCode, why: &str) -> Response {
    drain(body).await;
    refusal(uri.path(), status, &RpcError::new(ErrorKind::InvalidRequest, why))
}

/// Reads a body to its end, or the client might not get to read the answer. One that is larger than any honest request is not
/// worth that.
pub(crate) async fn drain<B: HttpBody<Data = Bytes> + Unpin>(mut body: B) {
    let mut n_bytes = 0;
    while let Some(Ok(part)) = body.frame().await {
        n_bytes += part.data_ref().map_or(0, Bytes::len);
        if n_bytes > MAX_DRAINED {
            return;
        }
    }
}

/// An error as the clients of a path read it.
pub(crate) fn refusal(path: &str, status: StatusCode, error: &RpcError) -> Response {
    match Dialect::of(path) {
        Dialect::Anthropic => json_response(status, &anthropic::error_body(status, error)),
        Dialect::OpenAi => json_response(status, &openai::error_body(status, error)),
        Dialect::Ollama => json_response(status, &ollama::error_body(error)),
        Dialect::Hearth => json_response(status, &ErrorBody { error: error.clone() }),
    }
}

/// As the clients of a path read it.
fn error_schema(path: &str) -> routes::SchemaOf {
    match Dialect::of(path) {
        Dialect::Anthropic => schema::<anthropic::ErrorBody>,
        Dialect::OpenAi => schema::<openai::ErrorBody>,
        Dialect::Ollama => schema::<ollama::ErrorBody>,
        Dialect::Hearth => schema::<ErrorBody>,
    }
}

enum Dialect {
    Anthropic,
    OpenAi,
    Ollama,
    /// Files, and what else is no other program's.
    Hearth,
}

impl Dialect {
    fn of(path: &str) -> Self {
        if path.starts_with("/v1/messages") {
            Self::Anthropic
        } else if openai::has(path) {
            Self::OpenAi
        } else if path == "/" || path.starts_with("/api/") {
            Self::Ollama
        } else {
            Self::Hearth
        }
    }
}

#[derive(Serialize, JsonSchema)]
struct ErrorBody {
    error: RpcError,
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

fn json_response(status: StatusCode, body: &impl Serialize) -> Response {
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

fn is_zero<N: Default + PartialEq>(n: &N) -> bool {
    *n == N::default()
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
