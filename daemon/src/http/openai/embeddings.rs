//! `/v1/embeddings`

use super::texts::Texts;
use super::{Answer, model_of, read};
use crate::http::body::Asked;
use crate::http::{Core, invalid, json_response, or_default, shorten};
use axum::body::Body;
use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hearth_protocol::{Embed, EmbedInput, EmbedParams};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Request {
    #[serde(default, deserialize_with = "or_default")]
    model: String,
    input: Option<Texts>,
    #[serde(default, deserialize_with = "or_default")]
    encoding_format: Encoding,
    dimensions: Option<usize>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    #[default]
    Float,
    Base64,
}

pub(super) async fn embeddings(core: Core, body: Body) -> Answer {
    let Asked { value: request, held: _held } = read::<Request>(&core, body).await?;
    let model = request.model;
    model_of(&model)?;
    let input = request.input.ok_or_else(|| invalid("`input` is missing"))?;
    let texts = input.read(&core, &model, false).await?;
    let params = EmbedParams {
        model: model.clone(),
        input: EmbedInput::Many(texts),
        normalize: true,
        truncate: false,
        keep_alive: None,
    };
    let mut reply = core.run::<Embed>(params).await?;
    if let Some(dimensions) = request.dimensions {
        let length = reply.embeddings.first().map_or(0, Vec::len);
        if dimensions == 0 || dimensions > length {
            let message = format!("`dimensions` is {dimensions}, and must be from 1 to {length}");
            return Err(invalid(message).into());
        }
        reply.embeddings.iter_mut().for_each(|embedding| shorten(embedding, dimensions));
    }
    let data = reply.embeddings.iter().enumerate().map(|(index, embedding)| {
        let embedding = encoded(embedding, request.encoding_format);
        json!({ "object": "embedding", "index": index, "embedding": embedding })
    });
    let n_tokens = reply.usage.prompt_tokens;
    let body = json!({
        "object": "list",
        "data": data.collect::<Vec<_>>(),
        "model": model,
        "usage": { "prompt_tokens": n_tokens, "total_tokens": n_tokens },
    });
    Ok(json_response(StatusCode::OK, &body))
}

fn encoded(embedding: &[f32], encoding: Encoding) -> Value {
    match encoding {
        Encoding::Float => json!(embedding),
        Encoding::Base64 => {
            let bytes: Vec<u8> = embedding.iter().flat_map(|x| x.to_le_bytes()).collect();
            STANDARD.encode(bytes).into()
        }
    }
}
