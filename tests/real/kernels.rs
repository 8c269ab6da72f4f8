//! The kernels of `backends/llama` beside ggml's own.

use hearth_tests::{env_path, run};
use std::process::Command;

/// Nats per token, with the plugin's kernels or ggml's.
fn score(model: &str, kernels: &str) -> f64 {
    let mut command = Command::new(env!("CARGO_BIN_EXE_score"));
    command.arg(env_path("HEARTH_TEST_BACKENDS").join("libhearth_cpu.so")).arg(env_path(model));
    // Beside other tests, threads that wait must not take their processors.
    command.env("HEARTH_LLAMA_KERNELS", kernels).env("GOMP_SPINCOUNT", "1000");
    run(&mut command, "").ok().trim().parse().unwrap()
}

#[test]
fn a_model_predicts_as_well_as_with_ggmls_kernels() {
    for model in ["HEARTH_TEST_SMOLLM2", "HEARTH_TEST_GEMMA3"] {
        let (own, ggml) = (score(model, "own"), score(model, "ggml"));
        // Tokens are rounded to eight bits by both, each in its way: single logits differ, the mean hardly.
        assert!((own - ggml).abs() < 0.02 * ggml, "{model}: {own} with ours, {ggml} with ggml's");
    }
}
