//! Measuring a model: `model.bench`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Parameters of `model.bench`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BenchParams {
    /// Name of a model in the store.
    pub model: String,
    /// Try other settings too, and keep what is faster. The model is loaded anew for each, which ends its other requests.
    #[serde(default)]
    pub tune: bool,
    /// The caller's own name for this request, for `cancel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// Settings of a worker that depend on the machine. What is absent is left to the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Tuning {
    /// Threads to compute with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<u32>,
    /// How often a thread looks whether the others are ready before it sleeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spin: Option<u32>,
    /// Most tokens computed in one step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<u32>,
    /// Number format of the KV memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_type: Option<KvType>,
    /// How attention is computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flash_attention: Option<FlashAttention>,
}

/// Number format of the KV memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KvType {
    /// Two bytes a number.
    #[default]
    F16,
    /// Half of that, and hardly worse.
    Q8_0,
    /// A quarter, and worse.
    Q4_0,
    /// Four bytes a number.
    F32,
}

impl std::fmt::Display for KvType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F16 => "f16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
            Self::F32 => "f32",
        })
    }
}

/// Whether attention is computed in pieces, without a matrix of all scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FlashAttention {
    /// It is.
    On,
    /// It is not.
    Off,
}

impl std::fmt::Display for FlashAttention {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::On => "on",
            Self::Off => "off",
        })
    }
}

/// How fast a model was: medians of several measurements.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct BenchFigures {
    /// Tokens of the prompt per second, one request alone.
    pub prompt_per_s: f64,
    /// Milliseconds until that request's first token.
    pub first_token_ms: f64,
    /// Tokens of its answer per second, from the first token on.
    pub stream_per_s: f64,
    /// Tokens of several answers at once per second, prompts and waiting included.
    pub streams_per_s: f64,
}

/// Settings that were tried beside the best ones before them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BenchTrial {
    /// What was tried.
    pub settings: Tuning,
    /// How fast that was.
    pub figures: BenchFigures,
    /// How many times as fast as the best before, all rates together: the median of the rounds.
    pub ratio: f64,
    /// The lowest ratio of a round.
    pub lowest: f64,
    /// The highest ratio of a round.
    pub highest: f64,
    /// It was faster by more than noise, and became the best.
    pub better: bool,
}

/// Result of `model.bench`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BenchReply {
    /// Short form of the name.
    pub model: String,
    /// Such as `cpu`.
    pub backend: String,
    /// Threads it computes with where no other process needs a processor.
    pub threads: u32,
    /// Tokens of the prompt of the request alone.
    pub prompt_tokens: u32,
    /// Answers at once in `streams_per_s`.
    pub streams: u32,
    /// The settings in use, for this and later loads.
    pub settings: Tuning,
    /// What they hold for: processors and build of the backend. With others the defaults are used again.
    pub machine: String,
    /// How fast it is with them.
    pub figures: BenchFigures,
    /// What was tried; empty without `tune`.
    pub trials: Vec<BenchTrial>,
    /// How many times as fast as the defaults the settings in use were; 1 if nothing was tried or nothing was faster.
    pub gain: f64,
}
