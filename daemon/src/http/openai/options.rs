//! What requests of both kinds say about how to answer.

use crate::http::{invalid, or_default};
use hearth_protocol::{Format, Options, RpcError};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// The fields that chat completions and completions share.
#[derive(Deserialize, JsonSchema)]
pub(super) struct Sampling {
    temperature: Option<f32>,
    top_p: Option<f32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    #[serde(default, deserialize_with = "or_default")]
    logit_bias: BTreeMap<String, f32>,
    seed: Option<i64>,
    n: Option<u32>,
    stop: Option<OneOrMany>,
    max_tokens: Option<i64>,
    max_completion_tokens: Option<i64>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) stream: bool,
    stream_options: Option<StreamOptions>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize, JsonSchema)]
struct StreamOptions {
    #[serde(default, deserialize_with = "or_default")]
    include_usage: bool,
}

impl Sampling {
    pub(super) fn counts(&self) -> bool {
        self.stream && self.stream_options.as_ref().is_some_and(|options| options.include_usage)
    }

    pub(super) fn options(self) -> Result<Options, RpcError> {
        let bias = |(token, bias): (String, f32)| {
            let token = token.parse().map_err(|_| {
                invalid(format!("`logit_bias` names `{token}`, which is no number of a token"))
            })?;
            Ok((token, bias))
        };
        // Some clients say -1 where they mean no limit.
        let limit = self.max_completion_tokens.or(self.max_tokens).filter(|limit| *limit >= 0);
        Ok(Options {
            temperature: Some(self.temperature.unwrap_or(1.0)),
            top_p: Some(self.top_p.unwrap_or(1.0)),
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            logit_bias: self.logit_bias.into_iter().map(bias).collect::<Result<_, RpcError>>()?,
            seed: self.seed.and_then(|seed| u64::try_from(seed).ok()),
            candidates: self.n,
            stop: match self.stop {
                None => Vec::new(),
                Some(OneOrMany::One(text)) => vec![text],
                Some(OneOrMany::Many(texts)) => texts,
            },
            max_tokens: limit.map(|limit| u32::try_from(limit).unwrap_or(u32::MAX)),
            ..Options::default()
        })
    }
}

/// A schema may also stand where llama-server has it.
#[derive(Deserialize, JsonSchema)]
pub(super) struct ResponseFormat {
    #[serde(rename = "type", default)]
    kind: String,
    schema: Option<Value>,
    json_schema: Option<NamedSchema>,
}

#[derive(Deserialize, JsonSchema)]
struct NamedSchema {
    schema: Option<Value>,
}

/// Every schema is kept to the letter, with `strict` and without.
pub(super) fn format(asked: Option<ResponseFormat>) -> Result<Option<Format>, RpcError> {
    let Some(asked) = asked else { return Ok(None) };
    let schema = asked.json_schema.and_then(|named| named.schema).or(asked.schema);
    match (asked.kind.as_str(), schema) {
        ("text", _) => Ok(None),
        ("json_object", None) => Ok(Some(Format::Json)),
        ("json_object" | "json_schema", Some(schema)) => Ok(Some(Format::JsonSchema(schema))),
        ("json_schema", None) => Err(invalid("`response_format.json_schema.schema` is missing")),
        (other, _) => Err(invalid(format!(
            "`response_format.type` is `{other}`, and must be `text`, `json_object` or `json_schema`"
        ))),
    }
}

/// Whether to think. An effort asks for it; how much is the model's own.
pub(super) fn think(effort: Option<&str>) -> Result<Option<bool>, RpcError> {
    match effort {
        None => Ok(None),
        Some("none") => Ok(Some(false)),
        Some("minimal" | "low" | "medium" | "high" | "xhigh" | "ultra" | "max") => Ok(Some(true)),
        Some(other) => Err(invalid(format!(
            "the reasoning effort is `{other}`, and must be `none`, `minimal`, `low`, `medium`, `high`, `xhigh`, `ultra` or `max`"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(value: Value) -> Result<Options, RpcError> {
        serde_json::from_value::<Sampling>(value).unwrap().options()
    }

    #[test]
    fn options_are_read_as_openai_names_them() {
        let options = of(json!({
            "seed": 7, "n": 2, "stop": "a", "logit_bias": { "5": -100 }, "max_tokens": 3,
            "max_completion_tokens": 4, "temperature": null, "user": "somebody", "store": true,
        }))
        .unwrap();
        assert_eq!((options.temperature, options.top_p), (Some(1.0), Some(1.0)));
        assert_eq!((options.seed, options.candidates), (Some(7), Some(2)));
        assert_eq!(options.logit_bias, [(5, -100.0)].into());
        assert_eq!((options.stop, options.max_tokens), (vec!["a".to_owned()], Some(4)));
        assert_eq!(of(json!({ "max_tokens": -1, "seed": -1 })).unwrap().max_tokens, None);
        assert_eq!(of(json!({ "stop": ["a", "b"] })).unwrap().stop, ["a", "b"]);
        let error = of(json!({ "logit_bias": { "hello": 1 } })).unwrap_err();
        assert!(error.message.contains("`hello`"), "{error}");
    }

    #[test]
    fn a_format_is_text_json_or_a_schema() {
        let of = |value| format(serde_json::from_value(value).unwrap());
        let schema = json!({ "type": "object" });
        assert_eq!(of(json!(null)).unwrap(), None);
        assert_eq!(of(json!({ "type": "text" })).unwrap(), None);
        assert_eq!(of(json!({ "type": "json_object" })).unwrap(), Some(Format::Json));
        for asked in [
            json!({ "type": "json_schema", "json_schema": { "name": "x", "strict": true, "schema": schema } }),
            json!({ "type": "json_object", "schema": schema }),
        ] {
            assert_eq!(of(asked).unwrap(), Some(Format::JsonSchema(schema.clone())));
        }
        assert!(of(json!({ "type": "json_schema", "json_schema": { "name": "x" } })).is_err());
        assert!(of(json!({ "type": "yaml" })).is_err());
    }

    #[test]
    fn an_effort_is_to_think_or_not() {
        assert_eq!(think(None).unwrap(), None);
        assert_eq!(think(Some("none")).unwrap(), Some(false));
        assert_eq!(think(Some("high")).unwrap(), Some(true));
        assert!(think(Some("some")).is_err());
    }
}
