//! OpenAI's own client for Python, driven by a script in `tests/clients` against real models.

use super::MODEL;
use hearth_tests::{TestDaemon, env_path, repository, run};

const EMBEDDING_MODEL: &str = "all-minilm:latest";

fn start() -> TestDaemon {
    let daemon = TestDaemon::builder_with(env_path("HEARTH_TEST_BACKENDS"))
        .config("[http]\nlisten = [\"127.0.0.1:0\"]")
        .start();
    for (variable, name) in
        [("HEARTH_TEST_SMOLLM2", MODEL), ("HEARTH_TEST_MINILM", EMBEDDING_MODEL)]
    {
        let file = env_path(variable).display().to_string();
        daemon.ctl(["import", &file, name, "--link"]).ok();
    }
    daemon
}

#[test]
fn openais_own_client_for_python_works() {
    let daemon = start();
    let mut python = daemon.command(env_path("HEARTH_TEST_CLIENTS").join("bin/python"));
    python
        .arg(repository().join("tests/clients/openai_client.py"))
        .arg(format!("http://{}/v1", daemon.http()))
        .args([MODEL, EMBEDDING_MODEL]);
    let said = run(&mut python, "").ok();
    assert!(said.ends_with("at_once\n"), "{said}");
    // Nothing that the client left goes on.
    daemon.await_idle();
}
