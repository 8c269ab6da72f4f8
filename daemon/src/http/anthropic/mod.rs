//! Anthropic's messages: `/v1/messages` and `/v1/messages/count_tokens`.
//!
//! `cache_control` is taken for the hint that it is: what was computed is kept and found again without it, and usage says
//! how much of the prompt that was.

mod messages;
mod request;
mod stream;
mod usage;

use super::{Routes, Says, status_of, told};
use crate::random;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use hearth_protocol::{ErrorKind, RpcError};
use schemars::JsonSchema;
use serde::Serialize;

pub(super) fn routes() -> Routes {
    Routes::default()
        .post(
            "/v1/messages",
            messages::messages,
            Says::new("Answers a conversation.")
                .takes::<request::Request>()
                .answers::<messages::Message>()
                .sends("text/event-stream"),
        )
        .post(
            "/v1/messages/count_tokens",
            messages::count_tokens,
            Says::new("Counts the tokens of a conversation.")
                .takes::<request::Request>()
                .answers::<messages::Counted>(),
        )
}

/// An error, as Anthropic's clients read it.
struct Failure(RpcError);

impl From<RpcError> for Failure {
    fn from(mut error: RpcError) -> Self {
        // Clients that shorten a conversation look for these words.
        if error.kind() == Some(ErrorKind::ContextOverflow) {
            error.message.insert_str(0, "prompt is too long: ");
        }
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = status_of(&self.0);
        let body = error_body(status, &self.0);
        let id = body.request_id.as_deref().unwrap_or_default();
        with_id(super::json_response(status, &body), id)
    }
}

type Answer = Result<Response, Failure>;

#[derive(Serialize, JsonSchema)]
pub(super) struct ErrorBody {
    #[serde(rename = "type")]
    kind: &'static str,
    error: Error,
    /// Not in streams, whose head has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct Error {
    #[serde(rename = "type")]
    kind: &'static str,
    message: String,
}

pub(super) fn error_body(status: StatusCode, error: &RpcError) -> ErrorBody {
    ErrorBody { request_id: Some(random::name("req_")), ..error_event(status, error) }
}

/// What a stream says that cannot go on.
fn error_event(status: StatusCode, error: &RpcError) -> ErrorBody {
    let kind = match status.as_u16() {
        400 => "invalid_request_error",
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 | 529 => "overloaded_error",
        504 => "timeout_error",
        _ => "api_error",
    };
    ErrorBody { kind: "error", error: Error { kind, message: told(error) }, request_id: None }
}

/// Names the request where clients look for its name.
fn with_id(mut response: Response, id: &str) -> Response {
    if let Ok(id) = HeaderValue::try_from(id) {
        response.headers_mut().insert("request-id", id);
    }
    response
}
