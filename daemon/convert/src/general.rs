//! `general.*` keys: what the model is called, how large it is, and the sampling it recommends.
//!
//! llama.cpp's converter guesses more from names and model cards, which nothing reads.

use hearth_gguf::Value;
use serde_json::Value as Json;

use crate::error::ConvertError;
use crate::folder::Folder;
use crate::metadata::{Metadata, single};

pub(crate) fn write(
    folder: &Folder,
    name: &str,
    n_weights: Option<u64>,
    metadata: &mut Metadata,
) -> Result<(), ConvertError> {
    let recommended = folder.object("generation_config.json")?.unwrap_or_default();
    if let Some(top_k) =
        recommended.get("top_k").and_then(|top_k| i32::try_from(top_k.as_i64()?).ok())
    {
        metadata.set("general.sampling.top_k", Value::I32(top_k));
    }
    for (key, field) in [
        ("general.sampling.top_p", "top_p"),
        ("general.sampling.min_p", "min_p"),
        ("general.sampling.temp", "temperature"),
        ("general.sampling.penalty_repeat", "repetition_penalty"),
    ] {
        if let Some(number) = recommended.get(field).and_then(Json::as_f64) {
            metadata.set(key, Value::F32(single(number)));
        }
    }
    metadata.text("general.name", name);
    if let Some(n_weights) = n_weights {
        metadata.text("general.size_label", &size_label(n_weights));
    }
    Ok(())
}

/// At least two digits, as in `7.0B`, `135M`, `23M`.
fn size_label(n_weights: u64) -> String {
    let count = n_weights as f64;
    let (scaled, unit) = match count {
        _ if count > 1e12 => (count * 1e-12, 'T'),
        _ if count > 1e9 => (count * 1e-9, 'B'),
        _ if count > 1e6 => (count * 1e-6, 'M'),
        _ => (count * 1e-3, 'K'),
    };
    let digits = format!("{scaled:.0}");
    let decimals = 2_usize.saturating_sub(digits.trim_start_matches('0').len());
    format!("{scaled:.decimals$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_spelled_as_llama_cpp_does() {
        for (n_weights, label) in [
            (5000, "5.0K"),
            (99_500, "100K"),
            (22_713_216, "23M"),
            (134_515_008, "135M"),
            (1_235_814_400, "1.2B"),
            (7_069_016_064, "7.1B"),
        ] {
            assert_eq!(size_label(n_weights), label);
        }
    }
}
