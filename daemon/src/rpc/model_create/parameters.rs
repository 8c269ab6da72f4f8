//! A model's own options, by Ollama's names and with Ollama's types.
//!
//! Those that only Hearth has are kept beside them; Ollama passes over what it does not know.

use super::invalid;
use crate::nearest::nearest;
use hearth_protocol::RpcError;
use serde_json::{Map, Number, Value};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Whole,
    Decimal,
    Switch,
    Texts,
}

use Kind::{Decimal, Switch, Texts, Whole};

const KINDS: [(&str, Kind); 39] = [
    ("draft_num_predict", Whole),
    ("dry_allowed_length", Whole),
    ("dry_base", Decimal),
    ("dry_multiplier", Decimal),
    ("dry_penalty_last_n", Whole),
    ("dynatemp_exponent", Decimal),
    ("dynatemp_range", Decimal),
    ("f16_kv", Switch),
    ("frequency_penalty", Decimal),
    ("logits_all", Switch),
    ("low_vram", Switch),
    ("main_gpu", Whole),
    ("min_keep", Whole),
    ("min_p", Decimal),
    ("mirostat", Whole),
    ("mirostat_eta", Decimal),
    ("mirostat_tau", Decimal),
    ("num_batch", Whole),
    ("num_ctx", Whole),
    ("num_gpu", Whole),
    ("num_keep", Whole),
    ("num_predict", Whole),
    ("num_thread", Whole),
    ("penalize_newline", Switch),
    ("presence_penalty", Decimal),
    ("repeat_last_n", Whole),
    ("repeat_penalty", Decimal),
    ("seed", Whole),
    ("stop", Texts),
    ("temperature", Decimal),
    ("top_k", Whole),
    ("top_n_sigma", Decimal),
    ("top_p", Decimal),
    ("typical_p", Decimal),
    ("use_mlock", Switch),
    ("use_mmap", Switch),
    ("vocab_only", Switch),
    ("xtc_probability", Decimal),
    ("xtc_threshold", Decimal),
];

/// The same with their types, or what is wrong with one.
pub(super) fn read(given: &Map<String, Value>) -> Result<Map<String, Value>, RpcError> {
    let mut read = Map::new();
    for (name, value) in given {
        let Some((_, kind)) = KINDS.iter().find(|(known, _)| known == name) else {
            let hint = match nearest(name, KINDS.iter().map(|(known, _)| *known)) {
                Some(nearest) => format!("did you mean `{nearest}`?"),
                None => "parameters have Ollama's names, such as `temperature`".to_owned(),
            };
            return Err(invalid(format!("unknown parameter `{name}`"), hint));
        };
        let Some(value) = kind.read(value) else {
            let what = match kind {
                Whole => "a whole number",
                Decimal => "a number",
                Switch => "`true` or `false`",
                Texts => "a text, or several",
            };
            let message = format!("the parameter `{name}` must be {what}, and is {value}");
            return Err(invalid(message, "a parameter that is left out takes its default"));
        };
        read.insert(name.clone(), value);
    }
    Ok(read)
}

impl Kind {
    fn read(self, value: &Value) -> Option<Value> {
        match (self, value) {
            (Texts, Value::String(_)) => Some(Value::Array(vec![value.clone()])),
            (Texts, Value::Array(texts)) => {
                texts.iter().all(Value::is_string).then(|| value.clone())
            }
            (Texts, _) => None,
            (Switch, Value::Bool(_)) => Some(value.clone()),
            (Switch, Value::String(text)) => text.parse().ok().map(Value::Bool),
            (Whole, Value::Number(number)) => whole(number.as_f64()?),
            (Whole, Value::String(text)) => text.parse().ok().map(|n: i64| n.into()),
            (Decimal, Value::Number(number)) => decimal(number.as_f64()?),
            (Decimal, Value::String(text)) => decimal(text.parse().ok()?),
            _ => None,
        }
    }
}

/// JSON has one kind of number, and some programs write all with a point.
fn whole(number: f64) -> Option<Value> {
    // Up to where every whole number is one of these.
    const MAX: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, reason = "checked")]
    (number.fract() == 0.0 && number.abs() <= MAX).then(|| (number as i64).into())
}

/// As Go writes them: without a point where there is nothing behind it.
fn decimal(number: f64) -> Option<Value> {
    whole(number).or_else(|| Number::from_f64(number).map(Value::Number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(given: Value) -> Result<Value, RpcError> {
        let Value::Object(given) = given else { panic!("{given}") };
        read(&given).map(Value::Object)
    }

    #[test]
    fn texts_become_what_the_parameter_is() {
        let given = json!({
            "temperature": "0.7", "repeat_penalty": "1.0", "num_ctx": "4096", "seed": -1.0, "top_k": 40,
            "stop": "<|end|>", "use_mmap": "false", "low_vram": true
        });
        let expected = json!({
            "temperature": 0.7, "repeat_penalty": 1, "num_ctx": 4096, "seed": -1, "top_k": 40,
            "stop": ["<|end|>"], "use_mmap": false, "low_vram": true
        });
        assert_eq!(of(given).unwrap(), expected);
        assert_eq!(of(json!({ "stop": ["a", "b"] })).unwrap(), json!({ "stop": ["a", "b"] }));
    }

    #[test]
    fn what_is_wrong_is_named_with_what_was_meant() {
        for (given, message) in [
            (json!({ "num_ctx": "4k" }), "`num_ctx` must be a whole number, and is \"4k\""),
            (json!({ "num_ctx": 0.5 }), "`num_ctx` must be a whole number, and is 0.5"),
            (json!({ "top_p": "nan" }), "`top_p` must be a number"),
            (json!({ "top_p": true }), "`top_p` must be a number"),
            (json!({ "use_mmap": "on" }), "`use_mmap` must be `true` or `false`"),
            (json!({ "stop": [1] }), "`stop` must be a text, or several"),
        ] {
            let error = of(given).unwrap_err();
            assert!(error.message.contains(message), "{error:?}");
        }
        let error = of(json!({ "temprature": 1 })).unwrap_err();
        assert_eq!(error.message, "unknown parameter `temprature`");
        assert_eq!(error.hint(), Some("did you mean `temperature`?"));
        let hint = of(json!({ "something": 1 })).unwrap_err().hint().unwrap().to_owned();
        assert!(!hint.contains("did you mean"), "{hint}");
    }
}
