//! Clients of other projects, which nobody here wrote, with the real default model. What they say is in `tests/clients`.

use crate::MODEL;
use hearth_protocol::ImportMode;
use hearth_tests::{TestDaemon, env_path, repository, run};

/// A daemon that listens on TCP, with a model that writes and one that embeds.
fn start() -> TestDaemon {
    let daemon = TestDaemon::builder_with(env_path("HEARTH_TEST_BACKENDS"))
        .config("[http]\nlisten = [\"127.0.0.1:0\"]")
        .start();
    daemon.import(&env_path("HEARTH_TEST_SMOLLM2"), MODEL, ImportMode::Link);
    daemon.import(&env_path("HEARTH_TEST_MINILM"), "minilm", ImportMode::Link);
    daemon
}

/// Runs one of the scripts, which finds the daemon by this variable.
#[track_caller]
fn python(daemon: &TestDaemon, script: &str, variable: &str, address: String) {
    let mut command = daemon.command(env_path("HEARTH_TEST_CLIENTS").join("bin/python"));
    command.arg(repository().join("tests/clients").join(script)).env(variable, address);
    let said = run(&mut command, "").ok();
    assert!(said.ends_with("all is well\n"), "{said}");
}

#[test]
fn the_ollama_client_for_python_works() {
    let daemon = start();
    python(&daemon, "ollama_client.py", "OLLAMA_HOST", daemon.http());
    // Nor does the answer that it left run on.
    daemon.await_idle();
}
