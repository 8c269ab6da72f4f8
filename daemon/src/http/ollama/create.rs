//! `/api/create`

use super::{Answer, NDJSON, Status, error_body, model_of, named, read};
use crate::http::body::{self, Asked};
use crate::http::{Core, invalid, json_response, or_default};
use axum::body::Body;
use axum::http::StatusCode;
use hearth_protocol::{
    CreateFile, CreateParams, ImportMode, Message, ModelCreate, ProgressEvent, Role, RpcError,
    UploadedFile,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Deserialize, JsonSchema)]
pub(super) struct Request {
    #[serde(default, deserialize_with = "or_default")]
    model: String,
    /// What the field was called once.
    #[serde(default, deserialize_with = "or_default")]
    name: String,
    stream: Option<bool>,
    #[serde(default, deserialize_with = "or_default")]
    from: String,
    /// Digests by the files' names.
    #[serde(default, deserialize_with = "or_default")]
    files: Map<String, Value>,
    #[serde(default, deserialize_with = "or_default")]
    adapters: Map<String, Value>,
    template: Option<String>,
    system: Option<String>,
    license: Option<Value>,
    #[serde(default, deserialize_with = "or_default")]
    parameters: Map<String, Value>,
    #[serde(default, deserialize_with = "or_default")]
    messages: Vec<Said>,
    renderer: Option<String>,
    parser: Option<String>,
    requires: Option<String>,
    quantize: Option<String>,
    /// What the field was called once.
    quantization: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
struct Said {
    role: Role,
    #[serde(default)]
    content: String,
}

pub(super) async fn create(core: Core, body: Body) -> Answer {
    let Asked { value: request, held } = read::<Request>(&core, body).await?;
    let streams = request.stream.unwrap_or(true);
    let params = params(request)?;
    let model = params.model.clone();
    model_of(&model)?;
    if !streams {
        core.run::<ModelCreate>(params).await.map_err(|error| named(&model, error))?;
        return Ok(json_response(StatusCode::OK, &Status { status: "success" }));
    }
    let answering = body::begin(core.start::<ModelCreate>(params), held)
        .await
        .map_err(|error| named(&model, error))?;
    let mut stage = String::new();
    Ok(answering.stream(NDJSON, move |event, out| match event {
        ProgressEvent::Progress { stage: now, .. } => {
            // One line for each thing that is done: Ollama's clients print them below each other.
            if now != stage {
                super::write_line(&Status { status: &now }, out);
                stage = now;
            }
        }
        ProgressEvent::Done { .. } => super::write_line(&Status { status: "success" }, out),
        ProgressEvent::Error { error } => super::write_line(&error_body(&error), out),
        ProgressEvent::Accepted { .. } => {}
    }))
}

fn params(request: Request) -> Result<CreateParams, RpcError> {
    let text = |text: Option<String>| text.filter(|text| !text.is_empty());
    Ok(CreateParams {
        model: if request.model.is_empty() { request.name } else { request.model },
        from: text(Some(request.from)),
        files: uploaded(request.files)?,
        adapters: uploaded(request.adapters)?,
        draft: None,
        mode: ImportMode::default(),
        template: text(request.template),
        system: text(request.system),
        parameters: request.parameters,
        messages: request
            .messages
            .into_iter()
            .map(|said| Message::text(said.role, said.content))
            .collect(),
        licenses: licenses(request.license)?,
        renderer: text(request.renderer),
        parser: text(request.parser),
        requires: text(request.requires),
        quantize: text(request.quantize.or(request.quantization)),
        request: None,
    })
}

fn uploaded(files: Map<String, Value>) -> Result<Vec<CreateFile>, RpcError> {
    files
        .into_iter()
        .map(|(name, digest)| match digest {
            Value::String(digest) => Ok(CreateFile::Blob(UploadedFile { name, digest })),
            _ => Err(invalid(format!("the digest of `{name}` is no text"))),
        })
        .collect()
}

fn licenses(license: Option<Value>) -> Result<Vec<String>, RpcError> {
    let wrong = || invalid("license must be a text or an array of texts");
    match license {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(text)) => {
            Ok(Some(text).filter(|text| !text.is_empty()).into_iter().collect())
        }
        Some(Value::Array(texts)) => texts
            .into_iter()
            .map(|text| if let Value::String(text) = text { Ok(text) } else { Err(wrong()) })
            .collect(),
        Some(_) => Err(wrong()),
    }
}
