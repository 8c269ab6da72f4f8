//! Architectures, as declarations: which fields of `config.json` become which metadata, which
//! tensors become which, and what changes on the way.
//!
//! A family is one file. What interprets the declarations is `plan.rs` for tensors, and here for
//! metadata. Names and order are those of llama.cpp's own converter, so that both write the same
//! file.

mod bert;
mod gemma;
mod llama;
mod phi;
mod qwen;
mod rope;

use hearth_gguf::Value;

use crate::config::{Config, Otherwise};
use crate::error::ConvertError;
use crate::folder::Folder;
use crate::metadata::Metadata;
use crate::output::OutputType;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Architecture {
    /// What `architectures` in `config.json` says.
    pub(crate) classes: &'static [&'static str],
    /// What llama.cpp calls it.
    pub(crate) name: &'static str,
    pub(crate) defaults: &'static [(&'static str, Otherwise)],
    pub(crate) keys: &'static [&'static [Key]],
    /// Prefixes that some classes put before all names of tensors.
    pub(crate) prefixes: &'static [&'static str],
    /// Beginnings of names of tensors that are left out.
    pub(crate) skipped: &'static [&'static str],
    pub(crate) tensors: &'static [Tensor],
    /// Tensors that are computed, and metadata that goes with them.
    pub(crate) computed: fn(&Source, &mut Metadata) -> Result<Vec<ComputedTensor>, ConvertError>,
    pub(crate) tokenizer: fn(&Source, &mut Metadata) -> Result<(), ConvertError>,
}

/// The model being converted.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) folder: Folder,
    pub(crate) config: Config,
}

/// One or several keys of metadata. Names are without the architecture's prefix.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Key {
    /// The first of the fields that is there, a whole number.
    Count(&'static str, &'static [&'static str]),
    Float(&'static str, &'static [&'static str]),
    /// `general.file_type`, which stands among these.
    FileType,
    Rule(fn(&Source, &mut Metadata) -> Result<(), ConvertError>),
}

/// A tensor's name without `.weight` or `.bias`, there and here; `{}` is a layer's number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tensor {
    pub(crate) from: &'static str,
    pub(crate) to: &'static str,
    pub(crate) change: Change,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Same,
    /// Gemma's norms multiply by one more than is stored.
    AddOne,
    /// Rotary embedding pairs neighbours in llama.cpp, and halves of a head in transformers. The
    /// fields say how many heads there are.
    Interleave(&'static [&'static str]),
}

#[derive(Debug, Clone)]
pub(crate) struct ComputedTensor {
    pub(crate) name: &'static str,
    pub(crate) values: Vec<f32>,
}

const ARCHITECTURES: &[&Architecture] = &[
    &llama::LLAMA,
    &llama::MISTRAL,
    &qwen::QWEN2,
    &qwen::QWEN3,
    &gemma::GEMMA2,
    &gemma::GEMMA3,
    &phi::PHI3,
    &bert::BERT,
    &bert::NOMIC_BERT,
];

pub(crate) fn find(class: &str) -> Result<&'static Architecture, ConvertError> {
    ARCHITECTURES
        .iter()
        .copied()
        .find(|architecture| architecture.classes.contains(&class))
        .ok_or_else(|| ConvertError::unsupported("the architecture", class))
}

/// By llama.cpp's name. Architectures that share one name their tensors alike.
pub(crate) fn named(name: &str) -> Result<&'static Architecture, ConvertError> {
    ARCHITECTURES
        .iter()
        .copied()
        .find(|architecture| architecture.name == name)
        .ok_or_else(|| ConvertError::unsupported("the architecture", name))
}

impl Architecture {
    pub(crate) fn describe(
        &self,
        source: &Source,
        output_type: OutputType,
        metadata: &mut Metadata,
    ) -> Result<(), ConvertError> {
        for key in self.keys.iter().copied().flatten() {
            match key {
                Key::Count(name, fields) => {
                    if let Some(count) = source.config.count(fields)? {
                        metadata.count(name, count)?;
                    }
                }
                Key::Float(name, fields) => {
                    if let Some(number) = source.config.float(fields)? {
                        metadata.float(name, number);
                    }
                }
                Key::FileType => {
                    metadata.set("general.file_type", Value::U32(output_type.file_type()));
                }
                Key::Rule(rule) => rule(source, metadata)?,
            }
        }
        for needed in ["block_count", "context_length", "embedding_length", "attention.head_count"]
        {
            if !metadata.has_own(needed) {
                let reason = format!("nothing in it says the model's {needed}");
                return Err(source.config.invalid(reason));
            }
        }
        Ok(())
    }
}

