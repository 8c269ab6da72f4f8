//! Models in the store and in memory: `/api/tags`, `ps`, `show`, `copy`, `delete`.

use super::{Answer, model_of, named, read};
use crate::http::body::Asked;
use crate::http::{Core, is_zero, json_response, or_default};
use crate::rpc;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use hearth_protocol::{
    CopyParams, Empty, Message, ModelCopy, ModelDelete, ModelDetails, ModelHeaderMethod,
    ModelListMethod, ModelParams, ModelPs, ModelShow, ModelSummary, TensorFacts,
};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

#[derive(Deserialize, JsonSchema)]
pub(super) struct Named {
    #[serde(default, deserialize_with = "or_default")]
    model: String,
    /// What the field was called once.
    #[serde(default, deserialize_with = "or_default")]
    name: String,
}

impl Named {
    fn model(self) -> String {
        if self.model.is_empty() { self.name } else { self.model }
    }
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct ShowRequest {
    #[serde(flatten)]
    named: Named,
    /// Shown instead of the model's own.
    system: Option<String>,
    template: Option<String>,
    /// With arrays, which are long, and every tensor.
    #[serde(default, deserialize_with = "or_default")]
    verbose: bool,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Copy {
    #[serde(default, deserialize_with = "or_default")]
    source: String,
    #[serde(default, deserialize_with = "or_default")]
    destination: String,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Tags {
    models: Vec<Listed>,
}

#[derive(Serialize, JsonSchema)]
struct Listed {
    name: String,
    model: String,
    modified_at: String,
    size: u64,
    digest: String,
    details: Details,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    capabilities: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
struct Details {
    parent_model: &'static str,
    format: &'static str,
    family: String,
    families: Vec<String>,
    parameter_size: String,
    quantization_level: String,
    #[serde(skip_serializing_if = "is_zero")]
    context_length: u64,
    #[serde(skip_serializing_if = "is_zero")]
    embedding_length: u64,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Loaded {
    models: Vec<LoadedModel>,
}

#[derive(Serialize, JsonSchema)]
struct LoadedModel {
    name: String,
    model: String,
    size: u64,
    digest: String,
    details: Details,
    expires_at: String,
    size_vram: u64,
    context_length: u32,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Shown {
    license: String,
    modelfile: String,
    parameters: String,
    template: String,
    system: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    renderer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parser: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requires: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    messages: Vec<Message>,
    details: Details,
    model_info: Map<String, Value>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    projector_info: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tensors: Option<Vec<TensorFacts>>,
    capabilities: Vec<String>,
    modified_at: String,
}

pub(super) async fn tags(core: Core) -> Answer {
    let list = core.call::<ModelListMethod, _>(rpc::model_list, Empty {}).await?;
    let capabilities = rpc::capabilities_of(&core.daemon, &list.models).await?;
    let models = list
        .models
        .iter()
        .map(|model| listed(model, capabilities.get(&model.id).cloned().unwrap_or_default()))
        .collect();
    Ok(json_response(StatusCode::OK, &Tags { models }))
}

fn listed(model: &ModelSummary, capabilities: Vec<String>) -> Listed {
    Listed {
        name: tagged(&model.name),
        model: tagged(&model.name),
        modified_at: time(model.modified_s),
        size: model.size_bytes,
        digest: model.id.clone(),
        details: details(model),
        capabilities,
    }
}

/// Ollama's names always have a tag.
fn tagged(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains(':') { name.to_owned() } else { format!("{name}:latest") }
}

fn details(model: &ModelSummary) -> Details {
    Details {
        parent_model: "",
        format: "gguf",
        family: model.family.clone(),
        families: Some(model.family.clone()).filter(|name| !name.is_empty()).into_iter().collect(),
        parameter_size: model.parameter_size.clone(),
        quantization_level: model.quantization.clone(),
        context_length: 0,
        embedding_length: 0,
    }
}

fn time(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).unwrap_or_default().to_string()
}

pub(super) async fn ps(core: Core) -> Answer {
    let running = core.call::<ModelPs, _>(rpc::model_ps, Empty {}).await?.models;
    let known = core.call::<ModelListMethod, _>(rpc::model_list, Empty {}).await?.models;
    let mut models = Vec::new();
    for model in running {
        let Some(summary) = known.iter().find(|known| known.id == model.id) else { continue };
        let left = model.expires_s.filter(|seconds| *seconds < 3.2e9);
        let until = left.and_then(|seconds| {
            Timestamp::now().checked_add(std::time::Duration::from_secs_f64(seconds)).ok()
        });
        let entry = LoadedModel {
            name: tagged(&model.name),
            model: tagged(&model.name),
            size: model.rss_bytes,
            digest: model.id,
            details: details(summary),
            // One that stays for ever is said to stay until a year that Ollama's clients show as such.
            expires_at: until
                .map_or_else(|| "2318-01-01T00:00:00Z".to_owned(), |until| until.to_string()),
            size_vram: 0,
            context_length: model.context,
        };
        models.push((left.unwrap_or(f64::INFINITY), entry));
    }
    models.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let models = models.into_iter().map(|(_, entry)| entry).collect();
    Ok(json_response(StatusCode::OK, &Loaded { models }))
}

pub(super) async fn show(core: Core, body: Body) -> Answer {
    let Asked { value: request, held: _held } = read::<ShowRequest>(&core, body).await?;
    let model = request.named.model();
    model_of(&model)?;
    let params = ModelParams { model: model.clone() };
    let failed = |error| named(&model, error);
    let mut shown =
        core.call::<ModelShow, _>(rpc::model_show, params.clone()).await.map_err(failed)?;
    let mut tensors = None;
    if request.verbose {
        let header = core.call::<ModelHeaderMethod, _>(rpc::model_header, params).await;
        let header = header.map_err(failed)?;
        (shown.metadata, tensors) = (header.metadata, Some(header.tensors));
    }
    shown.system = request.system.filter(|text| !text.is_empty()).or(shown.system);
    shown.template = request.template.filter(|text| !text.is_empty()).or(shown.template);
    Ok(json_response(StatusCode::OK, &described(shown, tensors)))
}

fn described(shown: ModelDetails, tensors: Option<Vec<TensorFacts>>) -> Shown {
    let parameters: Vec<_> =
        shown.options.iter().flat_map(|(name, value)| lines(name, value)).collect();
    let mut model_info = facts(shown.metadata);
    model_info.insert("general.parameter_count".into(), shown.parameters.into());
    Shown {
        license: shown.licenses.join("\n"),
        modelfile: shown.modelfile,
        parameters: parameters.join("\n"),
        template: shown.template.or(shown.chat_template).unwrap_or_default(),
        system: shown.system.unwrap_or_default(),
        renderer: shown.renderer,
        parser: shown.parser,
        requires: shown.requires,
        messages: shown.messages,
        details: Details {
            context_length: shown.context_length,
            embedding_length: shown.embedding_length,
            ..details(&shown.summary)
        },
        model_info,
        projector_info: facts(shown.projector_metadata),
        tensors,
        capabilities: shown.capabilities,
        modified_at: time(shown.summary.modified_s),
    }
}

/// With nothing in arrays that were not read.
fn facts(metadata: Vec<(String, Value)>) -> Map<String, Value> {
    let mut facts: Map<_, _> = metadata.into_iter().collect();
    for value in facts.values_mut().filter(|value| value["length"].is_u64()) {
        *value = Value::Array(Vec::new());
    }
    facts
}

/// As in a Modelfile, a line for each value.
fn lines(name: &str, value: &str) -> Vec<String> {
    let values = match value.parse::<Value>() {
        Ok(Value::Array(values)) => values.iter().map(ToString::to_string).collect(),
        _ => vec![value.to_owned()],
    };
    values.iter().map(|value| format!("{name:<30} {value}")).collect()
}

pub(super) async fn copy(core: Core, body: Body) -> Answer {
    let Asked { value: Copy { source, destination }, held: _held } = read(&core, body).await?;
    let params = CopyParams { from: source.clone(), to: destination, request: None };
    core.run::<ModelCopy>(params).await.map_err(|error| named(&source, error))?;
    Ok(Response::default())
}

pub(super) async fn delete(core: Core, body: Body) -> Answer {
    let Asked { value, held: _held } = read::<Named>(&core, body).await?;
    let model = value.model();
    model_of(&model)?;
    let params = ModelParams { model: model.clone() };
    core.call::<ModelDelete, _>(rpc::model_delete, params)
        .await
        .map_err(|error| named(&model, error))?;
    Ok(Response::default())
}
