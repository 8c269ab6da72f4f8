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
fn well(program: impl AsRef<Path>, script: &str) {
    let daemon = start();
    let url = format!("http://{}", daemon.http());
    let mut command = daemon.command(program.as_ref());
    command
        .arg(repository().join("tests/clients").join(script))
        .env("HEARTH_URL", &url)
        .env("OLLAMA_HOST", &url)
        .env("NODE_PATH", env_path("HEARTH_TEST_CLIENTS").join("node_modules"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let said = run(&mut command, "").ok();
    assert!(said.ends_with("all is well\n"), "{said}");
    // Nor does an answer that it left run on.
    daemon.await_idle();
}

#[track_caller]
fn python(script: &str) {
    well(env_path("HEARTH_TEST_CLIENTS").join("bin/python"), script);
}

#[track_caller]
fn node(script: &str) {
    well("node", script);
}

#[test]
fn the_anthropic_client_for_python_works() {
    python("anthropic_client.py");
}

#[test]
fn the_ollama_client_for_python_works() {
    python("ollama_client.py");
}

#[test]
fn the_openai_client_for_python_works() {
    python("openai_client.py");
}

#[test]
fn the_openai_client_for_python_uses_responses() {
    python("openai_responses.py");
}

#[test]
fn langchain_works_with_its_packages_for_ollama_and_openai() {
    python("langchain_client.py");
}

#[test]
fn the_anthropic_client_for_node_works() {
    node("anthropic_client.cjs");
}

#[test]
fn the_ollama_client_for_node_works() {
    node("ollama_client.cjs");
}

#[test]
fn the_openai_client_for_node_works() {
    node("openai_client.cjs");
}

#[test]
fn the_ai_package_for_node_works_with_its_provider_for_openais_api() {
    node("ai_client.cjs");
}
