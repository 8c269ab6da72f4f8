//! OpenAI's API, as far as it concerns models: chat completions, completions, embeddings, models; and llama-server's routes
//! about tokens, templates and ranks.

mod answer;
mod chat;
mod chat_request;
mod completions;
mod content;
mod embeddings;
mod models;
mod options;
mod rerank;
mod responses;
mod texts;
mod tokens;

use super::{Core, Routes, Says, status_of, told};
use answer::{EVENTS, Framed};
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use hearth_protocol::{ErrorKind, Rendered, RpcError};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

pub(super) fn routes() -> Routes {
    let ranks = || {
        Says::new("Says which texts answer a question best.")
            .takes::<rerank::Request>()
            .answers::<rerank::Ranked>()
    };
    Routes::default()
        .post("/v1/rerank", rerank::rerank, ranks())
        .post("/v1/reranking", rerank::rerank, ranks())
        .post("/rerank", rerank::rerank, ranks())
        .post(
            "/v1/chat/completions",
            chat::chat,
            Says::new("Answers a conversation.")
                .takes::<chat_request::Request>()
                .answers::<Framed<'_, chat::Choice>>()
                .sends(EVENTS),
        )
        .post(
            "/v1/completions",
            completions::completions,
            Says::new("Continues texts.")
                .takes::<completions::Request>()
                .answers::<Framed<'_, completions::Choice>>()
                .sends(EVENTS),
        )
        .post(
            "/v1/embeddings",
            embeddings::embeddings,
            Says::new("Makes vectors of texts.")
                .takes::<embeddings::Request>()
                .answers::<embeddings::Embeddings>(),
        )
        .merge(responses::routes())
        .get(
            "/v1/models",
            models::list,
            Says::new("Models in the store.").answers::<models::Models>(),
        )
        .get(
            "/v1/models/{*model}",
            models::one,
            Says::new("A model in the store.").answers::<models::Model>(),
        )
        .post(
            "/apply-template",
            chat::apply_template,
            Says::new("The prompt that a conversation becomes.")
                .takes::<chat_request::Request>()
                .answers::<Rendered>(),
        )
        .post(
            "/tokenize",
            tokens::tokenize,
            Says::new("Text to tokens.").takes::<tokens::ToTokens>().answers::<tokens::Tokens>(),
        )
        .post(
            "/detokenize",
            tokens::detokenize,
            Says::new("Tokens to text.").takes::<tokens::ToText>().answers::<tokens::Text>(),
        )
}

/// Whether the clients of a path read errors as OpenAI's do.
pub(super) fn has(path: &str) -> bool {
    path.starts_with("/v1/")
        || ["/apply-template", "/tokenize", "/detokenize", "/rerank"].contains(&path)
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

#[derive(Serialize, JsonSchema)]
pub(super) struct ErrorBody {
    error: Error,
}

#[derive(Serialize, JsonSchema)]
struct Error {
    message: String,
    #[serde(rename = "type")]
    kind: &'static str,
    /// Null where the message alone says what is wrong.
    param: Option<String>,
    code: Option<String>,
}

pub(super) fn error_body(status: StatusCode, error: &RpcError) -> ErrorBody {
    let kind = match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::NOT_FOUND => "not_found_error",
        status if status.is_client_error() => "invalid_request_error",
        _ => "api_error",
    };
    let code = match error.kind() {
        _ if status == StatusCode::UNAUTHORIZED => Some("invalid_api_key".into()),
        Some(ErrorKind::ContextOverflow) => Some("context_length_exceeded".into()),
        kind => json!(kind).as_str().map(str::to_owned),
    };
    ErrorBody { error: Error { message: told(error), kind, param: None, code } }
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
