//! What Ollama's requests say about how to answer: options, format, thinking, time to stay loaded.

use crate::config::duration_seconds;
use crate::http::invalid;
use hearth_protocol::{Format, KeepAlive, Options, RpcError};
use serde_json::{Map, Value};

/// Ollama cuts what does not fit, and goes on where the context is full, unless told not to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    pub(super) truncate: Option<bool>,
    pub(super) shift: Option<bool>,
}

pub(super) fn options(map: &Map<String, Value>, cut: Cut) -> Result<Options, RpcError> {
    let mut options = Options {
        truncate: Some(cut.truncate.unwrap_or(true)),
        shift: Some(cut.shift.unwrap_or(true)),
        ..Options::default()
    };
    for (key, value) in map.iter().filter(|(_, value)| !value.is_null()) {
        let whole = || whole(key, value);
        let real = || real(key, value);
        match key.as_str() {
            "num_ctx" => options.context = positive(whole()?),
            // Without one there is no limit, and so it is to Ollama with 0, which its own clients leave out.
            "num_predict" => options.max_tokens = positive(whole()?),
            "num_keep" => options.keep = positive(whole()?),
            "seed" => options.seed = u64::try_from(whole()?).ok(),
            "top_k" => options.top_k = Some(u32::try_from(whole()?.max(0)).unwrap_or(u32::MAX)),
            "repeat_last_n" => {
                // -1 is the whole context.
                options.repeat_last_n = Some(u32::try_from(whole()?).unwrap_or(u32::MAX));
            }
            "top_p" => options.top_p = Some(real()?),
            "min_p" => options.min_p = Some(real()?),
            "typical_p" => options.typical_p = Some(real()?),
            "temperature" => options.temperature = Some(real()?),
            "repeat_penalty" => options.repeat_penalty = Some(real()?),
            "presence_penalty" => options.presence_penalty = Some(real()?),
            "frequency_penalty" => options.frequency_penalty = Some(real()?),
            "mirostat" => options.mirostat = positive(whole()?),
            "mirostat_tau" => options.mirostat_tau = Some(real()?),
            "mirostat_eta" => options.mirostat_eta = Some(real()?),
            "stop" => options.stop = texts(key, value)?,
            // What is about loading is the daemon's to know, and what nobody knows is ignored as Ollama ignores it.
            _ => {}
        }
    }
    Ok(options)
}

fn positive(number: i64) -> Option<u32> {
    u32::try_from(number).ok().filter(|number| *number > 0)
}

/// Ollama takes any number for a whole one, and cuts it.
#[expect(clippy::cast_possible_truncation, reason = "a number beyond 64 bits becomes the largest")]
fn whole(key: &str, value: &Value) -> Result<i64, RpcError> {
    value
        .as_i64()
        .or_else(|| value.as_f64().map(|number| number as i64))
        .ok_or_else(|| invalid(format!("option \"{key}\" must be of type integer")))
}

#[expect(clippy::cast_possible_truncation, reason = "as precise as sampling is")]
fn real(key: &str, value: &Value) -> Result<f32, RpcError> {
    value
        .as_f64()
        .map(|number| number as f32)
        .ok_or_else(|| invalid(format!("option \"{key}\" must be of type float32")))
}

fn texts(key: &str, value: &Value) -> Result<Vec<String>, RpcError> {
    let wrong = || invalid(format!("option \"{key}\" must be of an array of strings"));
    match value {
        Value::String(text) => Ok(vec![text.clone()]),
        Value::Array(list) => {
            list.iter().map(|text| text.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
        }
        _ => Err(wrong()),
    }
}

/// A number is seconds, a text one of Go's durations; what is negative is for ever.
pub(super) fn keep_alive(value: Option<&Value>) -> Result<Option<KeepAlive>, RpcError> {
    let seconds = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => match text.strip_prefix('-') {
            Some(rest) => duration_seconds(rest).map(|seconds| -seconds),
            None => duration_seconds(text).or_else(|| text.parse().ok()),
        },
        Some(_) => None,
    };
    let wrong = || invalid("keep_alive must be seconds or a duration such as \"5m\"");
    seconds.map(|seconds| Some(KeepAlive(seconds))).ok_or_else(wrong)
}

