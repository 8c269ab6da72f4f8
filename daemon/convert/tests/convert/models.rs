//! Tiny models of each architecture, with weights and vocabularies that come out the same each time.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::tokenizers;

pub(crate) const HIDDEN: u64 = 64;
/// No multiple of 32, so that rows of this length cannot be quantized.
const FEED_FORWARD: u64 = 80;
const HEADS: u64 = 4;
const HEADS_KV: u64 = 2;
const HEAD: u64 = 16;
const LAYERS: u64 = 2;

pub(crate) struct Model {
    pub(crate) name: &'static str,
    dtype: &'static str,
    config: Value,
    tokenizer: fn(&Path) -> u64,
    /// Outside of layers, then within each. Vectors have a length only.
    tensors: Vec<(&'static str, Vec<u64>)>,
    layer: &'static str,
    layer_tensors: Vec<(&'static str, Vec<u64>)>,
    n_files: usize,
}

/// All of them.
pub(crate) fn all() -> Vec<Model> {
    vec![llama(), mistral(), qwen2(), qwen3(), gemma2(), gemma3(), phi3(), bert(), nomic_bert()]
}

impl Model {
    /// Writes the model as it would be published.
    pub(crate) fn write(&self, folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        let n_tokens = (self.tokenizer)(folder);
        let mut config = self.config.clone();
        let nested = config.get_mut("text_config").is_some();
        let place = if nested { &mut config["text_config"] } else { &mut config };
        place["vocab_size"] = json!(n_tokens);
        write_json(&folder.join("config.json"), &config);

        let mut tensors: Vec<(String, Vec<u64>)> = Vec::new();
        for (name, shape) in &self.tensors {
            let shape = shape.iter().map(|&dim| if dim == 0 { n_tokens } else { dim });
            tensors.push(((*name).to_owned(), shape.collect()));
        }
        for layer in 0..LAYERS {
            for (name, shape) in &self.layer_tensors {
                let prefix = self.layer.replace("{}", &layer.to_string());
                tensors.push((format!("{prefix}{name}"), shape.clone()));
            }
        }
        if self.n_files == 1 {
            write_safetensors(&folder.join("model.safetensors"), self.dtype, &tensors);
            return;
        }
        let mut weight_map = serde_json::Map::new();
        for (idx, part) in tensors.chunks(tensors.len().div_ceil(self.n_files)).enumerate() {
            let file = format!("model-{:05}-of-{:05}.safetensors", idx + 1, self.n_files);
            write_safetensors(&folder.join(&file), self.dtype, part);
            weight_map.extend(part.iter().map(|(name, _)| (name.clone(), json!(file))));
        }
        let index = json!({"metadata": {}, "weight_map": weight_map});
        write_json(&folder.join("model.safetensors.index.json"), &index);
    }
}

fn decoder_config(class: &str, model_type: &str) -> Value {
    json!({
        "architectures": [class],
        "model_type": model_type,
        "hidden_size": HIDDEN,
        "intermediate_size": FEED_FORWARD,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS_KV,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "torch_dtype": "bfloat16",
    })
}

fn with(mut config: Value, more: Value) -> Value {
    let (Value::Object(fields), Value::Object(more)) = (&mut config, more) else { unreachable!() };
    fields.extend(more);
    config
}

/// Zero stands for the number of tokens.
fn decoder_tensors(with_head: bool) -> Vec<(&'static str, Vec<u64>)> {
    let mut tensors =
        vec![("model.embed_tokens.weight", vec![0, HIDDEN]), ("model.norm.weight", vec![HIDDEN])];
    if with_head {
        tensors.push(("lm_head.weight", vec![0, HIDDEN]));
    }
    tensors
}

fn decoder_layer() -> Vec<(&'static str, Vec<u64>)> {
    vec![
        ("input_layernorm.weight", vec![HIDDEN]),
        ("self_attn.q_proj.weight", vec![HEADS * HEAD, HIDDEN]),
        ("self_attn.k_proj.weight", vec![HEADS_KV * HEAD, HIDDEN]),
        ("self_attn.v_proj.weight", vec![HEADS_KV * HEAD, HIDDEN]),
        ("self_attn.o_proj.weight", vec![HIDDEN, HEADS * HEAD]),
        ("post_attention_layernorm.weight", vec![HIDDEN]),
        ("mlp.gate_proj.weight", vec![FEED_FORWARD, HIDDEN]),
        ("mlp.up_proj.weight", vec![FEED_FORWARD, HIDDEN]),
        ("mlp.down_proj.weight", vec![HIDDEN, FEED_FORWARD]),
    ]
}

fn decoder(name: &'static str, config: Value, tokenizer: fn(&Path) -> u64) -> Model {
    Model {
        name,
        dtype: "BF16",
        config,
        tokenizer,
        tensors: decoder_tensors(true),
        layer: "model.layers.{}.",
        layer_tensors: decoder_layer(),
        n_files: 1,
    }
}

fn llama() -> Model {
    let config = with(
        decoder_config("LlamaForCausalLM", "llama"),
        json!({
            "bos_token_id": 268,
            "eos_token_id": 269,
            "rope_theta": 500_000.0,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 1024,
            },
        }),
    );
    let mut model = decoder("llama", config, tokenizers::llama3);
    model.layer_tensors.push(("self_attn.q_proj.bias", vec![HEADS * HEAD]));
    model.layer_tensors.push(("self_attn.rotary_emb.inv_freq", vec![HEAD / 2]));
    model
}

fn mistral() -> Model {
    // Much is left to defaults.
    let config = json!({
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "hidden_size": HIDDEN,
        "intermediate_size": FEED_FORWARD,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS_KV,
    });
    Model { dtype: "F16", ..decoder("mistral", config, tokenizers::sentencepiece) }
}

fn qwen2() -> Model {
    let config = with(
        decoder_config("Qwen2ForCausalLM", "qwen2"),
        json!({"rope_theta": 1_000_000.0, "tie_word_embeddings": true, "eos_token_id": 269}),
    );
    let mut model = decoder("qwen2", config, tokenizers::qwen);
    model.tensors = decoder_tensors(false);
    for name in ["self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"] {
        let heads = if name.contains("q_proj") { HEADS } else { HEADS_KV };
        model.layer_tensors.push((name, vec![heads * HEAD]));
    }
    model.n_files = 2;
    model
}

fn qwen3() -> Model {
    let config = with(
        decoder_config("Qwen3ForCausalLM", "qwen3"),
        json!({
            "head_dim": HEAD,
            "rope_scaling": {
                "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024
            },
        }),
    );
    let mut model = decoder("qwen3", config, tokenizers::qwen);
    model.layer_tensors.push(("self_attn.q_norm.weight", vec![HEAD]));
    model.layer_tensors.push(("self_attn.k_norm.weight", vec![HEAD]));
    model
}

fn gemma2() -> Model {
    let config = with(decoder_config("Gemma2ForCausalLM", "gemma2"), json!({"head_dim": HEAD}));
    let mut model = decoder("gemma2", config, tokenizers::sentencepiece);
    model.tensors = decoder_tensors(false);
    model.layer_tensors.push(("pre_feedforward_layernorm.weight", vec![HIDDEN]));
    model.layer_tensors.push(("post_feedforward_layernorm.weight", vec![HIDDEN]));
    Model { dtype: "F16", ..model }
}

fn gemma3() -> Model {
    let text = with(
        decoder_config("Gemma3ForCausalLM", "gemma3_text"),
        json!({"head_dim": HEAD, "sliding_window": 512}),
    );
    let mut model = decoder("gemma3", text, tokenizers::sentencepiece);
    model.layer_tensors.push(("self_attn.q_norm.weight", vec![HEAD]));
    model.layer_tensors.push(("self_attn.k_norm.weight", vec![HEAD]));
    model.layer_tensors.push(("pre_feedforward_layernorm.weight", vec![HIDDEN]));
    model.layer_tensors.push(("post_feedforward_layernorm.weight", vec![HIDDEN]));
    model.tensors = decoder_tensors(false);
    model
}

fn phi3() -> Model {
    let factors =
        |first: f64| (0..HEAD / 2).map(|idx| first + idx as f64 / 3.0).collect::<Vec<_>>();
    let config = with(
        decoder_config("Phi3ForCausalLM", "phi3"),
        json!({
            "original_max_position_embeddings": 1024,
            "sliding_window": 256,
            "rope_scaling": {
                "type": "longrope", "short_factor": factors(1.0), "long_factor": factors(1.1)
            },
        }),
    );
    let mut model = decoder("phi3", config, tokenizers::phi);
    model.layer_tensors.retain(|(name, _)| {
        !["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"]
            .iter()
            .any(|part| name.contains(part))
    });
    model
        .layer_tensors
        .push(("self_attn.qkv_proj.weight", vec![(HEADS + 2 * HEADS_KV) * HEAD, HIDDEN]));
    model.layer_tensors.push(("mlp.gate_up_proj.weight", vec![2 * FEED_FORWARD, HIDDEN]));
    model
}

fn bert() -> Model {
    let square = vec![HIDDEN, HIDDEN];
    Model {
        name: "bert",
        dtype: "F32",
        config: json!({
            "architectures": ["BertModel"],
            "model_type": "bert",
            "hidden_size": HIDDEN,
            "intermediate_size": FEED_FORWARD,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "max_position_embeddings": 128,
        }),
        tokenizer: tokenizers::wordpiece,
        tensors: vec![
            ("embeddings.word_embeddings.weight", vec![0, HIDDEN]),
            ("embeddings.token_type_embeddings.weight", vec![2, HIDDEN]),
            ("embeddings.position_embeddings.weight", vec![128, HIDDEN]),
            ("embeddings.LayerNorm.gamma", vec![HIDDEN]),
            ("embeddings.LayerNorm.beta", vec![HIDDEN]),
            ("pooler.dense.weight", square.clone()),
            ("pooler.dense.bias", vec![HIDDEN]),
        ],
        layer: "encoder.layer.{}.",
        layer_tensors: vec![
            ("attention.self.query.weight", square.clone()),
            ("attention.self.query.bias", vec![HIDDEN]),
            ("attention.self.key.weight", square.clone()),
            ("attention.self.key.bias", vec![HIDDEN]),
            ("attention.self.value.weight", square.clone()),
            ("attention.self.value.bias", vec![HIDDEN]),
            ("attention.output.dense.weight", square),
            ("attention.output.dense.bias", vec![HIDDEN]),
            ("attention.output.LayerNorm.weight", vec![HIDDEN]),
            ("attention.output.LayerNorm.bias", vec![HIDDEN]),
            ("intermediate.dense.weight", vec![FEED_FORWARD, HIDDEN]),
            ("intermediate.dense.bias", vec![FEED_FORWARD]),
            ("output.dense.weight", vec![HIDDEN, FEED_FORWARD]),
            ("output.dense.bias", vec![HIDDEN]),
            ("output.LayerNorm.weight", vec![HIDDEN]),
            ("output.LayerNorm.bias", vec![HIDDEN]),
        ],
        n_files: 1,
    }
}

fn nomic_bert() -> Model {
    Model {
        name: "nomic-bert",
        dtype: "F32",
        config: json!({
            "architectures": ["NomicBertModel"],
            "model_type": "nomic_bert",
            "activation_function": "swiglu",
            "causal": false,
            "layer_norm_epsilon": 1e-12,
            "mlp_fc1_bias": false,
            "mlp_fc2_bias": false,
            "n_embd": HIDDEN,
            "n_head": HEADS,
            "n_inner": FEED_FORWARD,
            "n_layer": LAYERS,
            "n_positions": 8192,
            "max_trained_positions": 2048,
            "prenorm": false,
            "qkv_proj_bias": false,
            "rotary_emb_base": 1000,
            "rotary_emb_fraction": 1.0,
            "rotary_emb_interleaved": false,
            "rotary_emb_scale_base": null,
            "type_vocab_size": 2,
        }),
        tokenizer: tokenizers::wordpiece,
        tensors: vec![
            ("embeddings.word_embeddings.weight", vec![0, HIDDEN]),
            ("embeddings.token_type_embeddings.weight", vec![2, HIDDEN]),
            ("emb_ln.weight", vec![HIDDEN]),
            ("emb_ln.bias", vec![HIDDEN]),
        ],
        layer: "encoder.layers.{}.",
        layer_tensors: vec![
            ("attn.Wqkv.weight", vec![3 * HIDDEN, HIDDEN]),
            ("attn.out_proj.weight", vec![HIDDEN, HIDDEN]),
            ("norm1.weight", vec![HIDDEN]),
            ("norm1.bias", vec![HIDDEN]),
            ("mlp.fc11.weight", vec![FEED_FORWARD, HIDDEN]),
            ("mlp.fc12.weight", vec![FEED_FORWARD, HIDDEN]),
            ("mlp.fc2.weight", vec![HIDDEN, FEED_FORWARD]),
            ("norm2.weight", vec![HIDDEN]),
            ("norm2.bias", vec![HIDDEN]),
        ],
        n_files: 1,
    }
}

/// An adapter of rank 8 for two kinds of the llama model's matrices.
pub(crate) fn write_adapter(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let config = json!({"peft_type": "LORA", "lora_alpha": 16, "r": 8});
    write_json(&folder.join("adapter_config.json"), &config);
    let mut tensors = Vec::new();
    for layer in 0..LAYERS {
        for (name, n_out) in [("self_attn.k_proj", HEADS_KV * HEAD), ("mlp.up_proj", FEED_FORWARD)]
        {
            let name = format!("base_model.model.model.layers.{layer}.{name}");
            tensors.push((format!("{name}.lora_A.weight"), vec![8, HIDDEN]));
            tensors.push((format!("{name}.lora_B.weight"), vec![n_out, 8]));
        }
    }
    write_safetensors(&folder.join("adapter_model.safetensors"), "F32", &tensors);
}

pub(crate) fn write_json(path: &Path, value: &Value) {
    fs::write(path, serde_json::to_vec_pretty(value).unwrap()).unwrap();
}

/// Tensors of numbers between -1 and 1 that follow from their names.
pub(crate) fn write_safetensors(path: &Path, dtype: &str, tensors: &[(String, Vec<u64>)]) {
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut data = Vec::new();
    for (name, shape) in tensors {
        let begin = data.len();
        let mut state = name.bytes().fold(0x9e37_79b9_7f4a_7c15_u64, |state, byte| {
            (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        for _ in 0..shape.iter().product::<u64>() {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let number = (state >> 40) as f32 / (1_u32 << 23) as f32 - 1.0;
            match dtype {
                "F32" => data.extend(number.to_le_bytes()),
                "F16" => data.extend(half::f16::from_f32(number).to_le_bytes()),
                _ => data.extend(half::bf16::from_f32(number).to_le_bytes()),
            }
        }
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, data.len()]});
        header.insert(name.clone(), entry);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.extend(data);
    fs::write(path, bytes).unwrap();
}
