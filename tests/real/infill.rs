//! Filling in text by tokens that are known by their texts alone, as in most files of models that were made for it.

use crate::start;
use hearth_protocol::{Generate, Tokenize, TokenizeParams};
use hearth_tests::{TestDaemon, env_path, generate};
use serde_json::json;

/// As long as those whose places they take.
const MARKS: [(&str, &str); 3] = [
    ("<jupyter_text>", "<|fim_prefix|>"),
    ("<jupyter_code>", "<|fim_suffix|>"),
    ("<empty_output>", "<|fim_middle|>"),
];

/// A model whose vocabulary has marks, although it was never shown any.
fn import(daemon: &TestDaemon) {
    let mut bytes = std::fs::read(env_path("HEARTH_TEST_SMOLLM2")).unwrap();
    for (old, new) in MARKS {
        let at = bytes.windows(old.len()).position(|text| text == old.as_bytes()).unwrap();
        bytes[at..at + new.len()].copy_from_slice(new.as_bytes());
    }
    let path = daemon.dir().join("coder.gguf");
    std::fs::write(&path, bytes).unwrap();
    daemon.ctl(["import", path.to_str().unwrap(), "coder", "--link"]).ok();
}

#[test]
fn marks_that_no_key_names_are_found_by_their_texts() {
    let daemon = start();
    import(&daemon);
    let mut client = daemon.client();
    let (before, after) = ("def add(a, b):\n    return", "\n\nprint(add(1, 2))");
    let mut n_tokens = 3;
    for text in [before, after] {
        let params = json!({ "model": "coder", "text": text, "add_special": false });
        let params: TokenizeParams = serde_json::from_value(params).unwrap();
        n_tokens += client.call::<Tokenize>(&params).unwrap().tokens.len();
    }
    let mut params = generate("coder", before);
    params.suffix = Some(after.into());
    params.options.max_tokens = Some(8);
    let between = client.call::<Generate>(&params).unwrap();
    assert_eq!(usize::try_from(between.usage.prompt_tokens).unwrap(), n_tokens);

    // The same as the prompt that llama-server would write.
    let [pre, suf, mid] = MARKS.map(|(_, mark)| mark);
    let spelled = generate("coder", &format!("{pre}{before}{suf}{after}{mid}"));
    let mut spelled = hearth_protocol::GenerateParams { raw: true, ..spelled };
    spelled.options.max_tokens = Some(8);
    let spelled = client.call::<Generate>(&spelled).unwrap();
    assert_eq!(
        (between.text, between.usage.prompt_tokens),
        (spelled.text, spelled.usage.prompt_tokens)
    );
}