pub(super) fn format(value: Option<Value>) -> Result<Option<Format>, RpcError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) if text == "json" => Ok(Some(Format::Json)),
        Some(schema @ Value::Object(_)) => Ok(Some(Format::JsonSchema(schema))),
        Some(other) => Err(invalid(format!(
            "invalid format: {other}; expected \"json\" or a valid JSON Schema object"
        ))),
    }
}

/// Whether to think. A level asks for it; how much is the model's own.
pub(super) fn think(value: Option<&Value>) -> Result<Option<bool>, RpcError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(think)) => Ok(Some(*think)),
        Some(Value::String(level))
            if matches!(level.as_str(), "low" | "medium" | "high" | "max") =>
        {
            Ok(Some(true))
        }
        Some(other) => Err(invalid(format!(
            "invalid think value: {other} (must be \"high\", \"medium\", \"low\", \"max\", true, or false)"
        ))),
    }
}

pub(super) fn logprobs(
    options: &mut Options,
    logprobs: bool,
    top: Option<i64>,
) -> Result<(), RpcError> {
    let top = u32::try_from(top.unwrap_or(0)).ok().filter(|top| *top <= 20);
    let top = top.ok_or_else(|| invalid("top_logprobs must be between 0 and 20"))?;
    if logprobs {
        options.logprobs = Some(true);
        options.top_logprobs = (top > 0).then_some(top);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const CUT: Cut = Cut { truncate: None, shift: None };

    fn of(value: Value) -> Result<Options, RpcError> {
        let Value::Object(map) = value else { panic!("{value}") };
        options(&map, CUT)
    }

    #[test]
    fn options_are_read_as_ollama_reads_them() {
        let options = of(json!({
            "num_ctx": 2048.0, "num_predict": -1, "seed": 7, "top_k": 0, "repeat_last_n": -1,
            "temperature": 0, "stop": ["a", "b"], "num_gpu": 99, "nonsense": {}, "top_p": null,
        }))
        .unwrap();
        assert_eq!(options.context, Some(2048));
        assert_eq!((options.max_tokens, options.seed, options.top_k), (None, Some(7), Some(0)));
        assert_eq!(options.repeat_last_n, Some(u32::MAX));
        assert_eq!((options.temperature, options.top_p), (Some(0.0), None));
        assert_eq!(options.stop, ["a", "b"]);
        assert_eq!((options.truncate, options.shift), (Some(true), Some(true)));
        for (key, message) in [
            ("num_ctx", "option \"num_ctx\" must be of type integer"),
            ("top_p", "option \"top_p\" must be of type float32"),
            ("stop", "option \"stop\" must be of an array of strings"),
        ] {
            assert_eq!(of(json!({ key: {} })).unwrap_err().message, message);
        }
    }

    #[test]
    fn times_to_stay_loaded_are_seconds_or_gos_durations() {
        for (value, seconds) in [
            (json!(0), 0.0),
            (json!(-1), -1.0),
            (json!(90), 90.0),
            (json!("10m"), 600.0),
            (json!("1h30m"), 5400.0),
            (json!("-1m"), -60.0),
        ] {
            assert_eq!(keep_alive(Some(&value)).unwrap(), Some(KeepAlive(seconds)), "{value}");
        }
        assert_eq!(keep_alive(Some(&Value::Null)).unwrap(), None);
        assert!(keep_alive(Some(&json!("soon"))).is_err());
        assert!(keep_alive(Some(&json!({}))).is_err());
    }

    #[test]
    fn a_format_is_json_a_schema_or_nothing() {
        assert_eq!(format(Some(json!(""))).unwrap(), None);
        assert_eq!(format(Some(json!("json"))).unwrap(), Some(Format::Json));
        assert!(matches!(format(Some(json!({}))).unwrap(), Some(Format::JsonSchema(_))));
        assert!(format(Some(json!("yaml"))).is_err());
        assert!(format(Some(json!([]))).is_err());
    }
}
