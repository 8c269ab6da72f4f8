//! BERT as it makes embeddings, and Nomic's models after it.

use hearth_gguf::Value;
use serde_json::Value as Json;

use super::{Architecture, COMMON, Key, Source, nothing_computed, pooling, tensor};
use crate::config::Otherwise;
use crate::error::ConvertError;
use crate::metadata::Metadata;
use crate::tokenizer::wordpiece;

pub(super) const BERT: Architecture = Architecture {
    classes: &["BertModel", "BertForMaskedLM"],
    name: "bert",
    defaults: &[
        ("vocab_size", Otherwise::Count(30_522)),
        ("hidden_size", Otherwise::Count(768)),
        ("intermediate_size", Otherwise::Count(3072)),
        ("num_hidden_layers", Otherwise::Count(12)),
        ("num_attention_heads", Otherwise::Count(12)),
        ("max_position_embeddings", Otherwise::Count(512)),
        ("type_vocab_size", Otherwise::Count(2)),
        ("layer_norm_eps", Otherwise::Float(1e-12)),
    ],
    keys: &[COMMON, &[Key::Rule(both_directions), Key::Rule(pooling)]],
    prefixes: &["bert."],
    // Nothing but embeddings is asked of it.
    skipped: &[
        "embeddings.position_ids",
        "pooler.dense.",
        "cls.predictions",
        "cls.seq_relationship",
    ],
    tensors: &[
        tensor("embeddings.word_embeddings", "token_embd"),
        tensor("embeddings.token_type_embeddings", "token_types"),
        tensor("embeddings.position_embeddings", "position_embd"),
        tensor("embeddings.LayerNorm", "token_embd_norm"),
        tensor("encoder.layer.{}.attention.self.query", "blk.{}.attn_q"),
        tensor("encoder.layer.{}.attention.self.key", "blk.{}.attn_k"),
        tensor("encoder.layer.{}.attention.self.value", "blk.{}.attn_v"),
        tensor("encoder.layer.{}.attention.output.dense", "blk.{}.attn_output"),
        tensor("encoder.layer.{}.attention.output.LayerNorm", "blk.{}.attn_output_norm"),
        tensor("encoder.layer.{}.intermediate.dense", "blk.{}.ffn_up"),
        tensor("encoder.layer.{}.output.dense", "blk.{}.ffn_down"),
        tensor("encoder.layer.{}.output.LayerNorm", "blk.{}.layer_output_norm"),
    ],
    computed: nothing_computed,
    tokenizer: wordpiece::write,
};

pub(super) const NOMIC_BERT: Architecture = Architecture {
    classes: &["NomicBertModel"],
    name: "nomic-bert",
    defaults: &[],
    keys: &[COMMON, &[Key::Rule(nomic), Key::Rule(both_directions), Key::Rule(pooling)]],
    tensors: &[
        tensor("embeddings.word_embeddings", "token_embd"),
        tensor("embeddings.token_type_embeddings", "token_types"),
        tensor("emb_ln", "token_embd_norm"),
        tensor("encoder.layers.{}.attn.Wqkv", "blk.{}.attn_qkv"),
        tensor("encoder.layers.{}.attn.out_proj", "blk.{}.attn_output"),
        tensor("encoder.layers.{}.norm1", "blk.{}.attn_output_norm"),
        tensor("encoder.layers.{}.mlp.fc11", "blk.{}.ffn_up"),
        tensor("encoder.layers.{}.mlp.fc12", "blk.{}.ffn_gate"),
        tensor("encoder.layers.{}.mlp.fc2", "blk.{}.ffn_down"),
        tensor("encoder.layers.{}.norm2", "blk.{}.layer_output_norm"),
    ],
    ..BERT
};

fn both_directions(_: &Source, metadata: &mut Metadata) -> Result<(), ConvertError> {
    metadata.set_own("attention.causal", Value::Bool(false));
    Ok(())
}

/// llama.cpp computes one of the many models that this configuration can describe.
fn nomic(source: &Source, metadata: &mut Metadata) -> Result<(), ConvertError> {
    let config = &source.config;
    let expected = [
        ("activation_function", Json::from("swiglu")),
        ("causal", Json::from(false)),
        ("qkv_proj_bias", Json::from(false)),
        ("mlp_fc1_bias", Json::from(false)),
        ("mlp_fc2_bias", Json::from(false)),
        ("prenorm", Json::from(false)),
        ("rotary_emb_fraction", Json::from(1.0)),
        ("rotary_emb_interleaved", Json::from(false)),
    ];
    for (field, value) in &expected {
        let found = config.first(&[field]);
        let same = match (found.and_then(Json::as_f64), value.as_f64()) {
            (Some(found), Some(value)) => found == value,
            _ => found == Some(value),
        };
        if !same {
            let what = format!("a nomic-bert model whose {field} is not {value}");
            return Err(ConvertError::Unsupported { what });
        }
    }
    for field in ["rotary_emb_scale_base", "moe_every_n_layers"] {
        if config.first(&[field]).is_some_and(|value| *value != 0) {
            let what = format!("a nomic-bert model with {field}");
            return Err(ConvertError::Unsupported { what });
        }
    }
    // It was trained on a quarter of the positions that it says, and scales badly beyond.
    let trained = config.count(&["max_trained_positions"])?.unwrap_or(2048);
    if (config.need(&["n_positions"])?, trained) != (8192, 2048) {
        let what = "a nomic-bert model trained with other positions than 2048".to_owned();
        return Err(ConvertError::Unsupported { what });
    }
    metadata.count("context_length", trained)
}
