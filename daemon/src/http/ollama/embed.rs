//! `/api/embed`, and `/api/embeddings` as it was before.

use super::metrics::nanoseconds;
use super::options::keep_alive;
use super::{Answer, load, model_of, named, read};
use crate::http::body::Asked;
use crate::http::{Core, invalid, is_zero, json_response, or_default};
use axum::body::Body;
use axum::http::StatusCode;
use hearth_protocol::{Embed, EmbedInput, EmbedParams};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Instant;

#[derive(Deserialize, JsonSchema)]
pub(super) struct Request {
    #[serde(default, deserialize_with = "or_default")]
    model: String,
    input: Option<Value>,
    dimensions: Option<usize>,
    truncate: Option<bool>,
    keep_alive: Option<Value>,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct OldRequest {
    #[serde(default, deserialize_with = "or_default")]
    model: String,
    #[serde(default, deserialize_with = "or_default")]
    prompt: String,
    keep_alive: Option<Value>,
}

#[derive(Default, Serialize, JsonSchema)]
pub(super) struct Embeddings {
    model: String,
    embeddings: Vec<Vec<f32>>,
    #[serde(skip_serializing_if = "is_zero")]
    total_duration: u64,
    #[serde(skip_serializing_if = "is_zero")]
    load_duration: u64,
    #[serde(skip_serializing_if = "is_zero")]
    prompt_eval_count: u32,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Embedding {
    embedding: Vec<f32>,
}

pub(super) async fn embed(core: Core, body: Body) -> Answer {
    let since = Instant::now();
    let Asked { value: request, held: _held } = read::<Request>(&core, body).await?;
    let model = request.model;
    model_of(&model)?;
    let keep_alive = keep_alive(request.keep_alive.as_ref())?;
    let texts = match request.input {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(text)) if text.is_empty() => Vec::new(),
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(list)) => list
            .into_iter()
            .map(|text| match text {
                Value::String(text) => Ok(text),
                _ => Err(invalid("invalid input type")),
            })
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(invalid("invalid input type").into()),
    };
    if texts.is_empty() {
        load::load(&core, &model, keep_alive, ("embeddings", json!([]))).await?;
        let nothing = Embeddings { model, ..Embeddings::default() };
        return Ok(json_response(StatusCode::OK, &nothing));
    }
    let params = EmbedParams {
        model: model.clone(),
        input: EmbedInput::Many(texts),
        normalize: true,
        truncate: request.truncate.unwrap_or(true),
        keep_alive,
    };
    let mut reply = core.run::<Embed>(params).await.map_err(|error| named(&model, error))?;
    if let Some(dimensions) = request.dimensions.filter(|dimensions| *dimensions > 0) {
        for embedding in &mut reply.embeddings {
            crate::http::shorten(embedding, dimensions);
        }
    }
    let body = Embeddings {
        model,
        embeddings: reply.embeddings,
        total_duration: nanoseconds(since.elapsed()),
        load_duration: 1,
        prompt_eval_count: reply.usage.prompt_tokens,
    };
    Ok(json_response(StatusCode::OK, &body))
}

pub(super) async fn embeddings(core: Core, body: Body) -> Answer {
    let Asked { value: request, held: _held } = read::<OldRequest>(&core, body).await?;
    let model = request.model;
    model_of(&model)?;
    let keep_alive = keep_alive(request.keep_alive.as_ref())?;
    if request.prompt.is_empty() {
        load::load(&core, &model, keep_alive, ("embedding", json!([]))).await?;
        return Ok(json_response(StatusCode::OK, &Embedding { embedding: Vec::new() }));
    }
    let params = EmbedParams {
        model: model.clone(),
        input: EmbedInput::One(request.prompt),
        normalize: false,
        truncate: true,
        keep_alive,
    };
    let reply = core.run::<Embed>(params).await.map_err(|error| named(&model, error))?;
    let embedding = reply.embeddings.into_iter().next().unwrap_or_default();
    Ok(json_response(StatusCode::OK, &Embedding { embedding }))
}
