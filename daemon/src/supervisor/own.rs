//! What a model's own options say of how it is loaded, and which of its options change nothing here.

use super::n_processors;
use serde_json::{Map, Value};

/// Steps that are as large as they need to be, and no larger than what memory is planned for.
const BATCHES: std::ops::RangeInclusive<u32> = 32..=4096;

/// By what Ollama calls `num_thread`, `num_batch`, `num_gpu` and `use_mmap`. `None` leaves it to the engine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct OwnSettings {
    /// Never more than there are processors: those that compute wait for each other.
    pub(super) threads: Option<u32>,
    pub(super) batch: Option<u32>,
    pub(super) gpu_layers: Option<u32>,
    pub(super) mmap: Option<bool>,
}

impl OwnSettings {
    pub(super) fn of(params: &Map<String, Value>) -> Self {
        let number = |name| {
            let number = params.get(name)?.as_u64()?;
            Some(u32::try_from(number).unwrap_or(u32::MAX))
        };
        let positive = |name| number(name).filter(|number| *number > 0);
        Self {
            threads: positive("num_thread").map(|threads| threads.min(n_processors())),
            batch: positive("num_batch").map(|batch| batch.clamp(*BATCHES.start(), *BATCHES.end())),
            gpu_layers: number("num_gpu"),
            mmap: params.get("use_mmap").and_then(Value::as_bool),
        }
    }
}

const WITHOUT_EFFECT: [(&str, &str); 8] = [
    ("draft_num_predict", "how far is guessed follows from how often guesses are right"),
    ("f16_kv", "`kv_type` in the configuration says how the context is kept"),
    ("logits_all", "logits are kept where they are used"),
    ("low_vram", "a backend takes the memory that there is"),
    ("main_gpu", "the backend chooses the device"),
    ("penalize_newline", "a line break is penalized as any other token"),
    ("use_mlock", "no memory is locked, since it is everybody's"),
    ("vocab_only", "a model is loaded whole"),
];

/// Those of a model's options that change nothing here, and why.
pub(crate) fn without_effect(params: &Map<String, Value>) -> Vec<(String, String)> {
    let ignored = WITHOUT_EFFECT.iter().filter(|(name, _)| params.contains_key(*name));
    ignored.map(|(name, why)| ((*name).to_owned(), (*why).to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(params: Value) -> OwnSettings {
        let Value::Object(params) = params else { panic!("{params}") };
        OwnSettings::of(&params)
    }

    #[test]
    fn what_leaves_the_choice_to_the_engine_is_nothing() {
        for params in [
            json!({}),
            json!({ "num_thread": 0, "num_batch": 0, "num_gpu": -1 }),
            json!({ "num_thread": "4", "use_mmap": 1 }),
        ] {
            assert_eq!(of(params), OwnSettings::default());
        }
    }

    #[test]
    fn sizes_stay_within_what_can_be() {
        let huge = of(json!({ "num_thread": 1_u64 << 40, "num_batch": 1_u64 << 40 }));
        assert_eq!((huge.threads, huge.batch), (Some(n_processors()), Some(4096)));
        let small = of(json!({ "num_thread": 1, "num_batch": 1, "num_gpu": 0, "use_mmap": false }));
        let expected = OwnSettings {
            threads: Some(1),
            batch: Some(32),
            gpu_layers: Some(0),
            mmap: Some(false),
        };
        assert_eq!(small, expected);
    }

    #[test]
    fn only_what_is_said_is_without_effect() {
        let Value::Object(params) = json!({ "main_gpu": 1, "temperature": 0, "num_gpu": 3 }) else {
            panic!()
        };
        let names: Vec<_> = without_effect(&params).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["main_gpu"]);
    }
}
