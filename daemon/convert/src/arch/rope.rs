//! Rotary position embedding: how `config.json` scales it, in its many spellings.

use std::f32::consts::TAU;

use hearth_gguf::Value;

use super::{ComputedTensor, Source, head_length};
use crate::config::Config;
use crate::error::ConvertError;
use crate::folder::Object;
use crate::metadata::{Metadata, single};

/// What `config.json` says of it, for layers with full attention and for those with a window.
struct Rope<'c> {
    config: &'c Config,
    full: Option<&'c Object>,
    windowed: Option<&'c Object>,
    /// Each kind of layer has its own object, and fields outside them do not count.
    by_layer: bool,
}

impl<'c> Rope<'c> {
    fn of(config: &'c Config) -> Self {
        let all = config.object("rope_parameters").or_else(|| config.object("rope_scaling"));
        let kind = |name| all.and_then(|all| all.get(name)?.as_object());
        let (full, windowed) = (kind("full_attention"), kind("sliding_attention"));
        let by_layer = full.is_some() || windowed.is_some();
        Self { config, full: full.or(all), windowed, by_layer }
    }

    fn float(&self, key: &str) -> Result<Option<f64>, ConvertError> {
        match self.full.and_then(|full| full.get(key)).filter(|value| !value.is_null()) {
            None => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or_else(|| {
                self.config.invalid(format!("`{key}` of rope_scaling is not a number"))
            }),
        }
    }

    fn kind(&self) -> Option<&str> {
        let full = self.full?;
        full.get("rope_type").or_else(|| full.get("type"))?.as_str()
    }

    fn base(&self) -> Result<Option<f64>, ConvertError> {
        match self.float("rope_theta")? {
            None if !self.by_layer => self.config.float(&[
                "global_rope_theta",
                "rope_global_theta",
                "rope_theta_global",
                "rope_theta",
                "rotary_emb_base",
            ]),
            base => Ok(base),
        }
    }
}

pub(super) fn scaling(source: &Source, metadata: &mut Metadata) -> Result<(), ConvertError> {
    let rope = Rope::of(&source.config);
    let factor = rope.float("factor")?;
    match (rope.kind(), factor) {
        (Some("linear"), Some(factor)) => {
            metadata.set_own("rope.scaling.type", Value::Text("linear".to_owned()));
            metadata.float("rope.scaling.factor", factor);
        }
        (Some("yarn"), Some(factor)) => {
            metadata.set_own("rope.scaling.type", Value::Text("yarn".to_owned()));
            metadata.float("rope.scaling.factor", factor);
            metadata.count("rope.scaling.original_context_length", original_context(&rope)?)?;
            for (key, fields) in [
                ("rope.scaling.yarn_ext_factor", &["extrapolation_factor"][..]),
                ("rope.scaling.yarn_attn_factor", &["attention_factor", "attn_factor"]),
                ("rope.scaling.yarn_beta_fast", &["beta_fast"]),
                ("rope.scaling.yarn_beta_slow", &["beta_slow"]),
            ] {
                for field in fields {
                    if let Some(number) = rope.float(field)? {
                        metadata.float(key, number);
                        break;
                    }
                }
            }
        }
        (Some("su" | "longrope"), _) => {
            metadata.set_own("rope.scaling.type", Value::Text("longrope".to_owned()));
        }
        // The last is a tensor, below.
        (None | Some("default" | "llama3"), _) => {}
        (Some(other), _) => {
            return Err(ConvertError::unsupported("scaling of rotary embedding by", other));
        }
    }
    if let Some(base) = rope.base()? {
        metadata.float("rope.freq_base", base);
    }
    windows(&rope, metadata)
}

/// The base in layers with a window, where it differs.
fn windows(rope: &Rope<'_>, metadata: &mut Metadata) -> Result<(), ConvertError> {
    let written = rope.windowed.and_then(|windowed| windowed.get("rope_theta")?.as_f64());
    let base = match written {
        None if !rope.by_layer => rope.config.float(&[
            "local_rope_theta",
            "rope_local_theta",
            "rope_theta_local",
            "swa_rope_theta",
            "rope_local_base_freq",
        ])?,
        base => base,
    };
    if let Some(base) = base {
        metadata.float("rope.freq_base_swa", base);
    }
    Ok(())
}

