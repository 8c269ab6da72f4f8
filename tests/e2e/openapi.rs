//! `/openapi.json`, and what schemathesis finds by it: it makes up requests, and compares the answers with what the document
//! says of them.

use crate::ollama::start;
use hearth_tests::{env_path, http, repository, run};

#[test]
fn schemathesis_finds_no_answer_that_the_document_does_not_describe() {
    let daemon = start();
    daemon.model("m", &[("script", "Yes.".into())]);
    daemon.model("ranks", &[("ranks", true.into())]);
    let mut command = daemon.command(env_path("HEARTH_TEST_CLIENTS").join("bin/schemathesis"));
    command.current_dir(daemon.dir());
    command
        .env("PYTHONPATH", repository().join("tests/clients"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("SCHEMATHESIS_HOOKS", "schemathesis_hooks");
    command.args(["--no-color", "run", &format!("http://{}/openapi.json", daemon.http())]);
    command.args(["--phases", "coverage,fuzzing", "--max-examples", "10", "--continue-on-failure"]);
    command.arg("--generation-deterministic");
    // These two leave the machine.
    command.args(["--exclude-path-regex", "^/api/(pull|push)$"]);
    // What the originals ignore is ignored, such as unknown fields; and whether a model can do what is asked is in no schema.
    command.args(["--exclude-checks", "negative_data_rejection,positive_data_acceptance"]);
    let ran = run(&mut command, "");
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("Fuzzing"), "{}", ran.stdout);
    // Nothing of it hurt the daemon.
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
}

#[test]
fn the_document_is_the_same_on_the_socket_and_says_how_errors_look_in_each_dialect() {
    let daemon = start();
    let document = http(&daemon.socket(), "GET", "/openapi.json", "").body;
    assert_eq!(document["openapi"], "3.1.0");
    let error = |path: &str| {
        let operation = &document["paths"][path]["post"]["responses"]["4XX"];
        operation["content"]["application/json"]["schema"]["properties"].clone()
    };
    assert_eq!(error("/api/chat")["error"]["type"], "string");
    assert!(error("/v1/chat/completions")["error"]["properties"]["code"].is_object());
    assert!(error("/v1/messages")["request_id"].is_object());
}
