//! The kernels of `backends/llama` beside ggml's own, and every format of KV memory beside the usual one.

use hearth_tests::{env_path, run};
use std::process::Command;

/// Nats per token, with the plugin's kernels or ggml's, a KV format and flash attention.
fn score(model: &str, kernels: &str, formats: &[&str]) -> f64 {
    let mut command = Command::new(env!("CARGO_BIN_EXE_score"));
    command
        .arg(env_path("HEARTH_TEST_BACKENDS").join("libhearth_cpu.so"))
        .arg(env_path(model))
        .args(formats);
    // Beside other tests, threads that wait must not take their processors.
    command.env("HEARTH_LLAMA_KERNELS", kernels).env("GOMP_SPINCOUNT", "1000");
    run(&mut command, "").ok().trim().parse().unwrap()
}

#[test]
fn a_model_predicts_as_well_as_with_ggmls_kernels() {
    for model in ["HEARTH_TEST_SMOLLM2", "HEARTH_TEST_GEMMA3"] {
        let (own, ggml) = (score(model, "own", &[]), score(model, "ggml", &[]));
        // Tokens are rounded to eight bits by both, each in its way: single logits differ, the mean hardly.
        assert!((own - ggml).abs() < 0.02 * ggml, "{model}: {own} with ours, {ggml} with ggml's");
    }
}

#[test]
fn a_model_predicts_with_kv_memory_of_any_format() {
    let model = "HEARTH_TEST_SMOLLM2";
    let usual = score(model, "own", &["f16"]);
    let formats = [("f16", "off"), ("f32", "on"), ("f32", "off"), ("q8_0", "on"), ("q4_0", "on")];
    for (kv, flash) in formats {
        let found = score(model, "own", &[kv, flash]);
        // Four bits cost this model of 135 million weights more than a tenth of a nat; the others are noise.
        let most = if kv == "q4_0" { 0.1 } else { 0.02 };
        assert!((found - usual).abs() < most * usual, "{kv}, flash {flash}: {found}, not {usual}");
    }
}
