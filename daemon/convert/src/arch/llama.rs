//! Llama, and Mistral's models of the same shape.

use hearth_gguf::Value;

use super::{Architecture, COMMON, Change, Key, Source, changed, head_length, rope, tensor};
use crate::config::Otherwise;
use crate::error::ConvertError;
use crate::metadata::Metadata;
use crate::tokenizer::{bpe, sentencepiece};

const HEADS: &[&str] = &["n_heads", "num_attention_heads"];
const HEADS_KV: &[&str] = &["n_kv_heads", "num_key_value_heads"];

pub(super) const LLAMA: Architecture = Architecture {
    classes: &["LlamaForCausalLM", "LLaMAForCausalLM", "LlamaModel"],
    name: "llama",
    defaults: &[
        ("vocab_size", Otherwise::Count(32_000)),
        ("hidden_size", Otherwise::Count(4096)),
        ("intermediate_size", Otherwise::Count(11_008)),
        ("num_hidden_layers", Otherwise::Count(32)),
        ("num_attention_heads", Otherwise::Count(32)),
        ("num_key_value_heads", Otherwise::Same("num_attention_heads")),
        ("max_position_embeddings", Otherwise::Count(2048)),
        ("rms_norm_eps", Otherwise::Float(1e-6)),
        ("rope_theta", Otherwise::Float(10_000.0)),
        ("head_dim", Otherwise::Quotient("hidden_size", "num_attention_heads")),
    ],
    keys: &[COMMON, &[Key::Count("vocab_size", &["vocab_size"]), Key::Rule(rotated_dimensions)]],
    prefixes: &[],
    skipped: &[],
    tensors: &[
        tensor("model.embed_tokens", "token_embd"),
        tensor("model.norm", "output_norm"),
        tensor("lm_head", "output"),
        tensor("model.layers.{}.input_layernorm", "blk.{}.attn_norm"),
        changed("model.layers.{}.self_attn.q_proj", "blk.{}.attn_q", Change::Interleave(HEADS)),
        changed("model.layers.{}.self_attn.k_proj", "blk.{}.attn_k", Change::Interleave(HEADS_KV)),
        tensor("model.layers.{}.self_attn.v_proj", "blk.{}.attn_v"),
        tensor("model.layers.{}.self_attn.o_proj", "blk.{}.attn_output"),
        tensor("model.layers.{}.post_attention_layernorm", "blk.{}.ffn_norm"),
        tensor("model.layers.{}.mlp.gate_proj", "blk.{}.ffn_gate"),
        tensor("model.layers.{}.mlp.up_proj", "blk.{}.ffn_up"),
        tensor("model.layers.{}.mlp.down_proj", "blk.{}.ffn_down"),
    ],
    computed: rope::llama3_factors,
    tokenizer,
};

pub(super) const MISTRAL: Architecture = Architecture {
    classes: &["MistralForCausalLM"],
    defaults: &[
        ("vocab_size", Otherwise::Count(32_000)),
        ("hidden_size", Otherwise::Count(4096)),
        ("intermediate_size", Otherwise::Count(14_336)),
        ("num_hidden_layers", Otherwise::Count(32)),
        ("num_attention_heads", Otherwise::Count(32)),
        ("num_key_value_heads", Otherwise::Count(8)),
        ("max_position_embeddings", Otherwise::Count(131_072)),
        ("rms_norm_eps", Otherwise::Float(1e-6)),
        ("rope_theta", Otherwise::Float(10_000.0)),
    ],
    ..LLAMA
};

fn rotated_dimensions(source: &Source, metadata: &mut Metadata) -> Result<(), ConvertError> {
    metadata.count("rope.dimension_count", head_length(&source.config)?)
}

fn tokenizer(source: &Source, metadata: &mut Metadata) -> Result<(), ConvertError> {
    let written = source.folder.object("tokenizer_config.json")?;
    if let Some(prefix) =
        written.as_ref().and_then(|config| config.get("add_prefix_space")?.as_bool())
    {
        metadata.set("tokenizer.ggml.add_space_prefix", Value::Bool(prefix));
    }
    if !sentencepiece::write(source, metadata)?
        && !sentencepiece::write_from_json(source, metadata)?
    {
        bpe::write(source, metadata)?;
    }
    // SmolLM and Granite begin no text with a token of their own.
    if source.config.count(&["vocab_size"])? == Some(49_152) {
        metadata.set("tokenizer.ggml.add_bos_token", Value::Bool(false));
    }
    Ok(())
}
