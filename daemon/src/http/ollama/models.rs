//! Models in the store and in memory: `/api/tags`, `ps`, `show`, `copy`, `delete`.

use super::{Answer, model_of, named, read};
use crate::http::body::Asked;
use crate::http::{Core, json_response, or_default};
use crate::rpc;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use hearth_protocol::{
    CopyParams, Empty, ModelCopy, ModelDelete, ModelDetails, ModelListMethod, ModelParams, ModelPs,
    ModelShow, ModelSummary,
};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
struct Named {
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

#[derive(Deserialize)]
struct Copy {
    #[serde(default, deserialize_with = "or_default")]
    source: String,
    #[serde(default, deserialize_with = "or_default")]
    destination: String,
}

pub(super) async fn tags(core: Core) -> Answer {
    let list = core.call::<ModelListMethod, _>(rpc::model_list, Empty {}).await?;
    let models: Vec<_> = list.models.iter().map(listed).collect();
    Ok(json_response(StatusCode::OK, &json!({ "models": models })))
}

fn listed(model: &ModelSummary) -> Value {
    json!({
        "name": tagged(&model.name),
        "model": tagged(&model.name),
        "modified_at": time(model.modified_s),
        "size": model.size_bytes,
        "digest": model.id,
        "details": details(model),
    })
}

/// Ollama's names always have a tag.
fn tagged(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains(':') { name.to_owned() } else { format!("{name}:latest") }
}

fn details(model: &ModelSummary) -> Value {
    let families: Vec<_> =
        Some(&model.family).filter(|family| !family.is_empty()).into_iter().collect();
    json!({
        "parent_model": "",
        "format": "gguf",
        "family": model.family,
        "families": families,
        "parameter_size": model.parameter_size,
        "quantization_level": model.quantization,
    })
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
        let entry = json!({
            "name": tagged(&model.name),
            "model": tagged(&model.name),
            "size": model.rss_bytes,
            "digest": model.id,
            "details": details(summary),
            // One that stays for ever is said to stay until a year that Ollama's clients show as such.
            "expires_at": until.map_or_else(|| "2318-01-01T00:00:00Z".to_owned(), |until| until.to_string()),
            "size_vram": 0,
            "context_length": model.context,
        });
        models.push((left.unwrap_or(f64::INFINITY), entry));
    }
    models.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let models: Vec<_> = models.into_iter().map(|(_, entry)| entry).collect();
    Ok(json_response(StatusCode::OK, &json!({ "models": models })))
}

pub(super) async fn show(core: Core, body: Body) -> Answer {
    let Asked { value, held: _held } = read::<Named>(&core, body).await?;
    let model = value.model();
    model_of(&model)?;
    let shown = core
        .call::<ModelShow, _>(rpc::model_show, ModelParams { model: model.clone() })
        .await
        .map_err(|error| named(&model, error))?;
    Ok(json_response(StatusCode::OK, &described(shown)))
}

fn described(shown: ModelDetails) -> Value {
    let parameters: Vec<_> =
        shown.options.iter().flat_map(|(name, value)| lines(name, value)).collect();
    let mut info = Map::new();
    for (key, value) in shown.metadata {
        // Texts stand as they are; everything else was a number or a truth in the file.
        let typed = value.parse::<Value>().ok().filter(|typed| !typed.is_string());
        info.insert(key, typed.unwrap_or_else(|| value.into()));
    }
    info.insert("general.parameter_count".into(), shown.parameters.into());
    json!({
        "license": shown.licenses.join("\n"),
        "modelfile": shown.modelfile,
        "parameters": parameters.join("\n"),
        "template": shown.template.or(shown.chat_template).unwrap_or_default(),
        "system": shown.system.unwrap_or_default(),
        "details": details(&shown.summary),
        "model_info": info,
        "capabilities": shown.capabilities,
        "modified_at": time(shown.summary.modified_s),
    })
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
