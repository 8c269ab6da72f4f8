//! `model.quantize`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Parameters of `model.quantize`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuantizeParams {
    /// Name of a model in the store, with weights in F16, BF16 or F32.
    pub model: String,
    /// Such as `Q4_K_M`, in letters of either case. Which there are is the backend's; an unknown one is an error whose hint lists them.
    #[serde(rename = "type")]
    pub type_name: String,
    /// The name of the new model; an existing model of that name is replaced. Absent: that of the model, with the type in its
    /// tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Absolute path of an importance matrix, as the daemon sees it. The smallest types need one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imatrix: Option<String>,
    /// Take weights that are quantized already, which loses more than quantizing their original.
    #[serde(default)]
    pub requantize: bool,
    /// The caller's own name for this request, for `cancel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// Result of `model.quantize`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Quantized {
    /// Short form of the new name.
    pub name: String,
    /// SHA-256 of the manifest, in hex.
    pub id: String,
    /// The type, as the backend spells it.
    pub quantization: String,
    /// Bytes of everything the manifest names.
    pub size_bytes: u64,
    /// The same of the model it was made from.
    pub from_size_bytes: u64,
}
