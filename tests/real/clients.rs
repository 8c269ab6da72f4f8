//! Clients of other projects, which nobody here wrote, with the real default model. What they say is in `tests/clients`.

use crate::MODEL;
use hearth_protocol::ImportMode;
use hearth_tests::{TestDaemon, env_path, repository, run};
use std::path::Path;

/// A daemon that listens on TCP, with a model that writes and one that embeds.
fn start() -> TestDaemon {
    let daemon = TestDaemon::builder_with(env_path("HEARTH_TEST_BACKENDS"))
        .config("[http]\nlisten = [\"127.0.0.1:0\"]")
        .start();
    daemon.import(&env_path("HEARTH_TEST_SMOLLM2"), MODEL, ImportMode::Link);
    daemon.import(&env_path("HEARTH_TEST_MINILM"), "minilm", ImportMode::Link);
    daemon
}

/// Runs one of the scripts, which finds the daemon by these variables.
#[track_caller]
fn well(daemon: &TestDaemon, program: impl AsRef<Path>, script: &str, env: &[(&str, String)]) {
    let mut command = daemon.command(program.as_ref());
    command.arg(repository().join("tests/clients").join(script));
    command.envs(env.iter().map(|(name, value)| (name, value)));
    let said = run(&mut command, "").ok();
    assert!(said.ends_with("all is well\n"), "{said}");
    // Nor does an answer that it left run on.
    daemon.await_idle();
}

#[track_caller]
fn python(script: &str, variable: &str) {
    let daemon = start();
    let python = env_path("HEARTH_TEST_CLIENTS").join("bin/python");
    let url = format!("http://{}", daemon.http());
    well(&daemon, python, script, &[(variable, url)]);
}

#[track_caller]
fn node(script: &str) {
    let daemon = start();
    let modules = env_path("HEARTH_TEST_CLIENTS").join("node_modules").display().to_string();
    let url = format!("http://{}", daemon.http());
    well(&daemon, "node", script, &[("HEARTH_URL", url), ("NODE_PATH", modules)]);
}

#[test]
fn the_ollama_client_for_python_works() {
    python("ollama_client.py", "OLLAMA_HOST");
}

#[test]
fn langchain_works_with_its_packages_for_ollama_and_openai() {
    python("langchain_client.py", "HEARTH_URL");
}

#[test]
fn the_openai_client_for_node_works() {
    node("openai_client.cjs");
}

#[test]
fn the_ollama_client_for_node_works() {
    node("ollama_client.cjs");
}

#[test]
fn the_anthropic_client_for_node_works() {
    node("anthropic_client.cjs");
}

#[test]
fn the_ai_package_for_node_works_with_its_provider_for_openais_api() {
    node("ai_client.cjs");
}
