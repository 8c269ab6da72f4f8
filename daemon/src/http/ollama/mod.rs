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

use super::{Core, Routes, Says, drain, status_of, told};
use crate::rpc;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use hearth_protocol::{ErrorKind, ModelParams, ModelShow, RpcError};
use schemars::JsonSchema;
use serde::Serialize;

/// The version of Ollama whose clients find here what they expect of it: they ask, and some refuse an older one.
const OLLAMA_VERSION: &str = "0.20.0";

const NDJSON: &str = "application/x-ndjson";

pub(super) fn routes() -> Routes {
    let refused = || Says::new("Refused: there are no accounts here, and no cloud.");
    Routes::default()
        .get("/", "Ollama is running", Says::new("Whether it runs.").sends("text/plain"))
        .get("/api/version", version, Says::new("Which version it is.").answers::<Version>())
        .post(
            "/api/generate",
            generate::generate,
            Says::new("Continues a prompt; without one it loads or unloads the model.")
                .takes::<generate::Request>()
                .answers::<generate::Line<'_>>()
                .sends(NDJSON),
        )
        .post(
            "/api/chat",
            chat::chat,
            Says::new("Answers a conversation; without messages it loads or unloads the model.")
                .takes::<chat::Request>()
                .answers::<chat::Line<'_>>()
                .sends(NDJSON),
        )
        .post(
            "/api/embed",
            embed::embed,
            Says::new("Makes vectors of length 1 of texts.")
                .takes::<embed::Request>()
                .answers::<embed::Embeddings>(),
        )
        .post(
            "/api/embeddings",
            embed::embeddings,
            Says::new("Makes a vector of a text, of any length.")
                .takes::<embed::OldRequest>()
                .answers::<embed::Embedding>(),
        )
        .get("/api/tags", models::tags, Says::new("Models in the store.").answers::<models::Tags>())
        .get("/api/ps", models::ps, Says::new("Models in memory.").answers::<models::Loaded>())
        .post(
            "/api/show",
            models::show,
            Says::new("Facts about a model.")
                .takes::<models::ShowRequest>()
                .answers::<models::Shown>(),
        )
        .post(
            "/api/copy",
            models::copy,
            Says::new("Gives a model one more name.").takes::<models::Copy>().ends(200),
        )
        .delete(
            "/api/delete",
            models::delete,
            Says::new("Removes a model.").takes::<models::Named>().ends(200),
        )
        .post(
            "/api/create",
            create::create,
            Says::new("Makes a model of another or of files.")
                .takes::<create::Request>()
                .answers::<Status<'_>>()
                .sends(NDJSON),
        )
        .post(
            "/api/pull",
            transfer::pull,
            Says::new("Fetches a model.")
                .takes::<transfer::Request>()
                .answers::<Status<'_>>()
                .sends(NDJSON),
        )
        .post(
            "/api/push",
            transfer::push,
            Says::new("Sends a model to a registry.")
                .takes::<transfer::Request>()
                .answers::<Status<'_>>()
                .sends(NDJSON),
        )
        .merge(crate::http::blobs::routes("/api/blobs/{digest}"))
        .get("/api/status", cloud_status, Says::new("That there is no cloud.").answers::<Cloud>())
        .post("/api/me", no_account, refused())
        .post("/api/signout", no_account, refused())
        .delete("/api/user/keys/{key}", no_account, refused())
        .post("/api/experimental/web_search", no_account, refused())
        .post("/api/experimental/web_fetch", no_account, refused())
        .get("/api/experimental/model-recommendations", no_account, refused())
}

#[derive(Serialize, JsonSchema)]
struct Version {
    version: &'static str,
    hearth: &'static str,
}

#[derive(Serialize, JsonSchema)]
struct Cloud {
    cloud: CloudStatus,
}

#[derive(Serialize, JsonSchema)]
struct CloudStatus {
    disabled: bool,
    source: &'static str,
}

/// What is done.
#[derive(Serialize, JsonSchema)]
struct Status<'a> {
    status: &'a str,
}

async fn version() -> Response {
    let version = Version { version: OLLAMA_VERSION, hearth: env!("CARGO_PKG_VERSION") };
    super::json_response(StatusCode::OK, &version)
}

async fn cloud_status() -> Response {
    let cloud = CloudStatus { disabled: true, source: "hearth" };
    super::json_response(StatusCode::OK, &Cloud { cloud })
}

/// There is no account to sign in to: Hearth runs models on this machine and asks nobody else.
async fn no_account(body: Body) -> Failure {
    drain(body).await;
    Failure(no_cloud())
}

fn no_cloud() -> RpcError {
    let error = RpcError::new(ErrorKind::PermissionDenied, "Hearth has no cloud and no accounts");
    error.with_hint("everything runs on this machine")
}

/// Ollama sends on what is asked of models with such a tag.
fn is_of_the_cloud(model: &str) -> bool {
    model.rsplit_once(':').is_some_and(|(_, tag)| tag == "cloud" || tag.ends_with("-cloud"))
}

/// An error, as Ollama's clients read it.
pub(super) struct Failure(RpcError);

impl From<RpcError> for Failure {
    fn from(error: RpcError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        super::json_response(status_of(&self.0), &error_body(&self.0))
    }
}

#[derive(Serialize, JsonSchema)]
pub(super) struct ErrorBody {
    error: String,
}

pub(super) fn error_body(error: &RpcError) -> ErrorBody {
    ErrorBody { error: told(error) }
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
fn named(model: &str, mut error: RpcError) -> Failure {
    match error.kind() {
        Some(ErrorKind::ModelNotFound) if is_of_the_cloud(model) => error = no_cloud(),
        Some(ErrorKind::ModelNotFound) => error.message = format!("model '{model}' not found"),
        Some(ErrorKind::Overloaded) => {
            error.message.insert_str(0, "server busy, please try again.  ");
        }
        Some(ErrorKind::ContextOverflow) => {
            error.message.insert_str(0, "the input length exceeds the context length: ");
        }
        _ => {}
    }
    Failure(error)
}

/// A request's model, which must be there.
fn model_of(model: &str) -> Result<(), Failure> {
    if model.is_empty() {
        return Err(super::invalid("model is required").into());
    }
    Ok(())
}

/// Whoever asks a model for something wants to know if it cannot. `what` is how clients of Ollama know it.
async fn can(core: &Core, model: &str, capability: &str, what: &str) -> Result<(), Failure> {
    let params = ModelParams { model: model.into() };
    let shown = core
        .call::<ModelShow, _>(rpc::model_show, params)
        .await
        .map_err(|error| named(model, error))?;
    if shown.capabilities.iter().any(|can| can == capability) {
        return Ok(());
    }
    Err(super::invalid(format!("\"{model}\" does not support {what}")).into())
}

/// Clients look for these words too, where a model is for something else than it is asked for.
async fn unfit(
    core: &Core,
    model: &str,
    (capability, what): (&str, &str),
    error: RpcError,
) -> Failure {
    if error.kind() != Some(ErrorKind::Unsupported) {
        return named(model, error);
    }
    can(core, model, capability, what).await.err().unwrap_or_else(|| named(model, error))
}

/// One value of a stream.
fn write_line(value: &impl serde::Serialize, out: &mut Vec<u8>) {
    // Only a map with keys that are no texts could fail, and there is none.
    if serde_json::to_writer(&mut *out, value).is_ok() {
        out.push(b'\n');
    }
}
