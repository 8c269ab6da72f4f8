//! `/tokenize` and `/detokenize`, as llama-server has them, with the name of a model.

use super::{Answer, model_of, read};
use crate::http::body::Asked;
use crate::http::{Core, json_response, or_default};
use axum::body::Body;
use axum::http::StatusCode;
use hearth_protocol::{Detokenize, DetokenizeParams, Tokenize, TokenizeParams};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Deserialize, JsonSchema)]
pub(super) struct ToTokens {
    #[serde(default, deserialize_with = "or_default")]
    model: String,
    #[serde(default)]
    content: Content,
    #[serde(default, deserialize_with = "or_default")]
    add_special: bool,
    parse_special: Option<bool>,
    #[serde(default, deserialize_with = "or_default")]
    with_pieces: bool,
}

/// A text, or texts and tokens in any order.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "neither a string nor an array of strings and tokens")]
enum Content {
    #[default]
    Nothing,
    Text(String),
    Mixed(Vec<Part>),
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum Part {
    Text(String),
    Token(i32),
}

#[derive(Default, Serialize, JsonSchema)]
pub(super) struct Tokens {
    tokens: Vec<Token>,
}

#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum Token {
    Plain(i32),
    WithPiece { id: i32, piece: Piece },
}

/// Bytes where they are no whole characters.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum Piece {
    Text(String),
    Bytes(Vec<u8>),
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct ToText {
    #[serde(default, deserialize_with = "or_default")]
    model: String,
    #[serde(default, deserialize_with = "or_default")]
    tokens: Vec<i32>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Text {
    content: String,
}

pub(super) async fn tokenize(core: Core, body: Body) -> Answer {
    let Asked { value: request, held: _held } = read::<ToTokens>(&core, body).await?;
    model_of(&request.model)?;
    let parts = match request.content {
        Content::Nothing => Vec::new(),
        Content::Text(text) => vec![Part::Text(text)],
        Content::Mixed(parts) => parts,
    };
    let mut all = Tokens::default();
    for (at, part) in parts.into_iter().enumerate() {
        let text = match part {
            Part::Text(text) => text,
            Part::Token(id) => {
                let params = DetokenizeParams {
                    model: request.model.clone(),
                    tokens: vec![id],
                    special: true,
                };
                let piece = core.run::<Detokenize>(params).await?.text;
                all.tokens.push(if request.with_pieces {
                    Token::WithPiece { id, piece: Piece::Text(piece) }
                } else {
                    Token::Plain(id)
                });
                continue;
            }
        };
        let params = TokenizeParams {
            model: request.model.clone(),
            text,
            // What belongs around a text belongs around all of it.
            add_special: request.add_special && at == 0,
            parse_special: request.parse_special.unwrap_or(true),
            pieces: request.with_pieces,
        };
        let reply = core.run::<Tokenize>(params).await?;
        if request.with_pieces {
            let pairs = reply.tokens.into_iter().zip(reply.pieces);
            all.tokens
                .extend(pairs.map(|(id, piece)| Token::WithPiece { id, piece: piece.into() }));
        } else {
            all.tokens.extend(reply.tokens.into_iter().map(Token::Plain));
        }
    }
    Ok(json_response(StatusCode::OK, &all))
}

impl From<Vec<u8>> for Piece {
    fn from(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) => Self::Text(text),
            Err(error) => Self::Bytes(error.into_bytes()),
        }
    }
}

pub(super) async fn detokenize(core: Core, body: Body) -> Answer {
    let Asked { value: request, held: _held } = read::<ToText>(&core, body).await?;
    model_of(&request.model)?;
    let params = DetokenizeParams { model: request.model, tokens: request.tokens, special: true };
    let content = core.run::<Detokenize>(params).await?.text;
    Ok(json_response(StatusCode::OK, &Text { content }))
}
