//! A model's config blob: the facts `list` shows without opening the weights.
//!
//! Reading is lenient. The fields are informative and written by many programs, so one that is
//! missing or of the wrong type is empty, and only text that is no JSON object is an error.

use hearth_gguf::GgufSummary;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::manifest::json_line;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelConfig {
    /// `gguf` or `safetensors`.
    pub format: String,
    pub family: String,
    pub families: Vec<String>,
    /// Such as `134.52M`.
    pub parameter_size: String,
    /// Such as `Q4_K_M`.
    pub quantization: String,
    /// The names of Ollama's built-in renderer and parser, where the model uses them.
    pub renderer: Option<String>,
    pub parser: Option<String>,
    /// The least version of Ollama the model says it needs.
    pub requires: Option<String>,
    /// Set for a model that only stands for one on another machine.
    pub remote_host: Option<String>,
    pub remote_model: Option<String>,
    pub capabilities: Vec<String>,
    pub context_length: Option<u64>,
    pub embedding_length: Option<u64>,
    pub base_name: Option<String>,
}

#[derive(Serialize)]
struct ConfigJson<'c> {
    model_format: &'c str,
    model_family: &'c str,
    model_families: &'c [String],
    model_type: &'c str,
    file_type: &'c str,
    #[serde(skip_serializing_if = "Option::is_none")]
    renderer: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parser: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requires: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_host: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_model: Option<&'c str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    capabilities: &'c [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    context_length: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding_length: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base_name: Option<&'c str>,
    // Fixed whatever the machine: registries expect an image to name a platform.
    architecture: &'c str,
    os: &'c str,
}

impl ModelConfig {
    pub(crate) fn of_gguf(summary: &GgufSummary) -> Self {
        Self {
            format: "gguf".to_owned(),
            family: summary.architecture.clone(),
            families: vec![summary.architecture.clone()],
            parameter_size: summary.size_label.clone(),
            quantization: summary.quantization.clone(),
            context_length: summary.context_length,
            embedding_length: summary.embedding_length,
            ..Self::default()
        }
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let object: Map<String, Value> = serde_json::from_slice(bytes)
            .map_err(|error| format!("it is not a JSON object: {error}"))?;
        let text = |key: &str| object.get(key).and_then(Value::as_str).map(str::to_owned);
        let non_empty = |key: &str| text(key).filter(|text| !text.is_empty());
        let texts = |key: &str| -> Vec<String> {
            let items = object.get(key).and_then(Value::as_array).into_iter().flatten();
            items.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let number = |key: &str| object.get(key).and_then(Value::as_u64).filter(|&n| n > 0);
        Ok(Self {
            format: text("model_format").unwrap_or_default(),
            family: text("model_family").unwrap_or_default(),
            families: texts("model_families"),
            parameter_size: text("model_type").unwrap_or_default(),
            quantization: text("file_type").unwrap_or_default(),
            renderer: non_empty("renderer"),
            parser: non_empty("parser"),
            requires: non_empty("requires"),
            remote_host: non_empty("remote_host"),
            remote_model: non_empty("remote_model"),
            capabilities: texts("capabilities"),
            context_length: number("context_length"),
            embedding_length: number("embedding_length"),
            base_name: non_empty("base_name"),
        })
    }

    /// A config for other weights of the same model: what it says besides is kept, also what is not known here.
    pub(crate) fn with_quantization(bytes: &[u8], quantization: &str) -> Result<Vec<u8>, String> {
        let mut object: Map<String, Value> = serde_json::from_slice(bytes)
            .map_err(|error| format!("it is not a JSON object: {error}"))?;
        object.insert("file_type".to_owned(), quantization.into());
        Ok(json_line(&object))
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        json_line(&ConfigJson {
            model_format: &self.format,
            model_family: &self.family,
            model_families: &self.families,
            model_type: &self.parameter_size,
            file_type: &self.quantization,
            renderer: self.renderer.as_deref(),
            parser: self.parser.as_deref(),
            requires: self.requires.as_deref(),
            remote_host: self.remote_host.as_deref(),
            remote_model: self.remote_model.as_deref(),
            capabilities: &self.capabilities,
            context_length: self.context_length,
            embedding_length: self.embedding_length,
            base_name: self.base_name.as_deref(),
            architecture: "amd64",
            os: "linux",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_is_written_in_ollamas_order_and_reads_back() {
        let config = ModelConfig {
            format: "gguf".to_owned(),
            family: "llama".to_owned(),
            families: vec!["llama".to_owned()],
            parameter_size: "134.52M".to_owned(),
            quantization: "Q4_1".to_owned(),
            context_length: Some(2048),
            ..ModelConfig::default()
        };
        assert_eq!(
            String::from_utf8(config.to_json()).unwrap(),
            concat!(
                r#"{"model_format":"gguf","model_family":"llama","model_families":["llama"],"#,
                r#""model_type":"134.52M","file_type":"Q4_1","context_length":2048,"#,
                r#""architecture":"amd64","os":"linux"}"#,
                "\n"
            )
        );
        assert_eq!(ModelConfig::parse(&config.to_json()).unwrap(), config);
    }

    #[test]
    fn odd_fields_are_empty_and_other_text_is_an_error() {
        let odd = br#"{"model_format":"gguf","model_families":null,"model_type":7,
            "context_length":-1,"renderer":"","rootfs":{"type":"layers"}}"#;
        let config = ModelConfig::parse(odd).unwrap();
        assert_eq!(config, ModelConfig { format: "gguf".to_owned(), ..ModelConfig::default() });
        for bad in ["", "[]", "null", "{"] {
            assert!(ModelConfig::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
