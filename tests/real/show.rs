//! What `model.show` says of memory, and what a worker takes; and what a file says of itself.

use crate::start_with_config;
use hearth_protocol::{Generate, ModelParams, ModelShow};
use hearth_tests::{generate, http};
use serde_json::json;

/// How far the estimate may be from what is taken.
const MARGIN: f64 = 0.25;

#[test]
fn a_full_context_takes_what_was_said() {
    for (variable, name, prompt_words) in
        [("HEARTH_TEST_SMOLLM2", "smollm2:135m", 3900), ("HEARTH_TEST_GEMMA3", "gemma3:270m", 3900)]
    {
        let daemon = start_with_config(variable, name, "[engine]\ncontext = 4096\narchive_mib = 0");
        let mut client = daemon.client();
        let shown = client.call::<ModelShow>(&ModelParams { model: name.into() }).unwrap();
        let said = shown.memory.iter().find(|estimate| estimate.context == 4096).unwrap();
        assert_eq!(
            said.total_bytes,
            said.weights_bytes + said.kv_bytes + said.compute_bytes,
            "{said:?}"
        );
        let mut params = generate(name, &" and".repeat(prompt_words));
        params.options.max_tokens = Some(2);
        let reply = client.call::<Generate>(&params).unwrap();
        assert!(reply.usage.prompt_tokens >= 3900, "{:?}", reply.usage);
        let taken = taken_bytes(daemon.loaded()[0].pid, said.weights_bytes + said.kv_bytes) as f64;
        let ratio = said.total_bytes as f64 / taken;
        assert!(
            (1.0 - MARGIN..=1.0 + MARGIN).contains(&ratio),
            "{name}: {said:?}, and {taken} are taken"
        );
    }
}

#[test]
fn a_verbose_show_has_the_arrays_and_tensors_of_the_file_and_a_plain_one_has_not() {
    let daemon = start_with_config("HEARTH_TEST_SMOLLM2", "smollm2:135m", "");
    let show = |verbose: bool| {
        let body = json!({ "model": "smollm2:135m", "verbose": verbose }).to_string();
        http(&daemon.socket(), "POST", "/api/show", &body).body
    };
    let (plain, verbose) = (show(false), show(true));
    for shown in [&plain, &verbose] {
        assert_eq!(shown["model_info"]["llama.block_count"], 30);
        assert_eq!(shown["details"]["context_length"], 8192);
    }
    assert_eq!(plain["model_info"]["tokenizer.ggml.tokens"], json!([]));
    assert!(plain["tensors"].is_null());
    let tokens = verbose["model_info"]["tokenizer.ggml.tokens"].as_array().unwrap();
    assert_eq!((tokens.len(), &tokens[1]), (49_152, &json!("<|im_start|>")));
    let types = verbose["model_info"]["tokenizer.ggml.token_type"].as_array().unwrap();
    assert!(types.len() == tokens.len() && types[1] == 3);
    let tensor = &verbose["tensors"][0];
    assert!(tensor["name"].is_string() && tensor["type"].is_string(), "{tensor}");
    assert!(tensor["shape"].as_array().is_some_and(|shape| !shape.is_empty()), "{tensor}");
}

/// What a process holds. Weights that were laid out anew for the processor are in memory of its own, and then the pages of their file
/// are a cache that the system takes back as it likes.
fn taken_bytes(pid: u32, weights_and_kv: u64) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let bytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() * 1024
    };
    let (own, file) = (bytes("RssAnon:"), bytes("RssFile:"));
    if own > weights_and_kv { own } else { own + file }
}
