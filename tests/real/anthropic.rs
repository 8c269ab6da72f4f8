//! Anthropic's own client for Python, which nobody here wrote, driven by a script in `tests/clients`.

use super::MODEL;
use hearth_protocol::ImportMode;
use hearth_tests::{TestDaemon, env_path, repository, run};

#[test]
fn anthropics_own_client_for_python_works() {
    let daemon = TestDaemon::builder_with(env_path("HEARTH_TEST_BACKENDS"))
        .config("[http]\nlisten = [\"127.0.0.1:0\"]")
        .start();
    daemon.import(&env_path("HEARTH_TEST_SMOLLM2"), MODEL, ImportMode::Link);
    let mut python = daemon.command(env_path("HEARTH_TEST_CLIENTS").join("bin/python"));
    python
        .arg(repository().join("tests/clients/anthropic_client.py"))
        .arg(format!("http://{}", daemon.http()))
        .arg(MODEL);
    let said = run(&mut python, "").ok();
    assert!(said.ends_with("all is well\n"), "{said}");
    // Nor does the answer that it left run on.
    daemon.await_idle();
}
