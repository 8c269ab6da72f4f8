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
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Deserialize, JsonSchema)]
pub(super) struct Request {
    #[serde(default, deserialize_with = "or_default")]
    model: String,
    input: Option<Texts>,
    #[serde(default, deserialize_with = "or_default")]
    encoding_format: Encoding,
    dimensions: Option<usize>,
}

#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    #[default]
    Float,
    Base64,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Embeddings {
    object: &'static str,
    data: Vec<Embedding>,
    model: String,
    usage: Cost,
}

#[derive(Serialize, JsonSchema)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Encoded,
}

#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum Encoded {
    Float(Vec<f32>),
    Base64(String),
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Cost {
    pub(super) prompt_tokens: u32,
    pub(super) total_tokens: u32,
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
    let data = reply.embeddings.into_iter().enumerate().map(|(index, embedding)| Embedding {
        object: "embedding",
        index,
        embedding: encoded(embedding, request.encoding_format),
    });
    let n_tokens = reply.usage.prompt_tokens;
    let body = Embeddings {
        object: "list",
        data: data.collect(),
        model,
        usage: Cost { prompt_tokens: n_tokens, total_tokens: n_tokens },
    };
    Ok(json_response(StatusCode::OK, &body))
}

fn encoded(embedding: Vec<f32>, encoding: Encoding) -> Encoded {
    match encoding {
        Encoding::Float => Encoded::Float(embedding),
        Encoding::Base64 => {
            let bytes: Vec<u8> = embedding.iter().flat_map(|x| x.to_le_bytes()).collect();
            Encoded::Base64(STANDARD.encode(bytes))
        }
    }
}
