//! Ollama's own API: every route of `/api` that concerns local models.

mod chat;
mod create;
mod embed;
mod generate;
mod load;
mod metrics;
mod models;
mod options;
mod transfer;

use super::{Core, status_of, told};
use crate::rpc;
use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, delete, get, post};
use hearth_protocol::{ErrorKind, ModelParams, ModelShow, RpcError};
use serde_json::{Value, json};

/// The version of Ollama whose clients find here what they expect of it: they ask, and some refuse an older one.
const OLLAMA_VERSION: &str = "0.20.0";

const NDJSON: &str = "application/x-ndjson";

pub(super) fn router() -> Router {
    Router::new()
        .route("/", get("Ollama is running"))
        .route("/api/version", get(version))
        .route("/api/generate", post(generate::generate))
        .route("/api/chat", post(chat::chat))
        .route("/api/embed", post(embed::embed))
        .route("/api/embeddings", post(embed::embeddings))
        .route("/api/tags", get(models::tags))
        .route("/api/ps", get(models::ps))
        .route("/api/show", post(models::show))
        .route("/api/copy", post(models::copy))
        .route("/api/delete", delete(models::delete))
        .route("/api/create", post(create::create))
        .route("/api/pull", post(transfer::pull))
        .route("/api/push", post(transfer::push))
        .route("/api/blobs/{digest}", crate::http::blobs::route())
        .route("/api/status", get(cloud_status))
        .route("/api/me", any(no_account))
        .route("/api/signout", any(no_account))
        .route("/api/user/keys/{key}", any(no_account))
        .route("/api/experimental/{*rest}", any(no_account))
}

async fn version() -> Response {
    let version = env!("CARGO_PKG_VERSION");
    super::json_response(StatusCode::OK, &json!({ "version": OLLAMA_VERSION, "hearth": version }))
}

async fn cloud_status() -> Response {
    let body = json!({ "cloud": { "disabled": true, "source": "hearth" } });
    super::json_response(StatusCode::OK, &body)
}

/// There is no account to sign in to: Hearth runs models on this machine and asks nobody else.
async fn no_account() -> Failure {
    let error = RpcError::new(ErrorKind::Unsupported, "Hearth has no cloud and no accounts");
    Failure(StatusCode::FORBIDDEN, error.with_hint("everything runs on this machine"))
}

/// An error, as Ollama's clients read it.
pub(super) struct Failure(StatusCode, RpcError);

impl From<RpcError> for Failure {
    fn from(error: RpcError) -> Self {
        Self(status_of(&error), error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        super::json_response(self.0, &error_body(&self.1))
    }
}

pub(super) fn error_body(error: &RpcError) -> Value {
    json!({ "error": told(error) })
}

type Answer = Result<Response, Failure>;

/// Reads a request, whatever its media type says: Ollama does not look at it.
async fn read<T: serde::de::DeserializeOwned>(
    core: &Core,
    body: Body,
) -> Result<super::body::Asked<T>, Failure> {
    Ok(super::body::read(core, body).await?)
}

/// Clients look for these words.
fn named(model: &str, error: RpcError) -> Failure {
    match error.kind() {
        Some(ErrorKind::ModelNotFound) => {
            let mut error = error;
            error.message = format!("model '{model}' not found");
            Failure(StatusCode::NOT_FOUND, error)
        }
        Some(ErrorKind::Overloaded) => {
            let mut error = error;
            error.message = format!("server busy, please try again.  {}", error.message);
            Failure(StatusCode::SERVICE_UNAVAILABLE, error)
        }
        _ => error.into(),
    }
}

/// A request's model, which must be there.
fn model_of(model: &str) -> Result<(), Failure> {
    if model.is_empty() {
        return Err(super::invalid("model is required").into());
    }
    Ok(())
}

/// Whoever asks a model to think wants to know if it cannot.
async fn can_think(core: &Core, model: &str, think: Option<bool>) -> Result<(), Failure> {
    if think != Some(true) {
        return Ok(());
    }
    let params = ModelParams { model: model.into() };
    let shown = core
        .call::<ModelShow, _>(rpc::model_show, params)
        .await
        .map_err(|error| named(model, error))?;
    if shown.capabilities.iter().any(|can| can == "thinking") {
        return Ok(());
    }
    Err(super::invalid(format!("\"{model}\" does not support thinking")).into())
}

/// One value of a stream.
fn write_line(value: &impl serde::Serialize, out: &mut Vec<u8>) {
    // Only a map with keys that are no texts could fail, and there is none.
    if serde_json::to_writer(&mut *out, value).is_ok() {
        out.push(b'\n');
    }
}
