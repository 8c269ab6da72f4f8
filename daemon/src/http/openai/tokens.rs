//! `/tokenize` and `/detokenize`, as llama-server has them, with the name of a model.

use super::{Answer, model_of, read};
use crate::http::body::Asked;
use crate::http::{Core, json_response, or_default};
use axum::body::Body;
use axum::http::StatusCode;
use hearth_protocol::{
    Detokenize, DetokenizeParams, ErrorKind, RpcError, Tokenize, TokenizeParams,
};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct ToTokens {
    #[serde(default, deserialize_with = "or_default")]
    model: String,
    #[serde(default, deserialize_with = "or_default")]
    content: String,
    #[serde(default, deserialize_with = "or_default")]
    add_special: bool,
    parse_special: Option<bool>,
    #[serde(default, deserialize_with = "or_default")]
    with_pieces: bool,
}

#[derive(Deserialize)]
struct ToText {
    #[serde(default, deserialize_with = "or_default")]
    model: String,
    #[serde(default, deserialize_with = "or_default")]
    tokens: Vec<i32>,
}

pub(super) async fn tokenize(core: Core, body: Body) -> Answer {
    let Asked { value: request, held: _held } = read::<ToTokens>(&core, body).await?;
    model_of(&request.model)?;
    if request.with_pieces {
        let error = RpcError::new(ErrorKind::Unsupported, "`with_pieces` is not there yet");
        return Err(error.with_hint("ask `/detokenize` for a token's text").into());
    }
    let params = TokenizeParams {
        model: request.model,
        text: request.content,
        add_special: request.add_special,
        parse_special: request.parse_special.unwrap_or(true),
    };
    let reply = core.run::<Tokenize>(params).await?;
    Ok(json_response(StatusCode::OK, &json!({ "tokens": reply.tokens })))
}

pub(super) async fn detokenize(core: Core, body: Body) -> Answer {
    let Asked { value: request, held: _held } = read::<ToText>(&core, body).await?;
    model_of(&request.model)?;
    let params = DetokenizeParams { model: request.model, tokens: request.tokens, special: true };
    let reply = core.run::<Detokenize>(params).await?;
    Ok(json_response(StatusCode::OK, &json!({ "content": reply.text })))
}
