//! The conformance check against plugins that keep the contract, and against plugins that break one rule each.
//!
//! `backends/abi/tests/broken.c` is `examples/minimal.c` with one function replaced; which one, a macro says. The
//! scenario that names the rule must be the one that fails.

#[path = "../../abi/tests/compiler/mod.rs"]
mod compiler;

use compiler::{abi_dir, compile_plugin};
use hearth_abi::check::{self, Outcome, SCENARIOS, Verdict};
use hearth_reference::{Value, write_model, write_projector};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The cdylib, which cargo builds together with this test and puts beside it, as a copy that only its owner can write.
fn reference_plugin(dir: &Path) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let name =
        format!("{}hearth_reference{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let copy = dir.join(&name);
    std::fs::copy(own.parent().unwrap().join(&name), &copy).unwrap();
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).unwrap();
    copy
}

fn run(plugin: &Path, model: Option<&Path>, projector: Option<&Path>) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    check::run(plugin, model, projector, &mut |outcome| outcomes.push(outcome));
    assert_eq!(outcomes.len(), SCENARIOS.len() + 1, "every scenario reports once");
    outcomes
}

fn failures(outcomes: &[Outcome]) -> Vec<(&'static str, String)> {
    let failed = outcomes.iter().filter_map(|outcome| match &outcome.verdict {
        Verdict::Failed(reason) => Some((outcome.scenario, reason.clone())),
        _ => None,
    });
    failed.collect()
}

fn not_applicable(outcomes: &[Outcome]) -> Vec<&'static str> {
    let is_one = |outcome: &&Outcome| matches!(outcome.verdict, Verdict::NotApplicable(_));
    outcomes.iter().filter(is_one).map(|outcome| outcome.scenario).collect()
}

/// The check of the reference plugin with a model of these settings.
fn run_reference(pairs: &[(&str, Value)]) -> Vec<Outcome> {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model.gguf");
    let projector = dir.path().join("projector.gguf");
    write_model(&model, pairs).unwrap();
    write_projector(&projector, 7).unwrap();
    run(&reference_plugin(dir.path()), Some(&model), Some(&projector))
}

#[test]
fn the_reference_plugin_passes_everything() {
    let outcomes = run_reference(&[]);
    assert_eq!(failures(&outcomes), []);
    assert_eq!(not_applicable(&outcomes), [""; 0]);
}

#[test]
fn memory_that_cannot_roll_back_passes() {
    let outcomes = run_reference(&[
        ("roll_back", false.into()),
        ("can_shift", false.into()),
        ("can_save", false.into()),
    ]);
    assert_eq!(failures(&outcomes), []);
    assert_eq!(
        not_applicable(&outcomes),
        ["seq-shift-shared", "seq-load-damaged", "part-load-misfit"]
    );
}

#[test]
fn a_model_that_ranks_texts_passes() {
    let outcomes = run_reference(&[("ranks", true.into()), ("can_generate", false.into())]);
    assert_eq!(failures(&outcomes), []);
    assert!(!not_applicable(&outcomes).contains(&"embeddings"));
}

#[test]
fn without_a_model_the_rest_still_runs() {
    let dir = tempfile::tempdir().unwrap();
    let outcomes = run(&reference_plugin(dir.path()), None, None);
    assert_eq!(failures(&outcomes), []);
    let with_model = not_applicable(&outcomes).len();
    assert_eq!(outcomes.len() - with_model, 9, "{outcomes:#?}");
}

#[test]
fn lying_memory_is_caught() {
    let failed = failures(&run_reference(&[("kv_lie", true.into())]));
    assert_eq!(
        failed.iter().map(|(scenario, _)| *scenario).collect::<Vec<_>>(),
        ["seq-roll-back", "images"],
        "{failed:#?}"
    );
}

/// Compiles a plugin from a file of `backends/abi` and checks it with a model of the minimal plugin.
fn run_c(source: &str, flags: &[&str]) -> Vec<Outcome> {
    let dir = tempfile::tempdir().unwrap();
    let (plugin, model) = (dir.path().join("plugin.so"), dir.path().join("model"));
    compile_plugin(&abi_dir().join(source), &plugin, flags);
    std::fs::write(&model, "minimal\n").unwrap();
    run(&plugin, Some(&model), None)
}

#[test]
fn the_minimal_plugin_passes() {
    let outcomes = run_c("examples/minimal.c", &[]);
    assert_eq!(failures(&outcomes), []);
    let missing = [
        "seq-shift-shared",
        "seq-load-damaged",
        "part-load-misfit",
        "embeddings",
        "chat-render",
        "chat-refuse",
        "chat-parse",
        "grammar",
        "adapters",
        "projector",
        "images",
        "images-refused",
        "quantize",
        "quantize-cancel",
    ];
    assert_eq!(not_applicable(&outcomes), missing);
}

#[test]
fn each_broken_rule_is_caught_by_its_scenario() {
    let broken = [
        ("BREAK_NAME", "entry"),
        ("BREAK_EXTENSION", "extensions"),
        ("BREAK_MESSAGE", "open-missing-file"),
        ("BREAK_OPEN_HANDLE", "open-missing-file"),
        ("BREAK_PROGRESS", "open-cancel"),
        ("BREAK_STRUCT_SIZE", "struct-size"),
        ("BREAK_TOKENIZE_NUL", "tokenize-round-trip"),
        ("BREAK_TOKENIZE_OVERRUN", "buffer-too-small"),
        ("BREAK_TOKEN_RANGE", "token-range"),
        ("BREAK_THREADS", "set-threads"),
        ("BREAK_BLAME", "decode-in-parts"),
        ("BREAK_LOGITS_ROW", "decode-outputs"),
        ("BREAK_DECODE_POSITIONS", "decode-refused"),
        ("BREAK_KV_FULL", "kv-full"),
        ("BREAK_REMOVE_LEAK", "seq-remove-all"),
        ("BREAK_SEQ_COPY", "seq-copy"),
        ("BREAK_SEQ_COPY_PART", "seq-copy-part"),
        ("BREAK_LOG_LINE", "log-lines"),
    ];
    assert_eq!(
        failures(&run_c("tests/broken.c", &["-DBREAK_NOTHING"])),
        [],
        "nothing is broken yet"
    );
    for (what, scenario) in broken {
        let failed = failures(&run_c("tests/broken.c", &[&format!("-D{what}")]));
        assert!(
            failed.iter().any(|(name, _)| *name == scenario),
            "{what} is not caught: {failed:#?}"
        );
    }
}
