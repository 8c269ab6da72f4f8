//! Phi 3, and Phi 4 of the same shape.

use super::{Architecture, HEADS, HEADS_KV, Key, LAYERS, Source, WIDTH, rope, tensor};
use crate::config::Otherwise;
use crate::error::ConvertError;
use crate::metadata::Metadata;
use crate::tokenizer::{bpe, sentencepiece};

pub(super) const PHI3: Architecture = Architecture {
    classes: &["Phi3ForCausalLM"],
    name: "phi3",
    defaults: &[
        ("vocab_size", Otherwise::Count(32_064)),
        ("hidden_size", Otherwise::Count(3072)),
        ("intermediate_size", Otherwise::Count(8192)),
        ("num_hidden_layers", Otherwise::Count(32)),
        ("num_attention_heads", Otherwise::Count(32)),
        ("num_key_value_heads", Otherwise::Same("num_attention_heads")),
        ("max_position_embeddings", Otherwise::Count(4096)),
        ("original_max_position_embeddings", Otherwise::Count(4096)),
        ("rms_norm_eps", Otherwise::Float(1e-5)),
        ("rope_theta", Otherwise::Float(10_000.0)),
        ("partial_rotary_factor", Otherwise::Float(1.0)),
    ],
    keys: &[&[
        Key::Count("context_length", &["n_positions", "max_position_embeddings"]),
        Key::Rule(original_context),
        Key::Count("embedding_length", WIDTH),
        Key::Count("feed_forward_length", &["intermediate_size"]),
        Key::Count("block_count", LAYERS),
        Key::Count("attention.head_count", HEADS),
        Key::Count("attention.head_count_kv", HEADS_KV),
        Key::Float("attention.layer_norm_rms_epsilon", &["rms_norm_eps"]),
        Key::Rule(rotation),
        Key::FileType,
        Key::Rule(sliding_window),
    ]],
    prefixes: &[],
    skipped: &[],
    tensors: &[
        tensor("model.embed_tokens", "token_embd"),
        tensor("model.norm", "output_norm"),
        tensor("lm_head", "output"),
        tensor("model.layers.{}.input_layernorm", "blk.{}.attn_norm"),
        tensor("model.layers.{}.self_attn.qkv_proj", "blk.{}.attn_qkv"),
        tensor("model.layers.{}.self_attn.o_proj", "blk.{}.attn_output"),
        tensor("model.layers.{}.post_attention_layernorm", "blk.{}.ffn_norm"),
        tensor("model.layers.{}.mlp.gate_up_proj", "blk.{}.ffn_up"),
        tensor("model.layers.{}.mlp.down_proj", "blk.{}.ffn_down"),
    ],
    computed: rope::long_factors,
    tokenizer,
};

fn original_context(source: &Source, metadata: &mut Metadata) -> Result<(), ConvertError> {
    metadata.count("rope.scaling.original_context_length", rope::original_context_length(source)?)
}

fn rotation(source: &Source, metadata: &mut Metadata) -> Result<(), ConvertError> {
    let config = &source.config;
    let part = config.float(&["partial_rotary_factor"])?.unwrap_or(1.0);
    let width = config.need(WIDTH)?;
    let heads = config.need(HEADS)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole numbers are what is wanted, and zero for what is less"
    )]
    let rotated = (part * width as f64) as u64;
    let dimensions =
        rotated.checked_div(heads).ok_or_else(|| config.invalid("there are no attention heads"))?;
    metadata.count("rope.dimension_count", dimensions)?;
    if let Some(base) = rope::base(source)? {
        metadata.float("rope.freq_base", base);
    }
    Ok(())
}

/// Zero tells Phi 4 from other models of the architecture.
fn sliding_window(source: &Source, metadata: &mut Metadata) -> Result<(), ConvertError> {
    metadata
        .count("attention.sliding_window", source.config.count(&["sliding_window"])?.unwrap_or(0))
}

fn tokenizer(source: &Source, metadata: &mut Metadata) -> Result<(), ConvertError> {
    let config = source.folder.object("tokenizer_config.json")?;
    let class = config.as_ref().and_then(|config| config.get("tokenizer_class")?.as_str());
    if class == Some("GPT2Tokenizer") {
        bpe::write(source, metadata)
    } else if sentencepiece::write_phi(source, metadata)?
        || sentencepiece::write_from_json(source, metadata)?
    {
        Ok(())
    } else {
        Err(ConvertError::Missing { path: source.folder.path("tokenizer.model") })
    }
}
