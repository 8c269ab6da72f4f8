//! `/v1/rerank`, as Jina's and Cohere's clients and llama-server have it.

use super::embeddings::Cost;
use super::{Answer, model_of, read};
use crate::http::body::Asked;
use crate::http::{Core, invalid, json_response, or_default};
use axum::body::Body;
use axum::http::StatusCode;
use hearth_protocol::{Rerank, RerankParams};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Deserialize, JsonSchema)]
pub(super) struct Request {
    #[serde(default, deserialize_with = "or_default")]
    model: String,
    query: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    documents: Vec<Document>,
    top_n: Option<usize>,
    #[serde(default, deserialize_with = "or_default")]
    return_documents: bool,
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged, expecting = "neither a string nor an object with a `text`")]
enum Document {
    Plain(String),
    Object { text: String },
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Ranked {
    model: String,
    object: &'static str,
    usage: Cost,
    /// The best first.
    results: Vec<Place>,
}

#[derive(Serialize, JsonSchema)]
struct Place {
    index: usize,
    relevance_score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Text>,
}

#[derive(Serialize, JsonSchema)]
struct Text {
    text: String,
}

pub(super) async fn rerank(core: Core, body: Body) -> Answer {
    let Asked { value: request, held: _held } = read::<Request>(&core, body).await?;
    model_of(&request.model)?;
    let query = request.query.ok_or_else(|| invalid("`query` is missing"))?;
    if request.documents.is_empty() {
        return Err(invalid("`documents` has no text").into());
    }
    let text = |document| match document {
        Document::Plain(text) | Document::Object { text } => text,
    };
    let documents: Vec<String> = request.documents.into_iter().map(text).collect();
    let model = request.model;
    let params = RerankParams {
        model: model.clone(),
        query,
        documents: documents.clone(),
        keep_alive: None,
    };
    let reply = core.run::<Rerank>(params).await?;
    let mut results: Vec<Place> = (0..)
        .zip(reply.scores.into_iter().zip(documents))
        .map(|(index, (relevance_score, text))| Place {
            index,
            relevance_score,
            document: request.return_documents.then_some(Text { text }),
        })
        .collect();
    results.sort_by(|a, b| b.relevance_score.total_cmp(&a.relevance_score));
    results.truncate(request.top_n.unwrap_or(usize::MAX));
    let n_tokens = reply.usage.prompt_tokens;
    let usage = Cost { prompt_tokens: n_tokens, total_tokens: n_tokens };
    Ok(json_response(StatusCode::OK, &Ranked { model, object: "list", usage, results }))
}
