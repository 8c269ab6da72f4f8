//! Responses by OpenAI's own client for Python, driven by a script in `tests/clients` against the real default model.

use super::MODEL;
use hearth_protocol::ImportMode;
use hearth_tests::{TestDaemon, env_path, repository, run};

#[test]
fn openais_own_client_for_python_uses_responses() {
    let daemon = TestDaemon::builder_with(env_path("HEARTH_TEST_BACKENDS"))
        .config("[http]\nlisten = [\"127.0.0.1:0\"]")
        .start();
    daemon.import(&env_path("HEARTH_TEST_SMOLLM2"), MODEL, ImportMode::Link);
    let mut python = daemon.command(env_path("HEARTH_TEST_CLIENTS").join("bin/python"));
    python
        .arg(repository().join("tests/clients/openai_responses.py"))
        .arg(format!("http://{}/v1", daemon.http()))
        .arg(MODEL);
    let said = run(&mut python, "").ok();
    assert!(said.ends_with("at_once\n"), "{said}");
    // Nothing that the client left goes on.
    daemon.await_idle();
}
