//! Tiny tokenizers. Each function writes one into a folder and says how many tokens the model has.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::models::write_json;

const CL100K: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const MERGES: [(&str, &str); 12] = [
    ("Ġ", "t"),
    ("h", "e"),
    ("Ġt", "he"),
    ("i", "n"),
    ("e", "r"),
    ("o", "n"),
    ("Ġ", "a"),
    ("a", "n"),
    ("r", "e"),
    ("Ġ", "s"),
    ("in", "g"),
    ("Ã", "©"),
];

pub(crate) fn llama3(folder: &Path) -> u64 {
    let added = ["<|begin_of_text|>", "<|eot_id|>", "<|looks_special|>", "an added one"];
    let begin = json!({"SpecialToken": {"id": added[0], "type_id": 0}});
    let (a, b) = (
        json!({"Sequence": {"id": "A", "type_id": 0}}),
        json!({"Sequence": {"id": "B", "type_id": 1}}),
    );
    let post_processor = json!({
        "type": "Sequence",
        "processors": [
            byte_level(),
            {
                "type": "TemplateProcessing",
                "single": [begin, a],
                "pair": [begin, a, begin, b],
                "special_tokens": {added[0]: {"id": added[0], "ids": [268], "tokens": [added[0]]}},
            },
        ],
    });
    let merges: Vec<Value> =
        MERGES.iter().map(|(left, right)| json!(format!("{left} {right}"))).collect();
    let n_tokens = write_bpe(folder, CL100K, None, true, &merges, &added, 2, post_processor);
    let config = json!({
        "bos_token": added[0],
        "eos_token": added[1],
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": "{% for message in messages %}{{ message.content }}{% endfor %}",
        "model_max_length": 4096,
    });
    write_json(&folder.join("tokenizer_config.json"), &config);
    let generation =
        json!({"temperature": 0.6, "top_p": 0.9, "top_k": 40, "repetition_penalty": 1.05});
    write_json(&folder.join("generation_config.json"), &generation);
    // Tokens without a text fill the vocabulary up.
    n_tokens + 5
}

pub(crate) fn qwen(folder: &Path) -> u64 {
    let added = ["<|endoftext|>", "<|im_end|>", "<tool_call>"];
    let merges: Vec<Value> = MERGES.iter().map(|(left, right)| json!([left, right])).collect();
    let normalizer = json!({"type": "NFC"});
    let n_tokens =
        write_bpe(folder, QWEN, Some(normalizer), false, &merges, &added, 2, byte_level());
    let config = json!({
        "add_bos_token": false,
        "add_prefix_space": false,
        "bos_token": null,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "Qwen2Tokenizer",
        "chat_template": [
            {"name": "default", "template": "{{ messages }}"},
            {"name": "tool-use", "template": "{{ tools }}"},
        ],
    });
    write_json(&folder.join("tokenizer_config.json"), &config);
    n_tokens
}

pub(crate) fn sentencepiece(folder: &Path) -> u64 {
    let n_pieces = write_pieces(folder);
    let config = json!({
        "add_bos_token": true,
        "add_eos_token": false,
        "bos_token": "<s>",
        "eos_token": {"content": "</s>", "special": true},
        "unk_token": "<unk>",
        "tokenizer_class": "LlamaTokenizer",
        "added_tokens_decoder": {
            "0": {"content": "<unk>", "special": true},
            "1": {"content": "<s>", "special": true},
            "2": {"content": "</s>", "special": true},
            n_pieces.to_string(): {"content": "<pad>", "special": false},
            (n_pieces + 1).to_string(): {"content": "▁a▁tool", "special": false},
        },
    });
    write_json(&folder.join("tokenizer_config.json"), &config);
    n_pieces + 4
}

pub(crate) fn phi(folder: &Path) -> u64 {
    let n_pieces = write_pieces(folder);
    write_json(&folder.join("added_tokens.json"), &json!({"<|assistant|>": n_pieces}));
    let config = json!({
        "add_bos_token": false,
        "bos_token": "<s>",
        "eos_token": "<|end|>",
        "tokenizer_class": "LlamaTokenizer",
        "added_tokens_decoder": {
            "1": {"content": "<s>", "special": true},
            n_pieces.to_string(): {"content": "<|assistant|>", "special": true},
            (n_pieces + 1).to_string(): {"content": "<|end|>", "special": true},
        },
    });
    write_json(&folder.join("tokenizer_config.json"), &config);
    let added = json!([
        {"id": 1, "content": "<s>", "special": true},
        {"id": n_pieces + 1, "content": "<|end|>", "special": true},
        {"id": n_pieces + 2, "content": "<|plain|>", "special": false},
    ]);
    let tokenizer = json!({
        "added_tokens": added,
        "model": {"type": "BPE", "vocab": {}, "merges": [], "byte_fallback": true},
    });
    write_json(&folder.join("tokenizer.json"), &tokenizer);
    n_pieces + 6
}

