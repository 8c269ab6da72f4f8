//! What a model's own options change in how it is loaded, and what is said of those that change nothing.

use hearth_protocol::{
    CreateFile, CreateParams, Generate, GenerateReply, ModelCreate, ModelDetails, ModelParams,
    ModelShow,
};
use hearth_reference::Value;
use hearth_tests::{TestDaemon, generate, reference_model};
use serde_json::json;
use std::path::PathBuf;

fn create(daemon: &TestDaemon, params: &serde_json::Value, draft: Option<PathBuf>) {
    let settings = [("eos_one_in", 0_u64.into()), ("slow_us_per_decode", 10_000_u64.into())];
    create_of(daemon, &settings, params, draft);
}

/// A shape whose memory is known, which the plugin does not load.
const SHAPE: [(&str, Value); 4] = [
    ("hearth-reference.attention.head_count", Value::Uint(2)),
    ("hearth-reference.block_count", Value::Uint(2)),
    ("hearth-reference.context_length", Value::Uint(40_000)),
    ("hearth-reference.feed_forward_length", Value::Uint(1024)),
];

fn create_of(
    daemon: &TestDaemon,
    settings: &[(&str, Value)],
    params: &serde_json::Value,
    draft: Option<PathBuf>,
) {
    let path = |path: PathBuf| CreateFile::Path(path.display().to_string());
    let big = reference_model(daemon.dir(), "big", settings);
    let params = CreateParams {
        model: "big".into(),
        files: vec![path(big)],
        draft: draft.map(path),
        parameters: params.as_object().unwrap().clone(),
        ..CreateParams::default()
    };
    daemon.client().call::<ModelCreate>(&params).unwrap();
}

#[test]
fn a_models_own_batch_is_the_largest_step_unless_the_configuration_has_one() {
    // A step's results are all of the estimate that depends on it.
    let bytes_of_steps = |config: &str| {
        let daemon = TestDaemon::builder().config(config).start();
        create_of(&daemon, &SHAPE, &json!({ "num_batch": 32 }), None);
        show(&daemon).memory[0].compute_bytes - (40 << 20)
    };
    let [own, configured] = ["", "[engine]\nbatch = 64"].map(bytes_of_steps);
    assert!(own > 0);
    assert_eq!(configured, 2 * own);
}

#[test]
fn memory_is_told_for_the_format_that_keys_and_values_have_here() {
    for (config, bytes_of_32) in [
        ("", 64),
        ("[engine]\nkv_type = \"f32\"", 128),
        ("[engine]\nkv_type = \"q8_0\"", 34),
        ("[engine]\nkv_type = \"q8_0\"\n[model.big]\nkv_type = \"q4_0\"", 18),
    ] {
        let daemon = TestDaemon::builder().config(config).start();
        create_of(&daemon, &SHAPE, &json!({}), None);
        // 2 layers of 2 heads with keys and values of 16 numbers each.
        assert_eq!(show(&daemon).memory[0].kv_bytes, 4096 * 2 * 2 * bytes_of_32, "{config}");
    }
}

fn show(daemon: &TestDaemon) -> ModelDetails {
    daemon.client().call::<ModelShow>(&ModelParams { model: "big".into() }).unwrap()
}

#[test]
fn options_without_effect_are_named_with_why() {
    let daemon = TestDaemon::start();
    create(
        &daemon,
        &json!({ "num_batch": 32, "num_thread": 1, "num_gpu": 0, "use_mmap": false, "use_mlock": true }),
        None,
    );
    answer(&daemon);
    let shown = show(&daemon);
    let names: Vec<_> = shown.options_without_effect.iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["use_mlock"]);
    let text = daemon.ctl(["show", "big"]).ok();
    assert!(text.contains("num_batch 32\n") && text.contains("use_mlock true, without"), "{text}");
}

fn answer(daemon: &TestDaemon) -> GenerateReply {
    let mut params = generate("big", "once upon a time");
    params.options.max_tokens = Some(200);
    daemon.client().call::<Generate>(&params).unwrap()
}

#[test]
fn a_models_own_draft_guesses_for_it() {
    let daemon = TestDaemon::start();
    let small = reference_model(daemon.dir(), "small", &[("eos_one_in", 0_u64.into())]);
    create(&daemon, &json!({}), Some(small));
    assert!(answer(&daemon).usage.guessed_tokens > 100);
    assert_eq!(daemon.loaded()[0].draft.as_deref(), Some("big:latest"));
}

#[test]
fn a_models_own_draft_that_cannot_guess_is_passed_over() {
    let daemon = TestDaemon::start();
    let alien = reference_model(daemon.dir(), "alien", &[("extra_tokens", 500_u64.into())]);
    create(&daemon, &json!({}), Some(alien));
    answer(&daemon);
    assert_eq!(daemon.loaded()[0].draft, None);
    assert!(daemon.log().contains("cannot guess ahead"), "{}", daemon.log());
}