pub(super) fn base(source: &Source) -> Result<Option<f64>, ConvertError> {
    Rope::of(&source.config).base()
}

/// Llama 3 stretches low frequencies, with a soft passage to those it leaves.
pub(super) fn llama3_factors(
    source: &Source,
    _: &mut Metadata,
) -> Result<Vec<ComputedTensor>, ConvertError> {
    let config = &source.config;
    let rope = Rope::of(config);
    if rope.kind() != Some("llama3") {
        return Ok(Vec::new());
    }
    let head = head_length(config)?;
    // A head has hundreds of numbers; each pair takes a factor.
    if head > 1 << 16 {
        return Err(config.invalid(format!("heads of {head} numbers")));
    }
    // Single precision throughout, as in llama.cpp's own converter.
    let or = |key, default| Ok::<_, ConvertError>(single(rope.float(key)?.unwrap_or(default)));
    let base = single(rope.base()?.unwrap_or(10_000.0));
    let factor = or("factor", 8.0)?;
    let low = or("low_freq_factor", 1.0)?;
    let high = or("high_freq_factor", 4.0)?;
    let context = or("original_max_position_embeddings", 8192.0)?;
    let values = (0..head)
        .step_by(2)
        .map(|idx| {
            let frequency = 1.0 / base.powf(idx as f32 / head as f32);
            let length = TAU / frequency;
            if length < context / high {
                1.0
            } else if length > context / low {
                factor
            } else {
                let smooth = (context / length - low) / (high - low);
                1.0 / ((1.0 - smooth) / factor + smooth)
            }
        })
        .collect();
    Ok(vec![ComputedTensor { name: "rope_freqs.weight", values }])
}

/// Factors that a model lists for contexts within and beyond the one it was first trained with.
pub(super) fn long_factors(
    source: &Source,
    metadata: &mut Metadata,
) -> Result<Vec<ComputedTensor>, ConvertError> {
    let config = &source.config;
    let rope = Rope::of(config);
    let Some(long) = factors(&rope, "long_factor")? else { return Ok(Vec::new()) };
    let short = factors(&rope, "short_factor")?
        .filter(|short| short.len() == long.len())
        .ok_or_else(|| config.invalid("there are not as many short factors as long ones"))?;
    let original = original_context(&rope)? as f64;
    let scale = config.need(&["n_positions", "max_position_embeddings"])? as f64 / original;
    let attention = match rope.kind() {
        Some("su" | "longrope") if scale > 1.0 => (1.0 + scale.ln() / original.ln()).sqrt(),
        Some("yarn") if scale > 1.0 => 0.1 * scale.ln() + 1.0,
        Some("su" | "longrope" | "yarn") => 1.0,
        other => {
            return Err(ConvertError::unsupported(
                "scaling of rotary embedding by",
                other.unwrap_or_default(),
            ));
        }
    };
    metadata.float("rope.scaling.attn_factor", attention);
    Ok(vec![
        ComputedTensor { name: "rope_factors_long.weight", values: long },
        ComputedTensor { name: "rope_factors_short.weight", values: short },
    ])
}

fn factors(rope: &Rope<'_>, key: &str) -> Result<Option<Vec<f32>>, ConvertError> {
    let Some(list) = rope.full.and_then(|full| full.get(key)?.as_array()) else { return Ok(None) };
    let invalid = || rope.config.invalid(format!("`{key}` is not a list of numbers"));
    list.iter()
        .map(|item| item.as_f64().map(single).ok_or_else(invalid))
        .collect::<Result<_, _>>()
        .map(Some)
}

fn original_context(rope: &Rope<'_>) -> Result<u64, ConvertError> {
    const KEY: &str = "original_max_position_embeddings";
    match rope.full.and_then(|full| full.get(KEY)?.as_u64()) {
        Some(length) => Ok(length),
        None => rope.config.need(&[KEY]),
    }
}

pub(super) fn original_context_length(source: &Source) -> Result<u64, ConvertError> {
    original_context(&Rope::of(&source.config))
}
