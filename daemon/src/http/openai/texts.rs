//! Texts, or the tokens that they are.

use crate::http::{Core, invalid};
use hearth_protocol::{Detokenize, DetokenizeParams, RpcError};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
#[serde(untagged, expecting = "neither a string, nor tokens, nor an array of one of these")]
pub(super) enum Texts {
    One(String),
    Many(Vec<String>),
    Tokens(Vec<i32>),
    ManyTokens(Vec<Vec<i32>>),
}

impl Texts {
    pub(super) fn are_tokens(&self) -> bool {
        matches!(self, Self::Tokens(_) | Self::ManyTokens(_))
    }

    /// The texts themselves; at least one. `special` spells out control tokens.
    pub(super) async fn read(
        self,
        core: &Core,
        model: &str,
        special: bool,
    ) -> Result<Vec<String>, RpcError> {
        let lists = match self {
            Self::One(text) => return Ok(vec![text]),
            Self::Many(texts) if texts.is_empty() => return Err(invalid("there is no text")),
            Self::Many(texts) => return Ok(texts),
            Self::Tokens(tokens) => vec![tokens],
            Self::ManyTokens(lists) => lists,
        };
        let mut texts = Vec::new();
        for tokens in lists {
            let params = DetokenizeParams { model: model.into(), tokens, special };
            texts.push(core.run::<Detokenize>(params).await?.text);
        }
        Ok(texts)
    }
}