pub(crate) const LAYERS: &[&str] = &["n_layers", "num_hidden_layers", "n_layer", "num_layers"];
const WIDTH: &[&str] = &["hidden_size", "n_embd", "dim"];
const HEADS: &[&str] = &["num_attention_heads", "n_head", "n_heads"];
const HEADS_KV: &[&str] = &["num_key_value_heads", "n_kv_heads"];

/// What nearly all architectures say.
const COMMON: &[Key] = &[
    Key::Count("block_count", LAYERS),
    Key::Count(
        "context_length",
        &[
            "max_position_embeddings",
            "n_ctx",
            "n_positions",
            "max_length",
            "max_sequence_length",
            "model_max_length",
        ],
    ),
    Key::Count("embedding_length", WIDTH),
    Key::Count("feed_forward_length", &["intermediate_size", "n_inner", "hidden_dim"]),
    Key::Count("attention.head_count", HEADS),
    Key::Count("attention.head_count_kv", HEADS_KV),
    Key::Rule(rope::scaling),
    Key::Float("attention.layer_norm_rms_epsilon", &["rms_norm_eps", "norm_eps"]),
    Key::Float(
        "attention.layer_norm_epsilon",
        &["layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"],
    ),
    Key::Count("attention.key_length", &["head_dim"]),
    Key::Count("attention.value_length", &["head_dim"]),
    Key::FileType,
];

const fn tensor(from: &'static str, to: &'static str) -> Tensor {
    Tensor { from, to, change: Change::Same }
}

const fn changed(from: &'static str, to: &'static str, change: Change) -> Tensor {
    Tensor { from, to, change }
}

/// Numbers in each attention head.
fn head_length(config: &Config) -> Result<u64, ConvertError> {
    if let Some(length) = config.count(&["head_dim"])? {
        return Ok(length);
    }
    let (width, heads) = (config.need(&["hidden_size"])?, config.need(&["num_attention_heads"])?);
    width.checked_div(heads).ok_or_else(|| config.invalid("there are no attention heads"))
}

fn nothing_computed(_: &Source, _: &mut Metadata) -> Result<Vec<ComputedTensor>, ConvertError> {
    Ok(Vec::new())
}

/// How sentence-transformers makes one embedding of many, where the folder says that.
fn pooling(source: &Source, metadata: &mut Metadata) -> Result<(), ConvertError> {
    let modules: Option<Vec<serde_json::Value>> = source.folder.json("modules.json", 1 << 20)?;
    let is_pooling = |module: &&serde_json::Value| {
        module["type"].as_str().is_some_and(|kind| kind.ends_with("Pooling"))
    };
    let Some(path) =
        modules.iter().flatten().find(is_pooling).and_then(|module| module["path"].as_str())
    else {
        return Ok(());
    };
    let file = format!("{path}/config.json");
    let config = source
        .folder
        .object(&file)?
        .ok_or_else(|| ConvertError::Missing { path: source.folder.path(&file) })?;
    let mode = config.get("pooling_mode").and_then(serde_json::Value::as_str);
    // llama.h's enum llama_pooling_type.
    const MODES: [(&str, &str, u32); 3] = [
        ("pooling_mode_mean_tokens", "mean", 1),
        ("pooling_mode_cls_token", "cls", 2),
        ("pooling_mode_lasttoken", "lasttoken", 3),
    ];
    let number = MODES
        .iter()
        .find(|(flag, _, _)| config.get(*flag) == Some(&true.into()))
        .or_else(|| MODES.iter().find(|(_, name, _)| mode == Some(name)))
        .map(|&(_, _, number)| number)
        .ok_or_else(|| ConvertError::Unsupported { what: "the kind of pooling".to_owned() })?;
    metadata.set_own("pooling_type", Value::U32(number));
    Ok(())
}
