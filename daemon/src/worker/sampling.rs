//! From a request's options to the engine's sampling, with every number inside its range.

use hearth_abi::host::Model;
use hearth_engine::{Breakers, Dry, Mirostat, MirostatVersion, Sampling};
use hearth_protocol::{ErrorKind, Options, RpcError};
use std::fmt::Display;
use std::sync::Arc;

/// What llama.cpp takes for ends of repetitions.
const BREAKERS: [&str; 4] = ["\n", ":", "\"", "*"];
/// Each is looked for at every token.
const MOST_BREAKERS: usize = 64;
/// In bytes.
const LONGEST_BREAKER: usize = 64;
/// Each costs time at every token.
const MOST_BIASES: usize = 1024;
const MOST_TOP_LOGPROBS: u32 = 20;

/// `seed` is used where the caller gave none.
pub(super) fn sampling(
    model: &Arc<Model>,
    options: &Options,
    seed: u64,
) -> Result<Sampling, RpcError> {
    let default = Sampling::default();
    let within = |name: &str, value: Option<f32>, default: f32, min: f32, max: f32| {
        value.map_or(Ok(default), |value| number(name, value, min, max))
    };
    let o = options;
    Ok(Sampling {
        temperature: within("temperature", o.temperature, default.temperature, 0.0, 100.0)?,
        dynatemp_range: within("dynatemp_range", o.dynatemp_range, 0.0, 0.0, 100.0)?,
        dynatemp_exponent: within("dynatemp_exponent", o.dynatemp_exponent, 1.0, 0.0, 100.0)?,
        top_n_sigma: within("top_n_sigma", o.top_n_sigma, 0.0, -1.0, 100.0)?,
        top_k: o.top_k.unwrap_or(default.top_k),
        typical_p: within("typical_p", o.typical_p, 1.0, 0.0, 1.0)?,
        top_p: within("top_p", o.top_p, default.top_p, 0.0, 1.0)?,
        min_p: within("min_p", o.min_p, default.min_p, 0.0, 1.0)?,
        xtc_probability: within("xtc_probability", o.xtc_probability, 0.0, 0.0, 1.0)?,
        xtc_threshold: within("xtc_threshold", o.xtc_threshold, default.xtc_threshold, 0.0, 1.0)?,
        min_keep: o.min_keep.unwrap_or(default.min_keep),
        mirostat: mirostat(options)?,
        repeat_penalty: within("repeat_penalty", o.repeat_penalty, 1.0, 0.01, 100.0)?,
        repeat_last_n: o.repeat_last_n.unwrap_or(default.repeat_last_n),
        presence_penalty: within("presence_penalty", o.presence_penalty, 0.0, -100.0, 100.0)?,
        frequency_penalty: within("frequency_penalty", o.frequency_penalty, 0.0, -100.0, 100.0)?,
        dry: dry(model, options)?,
        logit_bias: biases(model, options)?,
        logprobs: logprobs(options)?,
        seed: o.seed.unwrap_or(seed),
    })
}

pub(super) fn number<T: PartialOrd + Display>(
    name: &str,
    value: T,
    min: T,
    max: T,
) -> Result<T, RpcError> {
    if value >= min && value <= max {
        return Ok(value);
    }
    Err(invalid(format!("`{name}` is {value}, and must be from {min} to {max}")))
}

fn invalid(message: String) -> RpcError {
    RpcError::new(ErrorKind::InvalidParams, message)
        .with_hint("an option that is left out takes its default")
}

fn mirostat(options: &Options) -> Result<Option<Mirostat>, RpcError> {
    let tau = number("mirostat_tau", options.mirostat_tau.unwrap_or(5.0), 0.0, 100.0)?;
    let eta = number("mirostat_eta", options.mirostat_eta.unwrap_or(0.1), 0.0, 1.0)?;
    let version = match number("mirostat", options.mirostat.unwrap_or(0), 0, 2)? {
        0 => return Ok(None),
        1 => MirostatVersion::One,
        _ => MirostatVersion::Two,
    };
    Ok(Some(Mirostat { version, tau, eta }))
}

fn dry(model: &Arc<Model>, options: &Options) -> Result<Option<Dry>, RpcError> {
    let multiplier = number("dry_multiplier", options.dry_multiplier.unwrap_or(0.0), 0.0, 100.0)?;
    let base = number("dry_base", options.dry_base.unwrap_or(1.75), 1.0, 100.0)?;
    let allowed_length = options.dry_allowed_length.unwrap_or(2);
    number("dry_allowed_length", allowed_length, 1, 1_000_000)?;
    let breakers = options
        .dry_sequence_breakers
        .clone()
        .unwrap_or_else(|| BREAKERS.map(String::from).to_vec());
    let fits = |text: &String| (1..=LONGEST_BREAKER).contains(&text.len());
    if breakers.len() > MOST_BREAKERS || !breakers.iter().all(fits) {
        return Err(invalid(format!(
            "`dry_sequence_breakers` takes at most {MOST_BREAKERS} texts of 1 to {LONGEST_BREAKER} bytes"
        )));
    }
    Ok((multiplier > 0.0).then(|| Dry {
        multiplier,
        base,
        allowed_length,
        last_n: options.dry_penalty_last_n.unwrap_or(64),
        breakers: Breakers::new(model, &breakers),
    }))
}

fn biases(model: &Model, options: &Options) -> Result<Vec<(i32, f32)>, RpcError> {
    let n_vocab = model.info().n_vocab;
    if options.logit_bias.len() > MOST_BIASES {
        return Err(invalid(format!("`logit_bias` takes at most {MOST_BIASES} tokens")));
    }
    let bias = |(token, bias): (&i32, &f32)| {
        if u32::try_from(*token).is_err() || token.cast_unsigned() >= n_vocab {
            let last = n_vocab.saturating_sub(1);
            return Err(invalid(format!(
                "`logit_bias` names the token {token}, and this model has 0 to {last}"
            )));
        }
        let bias = number("logit_bias", *bias, -100.0, 100.0)?;
        Ok((*token, if bias <= -100.0 { f32::NEG_INFINITY } else { bias }))
    };
    options.logit_bias.iter().map(bias).collect()
}

fn logprobs(options: &Options) -> Result<Option<u32>, RpcError> {
    let n = top_logprobs(options.top_logprobs)?;
    let asked = options.logprobs.unwrap_or(options.top_logprobs.is_some());
    Ok(asked.then_some(n))
}

pub(super) fn top_logprobs(asked: Option<u32>) -> Result<u32, RpcError> {
    number("top_logprobs", asked.unwrap_or(0), 0, MOST_TOP_LOGPROBS)
}
