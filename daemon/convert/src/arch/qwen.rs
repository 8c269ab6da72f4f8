//! Qwen 2 (also 1.5 and 2.5) and Qwen 3, without experts.

use super::{Architecture, COMMON, Key, Source, nothing_computed, pooling, tensor};
use crate::config::Otherwise;
use crate::error::ConvertError;
use crate::metadata::Metadata;
use crate::tokenizer::{bpe, sentencepiece};

pub(super) const QWEN2: Architecture = Architecture {
    classes: &["Qwen2ForCausalLM", "Qwen2Model"],
    name: "qwen2",
    defaults: &[
        ("vocab_size", Otherwise::Count(151_936)),
        ("hidden_size", Otherwise::Count(4096)),
        ("intermediate_size", Otherwise::Count(22_016)),
        ("num_hidden_layers", Otherwise::Count(32)),
        ("num_attention_heads", Otherwise::Count(32)),
        ("num_key_value_heads", Otherwise::Count(32)),
        ("max_position_embeddings", Otherwise::Count(32_768)),
        ("rms_norm_eps", Otherwise::Float(1e-6)),
        ("rope_theta", Otherwise::Float(10_000.0)),
    ],
    keys: &[COMMON, &[Key::Rule(pooling)]],
    prefixes: &[],
    skipped: &[],
    tensors: &[
        tensor("model.embed_tokens", "token_embd"),
        tensor("model.norm", "output_norm"),
        tensor("lm_head", "output"),
        tensor("model.layers.{}.input_layernorm", "blk.{}.attn_norm"),
        tensor("model.layers.{}.self_attn.q_proj", "blk.{}.attn_q"),
        tensor("model.layers.{}.self_attn.q_norm", "blk.{}.attn_q_norm"),
        tensor("model.layers.{}.self_attn.k_proj", "blk.{}.attn_k"),
        tensor("model.layers.{}.self_attn.k_norm", "blk.{}.attn_k_norm"),
        tensor("model.layers.{}.self_attn.v_proj", "blk.{}.attn_v"),
        tensor("model.layers.{}.self_attn.o_proj", "blk.{}.attn_output"),
        tensor("model.layers.{}.post_attention_layernorm", "blk.{}.ffn_norm"),
        tensor("model.layers.{}.mlp.gate_proj", "blk.{}.ffn_gate"),
        tensor("model.layers.{}.mlp.up_proj", "blk.{}.ffn_up"),
        tensor("model.layers.{}.mlp.down_proj", "blk.{}.ffn_down"),
    ],
    computed: nothing_computed,
    tokenizer,
};

pub(super) const QWEN3: Architecture = Architecture {
    classes: &["Qwen3ForCausalLM", "Qwen3Model"],
    name: "qwen3",
    defaults: &[
        ("vocab_size", Otherwise::Count(151_936)),
        ("hidden_size", Otherwise::Count(4096)),
        ("intermediate_size", Otherwise::Count(22_016)),
        ("num_hidden_layers", Otherwise::Count(32)),
        ("num_attention_heads", Otherwise::Count(32)),
        ("num_key_value_heads", Otherwise::Count(32)),
        ("head_dim", Otherwise::Count(128)),
        ("max_position_embeddings", Otherwise::Count(32_768)),
        ("rms_norm_eps", Otherwise::Float(1e-6)),
        ("rope_theta", Otherwise::Float(10_000.0)),
    ],
    ..QWEN2
};

fn tokenizer(source: &Source, metadata: &mut Metadata) -> Result<(), ConvertError> {
    if !sentencepiece::write(source, metadata)? {
        bpe::write(source, metadata)?;
    }
    Ok(())
}