pub(crate) fn wordpiece(folder: &Path) -> u64 {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let words = ["the", "cat", "##s", "##ing", "sleep", "!", "a", "é", "##a"];
    let mut vocab = Map::new();
    for (id, token) in special.iter().chain(&words).enumerate() {
        vocab.insert((*token).to_owned(), json!(id));
    }
    let special_token =
        |token: &str, id: u64| json!({token: {"id": token, "ids": [id], "tokens": [token]}});
    let mut surround = special_token("[CLS]", 2);
    surround["[SEP]"] = special_token("[SEP]", 3)["[SEP]"].clone();
    let item = |token: &str, id: u64| json!({"SpecialToken": {"id": token, "type_id": id}});
    let text = |name: &str, id: u64| json!({"Sequence": {"id": name, "type_id": id}});
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": added_tokens(&special, 0, special.len()),
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [item("[CLS]", 0), text("A", 0), item("[SEP]", 0)],
            "pair": [item("[CLS]", 0), text("A", 0), item("[SEP]", 0), text("B", 1), item("[SEP]", 1)],
            "special_tokens": surround,
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab,
        },
    });
    write_json(&folder.join("tokenizer.json"), &tokenizer);
    let config = json!({
        "cls_token": "[CLS]", "mask_token": "[MASK]", "pad_token": "[PAD]", "sep_token": "[SEP]",
        "unk_token": "[UNK]", "do_lower_case": true, "tokenizer_class": "BertTokenizer",
    });
    write_json(&folder.join("tokenizer_config.json"), &config);
    let modules = json!([
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]);
    write_json(&folder.join("modules.json"), &modules);
    fs::create_dir_all(folder.join("1_Pooling")).unwrap();
    write_json(&folder.join("1_Pooling/config.json"), &json!({"pooling_mode_mean_tokens": true}));
    // One row of embeddings more than there are words.
    (special.len() + words.len() + 1) as u64
}

fn byte_level() -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false})
}

fn added_tokens(texts: &[&str], first_id: usize, n_special: usize) -> Vec<Value> {
    let token = |(idx, text): (usize, &&str)| {
        json!({
            "id": first_id + idx, "content": text, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": idx < n_special,
        })
    };
    texts.iter().enumerate().map(token).collect()
}

#[expect(clippy::too_many_arguments, reason = "each is a part of one file")]
fn write_bpe(
    folder: &Path,
    pattern: &str,
    normalizer: Option<Value>,
    ignore_merges: bool,
    merges: &[Value],
    added: &[&str],
    n_special: usize,
    post_processor: Value,
) -> u64 {
    let mut vocab = Map::new();
    for byte in 0..=255 {
        vocab.insert(byte_symbol(byte).to_string(), json!(vocab.len()));
    }
    for (left, right) in MERGES {
        vocab.insert(format!("{left}{right}"), json!(vocab.len()));
    }
    let n_trained = vocab.len();
    let split = json!({
        "type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false,
    });
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": added_tokens(added, n_trained, n_special),
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level()]},
        "post_processor": post_processor,
        "decoder": byte_level(),
        "model": {
            "type": "BPE", "byte_fallback": false, "ignore_merges": ignore_merges,
            "vocab": vocab, "merges": merges,
        },
    });
    write_json(&folder.join("tokenizer.json"), &tokenizer);
    (n_trained + added.len()) as u64
}

/// The letter that stands for a byte in GPT-2's vocabulary.
fn byte_symbol(byte: u8) -> char {
    let is_itself = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if is_itself(byte) {
        return char::from(byte);
    }
    let n_before = (0..byte).filter(|&other| !is_itself(other)).count();
    char::from_u32(256 + u32::try_from(n_before).unwrap()).unwrap()
}

/// A SentencePiece model: unknown, ends, bytes, and a few pieces.
fn write_pieces(folder: &Path) -> u64 {
    let mut pieces: Vec<(String, f32, u8)> = [("<unk>", 2), ("<s>", 3), ("</s>", 3)]
        .map(|(text, kind)| (text.to_owned(), 0.0, kind))
        .to_vec();
    pieces.extend((0..=255).map(|byte| (format!("<0x{byte:02X}>"), 0.0, 6)));
    let words = ["▁t", "he", "▁the", "in", "▁", "t", "h", "e", "i", "n", "é"];
    pieces.extend((0_u8..).zip(words).map(|(idx, word)| (word.to_owned(), -f32::from(idx), 1)));
    pieces.push(("<reserved>".to_owned(), 0.0, 5));
    pieces.push(("user".to_owned(), 0.0, 4));

    let mut model = Vec::new();
    for (text, score, kind) in &pieces {
        let mut piece = vec![0x0a, u8::try_from(text.len()).unwrap()];
        piece.extend(text.as_bytes());
        piece.push(0x15);
        piece.extend(score.to_le_bytes());
        piece.extend([0x18, *kind]);
        push_message(&mut model, 1, &piece);
    }
    // trainer_spec: model_type is BPE, byte_fallback. normalizer_spec: name, add_dummy_prefix.
    push_message(&mut model, 2, &[0x18, 2, 0x98, 0x02, 1]);
    push_message(&mut model, 3, b"\x0a\x08identity\x18\x01");
    fs::write(folder.join("tokenizer.model"), model).unwrap();
    pieces.len() as u64
}

fn push_message(model: &mut Vec<u8>, number: u8, message: &[u8]) {
    model.extend([number << 3 | 2, u8::try_from(message.len()).unwrap()]);
    model.extend(message);
}
