//! Tokenizers beyond what whole files compare.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::models::{write_json, write_safetensors};
use crate::{converted, written};

/// The metadata of a file as far as tokenizers write it, by key.
fn metadata(file: &[u8]) -> BTreeMap<String, Value> {
    let mut rest = &file[16..];
    let n_keys = number(&mut rest, 8);
    (0..n_keys).map(|_| (text(&mut rest), value(&mut rest))).collect()
}

fn number(rest: &mut &[u8], n_bytes: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes[..n_bytes].copy_from_slice(rest.split_off(..n_bytes).unwrap());
    u64::from_le_bytes(bytes)
}

fn text(rest: &mut &[u8]) -> String {
    let len = usize::try_from(number(rest, 8)).unwrap();
    String::from_utf8(rest.split_off(..len).unwrap().to_vec()).unwrap()
}

fn value(rest: &mut &[u8]) -> Value {
    let kind = number(rest, 4);
    value_of(kind, rest)
}

fn value_of(kind: u64, rest: &mut &[u8]) -> Value {
    match kind {
        4 | 5 => json!(number(rest, 4)),
        6 => json!(f32::from_bits(u32::try_from(number(rest, 4)).unwrap())),
        7 => json!(number(rest, 1) == 1),
        8 => json!(text(rest)),
        9 => {
            let kind = number(rest, 4);
            let len = number(rest, 8);
            (0..len).map(|_| value_of(kind, rest)).collect()
        }
        _ => unreachable!(),
    }
}

fn change(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut value);
    write_json(path, &value);
}

#[test]
fn rules_before_merging_have_names() {
    let folder = written("llama");
    let path = folder.path().join("tokenizer.json");
    let split = |pattern: &str, behavior: &str, invert: bool| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert});
    let byte_level = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": use_regex});
    let digits = json!({"type": "Digits", "individual_digits": true});
    let words = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    for (ignore_merges, steps, name) in [
        (true, vec![split(words, "Isolated", false), byte_level(false)], Some("llama-bpe")),
        (false, vec![split(words, "Removed", true), byte_level(false)], Some("dbrx")),
        (false, vec![digits, byte_level(true)], Some("smollm")),
        (false, vec![byte_level(true)], Some("gpt-2")),
        (false, vec![split(words, "Removed", false), byte_level(false)], None),
        (false, vec![split("x", "Isolated", false), byte_level(false)], None),
        (false, vec![], None),
    ] {
        change(&path, |tokenizer| {
            tokenizer["model"]["ignore_merges"] = json!(ignore_merges);
            tokenizer["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": steps});
        });
        match (converted(folder.path()), name) {
            (Ok(file), Some(name)) => assert_eq!(metadata(&file)["tokenizer.ggml.pre"], name),
            (Err(error), None) => assert_eq!(error.kind(), "unsupported"),
            (found, name) => panic!("{:?} and not {name:?}", found.map(|file| file.len())),
        }
    }
}

#[test]
fn merges_order_pieces_that_have_no_scores() {
    let folder = written("mistral");
    fs::remove_file(folder.path().join("tokenizer.model")).unwrap();
    let vocab = ["<unk>", "<s>", "</s>", "<0x0A>", "▁", "a", "b", "ab", "▁ab"];
    let ids: serde_json::Map<_, _> =
        vocab.iter().zip(0..).map(|(token, id)| ((*token).to_owned(), json!(id))).collect();
    let tokenizer = json!({
        "added_tokens": [
            {"id": 0, "content": "<unk>", "special": true},
            {"id": 1, "content": "<s>", "special": true},
            {"id": 2, "content": "</s>", "special": true},
            {"id": 9, "content": "▁▁", "special": false},
        ],
        "decoder": {"type": "Sequence", "decoders": []},
        "model": {"type": "BPE", "byte_fallback": true, "vocab": ids, "merges": ["a b", "▁ ab"]},
    });
    write_json(&folder.path().join("tokenizer.json"), &tokenizer);
    change(&folder.path().join("config.json"), |config| config["vocab_size"] = json!(10));
    let embeddings = ("model.embed_tokens.weight".to_owned(), vec![10, 64]);
    write_safetensors(&folder.path().join("model.safetensors"), "F16", &[embeddings]);
    let found = metadata(&converted(folder.path()).unwrap());
    assert_eq!(found["tokenizer.ggml.model"], "llama");
    assert_eq!(found["tokenizer.ggml.tokens"][8], "▁ab");
    assert_eq!(found["tokenizer.ggml.tokens"][9], "  ");
    let scores = found["tokenizer.ggml.scores"].as_array().unwrap();
    assert_eq!(
        scores[4..],
        [json!(-1000.0), json!(-1000.0), json!(-1000.0), json!(-0.0), json!(-1.0), json!(-1000.0)]
    );
    assert_eq!(found["tokenizer.ggml.token_type"], json!([3, 3, 3, 6, 1, 1, 1, 1, 1, 4]));
    assert_eq!(found["tokenizer.ggml.bos_token_id"], 1);
    assert_eq!(found["tokenizer.ggml.eos_token_id"], 2);
}

#[test]
fn tokens_around_a_text_come_from_wherever_they_are_said() {
    let folder = written("llama");
    let path = folder.path().join("tokenizer.json");
    let added = |name: &str| {
        let found = metadata(&converted(folder.path()).unwrap());
        found.get(&format!("tokenizer.ggml.{name}")).cloned()
    };
    let special = |id: &str| json!({"SpecialToken": {"id": id, "type_id": 0}});
    let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    let (begin, end) = ("<|begin_of_text|>", "<|looks_special|>");

    // Only the configuration speaks.
    change(&path, |tokenizer| tokenizer["post_processor"] = json!(null));
    change(&folder.path().join("tokenizer_config.json"), |config| {
        config["add_bos_token"] = json!(true);
        config["add_eos_token"] = json!(false);
    });
    assert_eq!(added("add_bos_token"), Some(json!(true)));
    assert_eq!(added("add_eos_token"), Some(json!(false)));
    assert_eq!(added("add_sep_token"), None);

    // What surrounds texts stands above it, and another end than that of answers is kept beside.
    change(&path, |tokenizer| {
        tokenizer["post_processor"] = json!({
            "type": "TemplateProcessing",
            "single": [text("A"), special(end)],
            "pair": [text("A"), special(end), text("B"), special(end)],
        });
    });
    assert_eq!(added("add_eos_token"), Some(json!(true)));
    assert_eq!(added("eos_token_id"), Some(json!(270)));
    assert_eq!(added("eot_token_id"), Some(json!(269)));

    change(&path, |tokenizer| {
        tokenizer["post_processor"] = json!({
            "type": "RobertaProcessing", "cls": [begin, 268], "sep": [end, 270],
        });
    });
    for name in ["add_bos_token", "add_eos_token", "add_sep_token"] {
        assert_eq!(added(name), Some(json!(true)));
    }
    assert_eq!(added("seperator_token_id"), Some(json!(270)));
}
