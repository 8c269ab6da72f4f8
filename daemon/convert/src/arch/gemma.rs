//! Gemma 2, and the text model of Gemma 3.

use hearth_gguf::Value;

use super::{
    Architecture, COMMON, Change, HEADS, HEADS_KV, Key, LAYERS, Source, Tensor, WIDTH, changed,
    nothing_computed, tensor,
};
use crate::config::Otherwise;
use crate::error::ConvertError;
use crate::metadata::Metadata;
use crate::tokenizer::sentencepiece;

pub(super) const GEMMA2: Architecture = Architecture {
    classes: &["Gemma2ForCausalLM"],
    name: "gemma2",
    defaults: &[
        ("vocab_size", Otherwise::Count(256_000)),
        ("hidden_size", Otherwise::Count(2304)),
        ("intermediate_size", Otherwise::Count(9216)),
        ("num_hidden_layers", Otherwise::Count(26)),
        ("num_attention_heads", Otherwise::Count(8)),
        ("num_key_value_heads", Otherwise::Count(4)),
        ("head_dim", Otherwise::Count(256)),
        ("max_position_embeddings", Otherwise::Count(8192)),
        ("rms_norm_eps", Otherwise::Float(1e-6)),
        ("attn_logit_softcapping", Otherwise::Float(50.0)),
        ("final_logit_softcapping", Otherwise::Float(30.0)),
        ("sliding_window", Otherwise::Count(4096)),
    ],
    keys: &[&[
        Key::Count("context_length", &["max_position_embeddings"]),
        Key::Count("embedding_length", WIDTH),
        Key::Count("block_count", LAYERS),
        Key::Count("feed_forward_length", &["intermediate_size"]),
        Key::Count("attention.head_count", HEADS),
        Key::Count("attention.head_count_kv", HEADS_KV),
        Key::Float("attention.layer_norm_rms_epsilon", &["rms_norm_eps"]),
        Key::Count("attention.key_length", &["head_dim"]),
        Key::Count("attention.value_length", &["head_dim"]),
        Key::FileType,
        Key::Float("attn_logit_softcapping", &["attn_logit_softcapping"]),
        Key::Float("final_logit_softcapping", &["final_logit_softcapping"]),
        Key::Count("attention.sliding_window", &["sliding_window"]),
    ]],
    prefixes: &[],
    // The embeddings are used both ways.
    skipped: &["lm_head."],
    tensors: GEMMA_TENSORS,
    computed: nothing_computed,
    tokenizer,
};

pub(super) const GEMMA3: Architecture = Architecture {
    classes: &["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"],
    name: "gemma3",
    defaults: &[
        ("vocab_size", Otherwise::Count(262_208)),
        ("hidden_size", Otherwise::Count(2304)),
        ("intermediate_size", Otherwise::Count(9216)),
        ("num_hidden_layers", Otherwise::Count(26)),
        ("num_attention_heads", Otherwise::Count(8)),
        ("num_key_value_heads", Otherwise::Count(4)),
        ("head_dim", Otherwise::Count(256)),
        ("max_position_embeddings", Otherwise::Count(131_072)),
        ("rms_norm_eps", Otherwise::Float(1e-6)),
        ("rope_theta", Otherwise::Float(1_000_000.0)),
        ("rope_local_base_freq", Otherwise::Float(10_000.0)),
        ("sliding_window", Otherwise::Count(4096)),
    ],
    keys: &[
        COMMON,
        &[
            Key::Float("final_logit_softcapping", &["final_logit_softcapping"]),
            Key::Count("attention.sliding_window", &["sliding_window"]),
        ],
    ],
    skipped: &[],
    ..GEMMA2
};

const GEMMA_TENSORS: &[Tensor] = &[
    tensor("model.embed_tokens", "token_embd"),
    changed("model.norm", "output_norm", Change::AddOne),
    tensor("lm_head", "output"),
    changed("model.layers.{}.input_layernorm", "blk.{}.attn_norm", Change::AddOne),
    tensor("model.layers.{}.self_attn.q_proj", "blk.{}.attn_q"),
    changed("model.layers.{}.self_attn.q_norm", "blk.{}.attn_q_norm", Change::AddOne),
    tensor("model.layers.{}.self_attn.k_proj", "blk.{}.attn_k"),
    changed("model.layers.{}.self_attn.k_norm", "blk.{}.attn_k_norm", Change::AddOne),
    tensor("model.layers.{}.self_attn.v_proj", "blk.{}.attn_v"),
    tensor("model.layers.{}.self_attn.o_proj", "blk.{}.attn_output"),
    changed(
        "model.layers.{}.post_attention_layernorm",
        "blk.{}.post_attention_norm",
        Change::AddOne,
    ),
    changed("model.layers.{}.pre_feedforward_layernorm", "blk.{}.ffn_norm", Change::AddOne),
    changed("model.layers.{}.post_feedforward_layernorm", "blk.{}.post_ffw_norm", Change::AddOne),
    tensor("model.layers.{}.mlp.gate_proj", "blk.{}.ffn_gate"),
    tensor("model.layers.{}.mlp.up_proj", "blk.{}.ffn_up"),
    tensor("model.layers.{}.mlp.down_proj", "blk.{}.ffn_down"),
];

fn tokenizer(source: &Source, metadata: &mut Metadata) -> Result<(), ConvertError> {
    if !sentencepiece::write(source, metadata)?
        && !sentencepiece::write_from_json(source, metadata)?
    {
        return Err(ConvertError::Missing { path: source.folder.path("tokenizer.model") });
    }
    metadata.set("tokenizer.ggml.add_space_prefix", Value::Bool(false));
    Ok(())
}
