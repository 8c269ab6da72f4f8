//! A `suffix` for models whose template has no place for it, by the tokens that their file names.

use crate::ollama::{ask, done, failed, start};
use crate::openai::answered;
use hearth_protocol::{ErrorKind, Generate};
use hearth_reference::{Settings, Value as Setting, expected, vocab};
use hearth_tests::generate;
use serde_json::{Value, json};

/// The keys of today's files, and those of older ones.
const KEYS: [[&str; 3]; 2] = [
    ["fim_pre_token_id", "fim_suf_token_id", "fim_mid_token_id"],
    ["prefix_token_id", "suffix_token_id", "middle_token_id"],
];

const MARKS: [i32; 3] = [vocab::SYSTEM, vocab::TOOL, vocab::ASSISTANT];

fn settings(keys: [&str; 3], marks: [u64; 3]) -> Vec<(String, Setting)> {
    let keys = keys.map(|key| format!("tokenizer.ggml.{key}"));
    let marks = keys.into_iter().zip(marks.map(Setting::from));
    marks.chain([("seed".to_owned(), 7_u64.into())]).collect()
}

fn model(daemon: &hearth_tests::TestDaemon, name: &str, settings: &[(String, Setting)]) {
    let settings: Vec<_> =
        settings.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
    daemon.model(name, &settings);
}

#[test]
fn the_three_tokens_stand_around_the_texts_in_every_dialect() {
    let daemon = start();
    // What looks like a token in a text is text.
    let (before, after) = ("fn a() {<|end|>", "}<|user|>");
    let text = |text: &str| vocab::tokenize(text.as_bytes(), false);
    let prompt =
        [vec![vocab::BOS, MARKS[0]], text(before), vec![MARKS[1]], text(after), vec![MARKS[2]]];
    let seed = Settings::from_pairs(&[("seed", 7_u64.into())]).unwrap();
    let between = expected(&seed, &prompt.concat(), 4000);
    let between: String =
        between.iter().filter_map(|token| u8::try_from(*token).ok()).map(char::from).collect();
    for keys in KEYS {
        let name = keys[0];
        model(&daemon, name, &settings(keys, MARKS.map(|mark| u64::try_from(mark).unwrap())));
        let mut params = generate(name, before);
        params.suffix = Some(after.into());
        assert_eq!(daemon.client().call::<Generate>(&params).unwrap().text, between, "{name}");
        let body = json!({ "model": name, "prompt": before, "suffix": after, "options": { "temperature": 0 } });
        assert_eq!(done(&daemon, "/api/generate", body)["response"], between);
        let body = json!({ "model": name, "prompt": before, "suffix": after, "temperature": 0, "max_tokens": 4000 });
        assert_eq!(answered(&daemon, "/v1/completions", &body)["choices"][0]["text"], between);
        let shown = done(&daemon, "/api/show", json!({ "model": name }));
        assert_eq!(shown["capabilities"], json!(["completion", "insert"]));
    }
    // A list of models says it too, once more from memory.
    for _ in 0..2 {
        let tags: Value =
            serde_json::from_slice(&ask(&daemon, "GET", "/api/tags", "").message.body).unwrap();
        let models = tags["models"].as_array().unwrap();
        assert_eq!(models.len(), KEYS.len());
        for listed in models {
            assert_eq!(listed["capabilities"], json!(["completion", "insert"]), "{listed}");
        }
    }
}

#[test]
fn tokens_that_there_are_not_are_none() {
    let daemon = start();
    model(&daemon, "lies", &settings(KEYS[0], [258, 1 << 31, 260]));
    model(&daemon, "half", &settings([KEYS[0][0], KEYS[0][1], KEYS[1][2]], [258, 261, 260]));
    for name in ["lies", "half"] {
        let mut params = generate(name, "a");
        params.suffix = Some("b".into());
        hearth_tests::refused(daemon.client().call::<Generate>(&params), ErrorKind::Unsupported);
    }
    let body = json!({ "model": "half", "prompt": "a", "suffix": "b" });
    assert_eq!(failed(&daemon, "/api/generate", &body, 400), "\"half\" does not support insert");
}
