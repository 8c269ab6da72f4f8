//! People's words are in no log, at no level, on no path.

use hearth_tests::{TestDaemon, chat, follow};
use serde_json::json;

const SECRET: &str = "xyzzy-plugh-4711";

#[test]
fn no_prompt_and_no_answer_is_ever_logged() {
    // The harness has every daemon log at `debug`, which is all there is.
    let daemon = TestDaemon::start();
    // The answer is known, so that it can be looked for too.
    daemon.model("echo", &[("script", "the answer is frobnicate".into())]);
    daemon.model("broken", &[("crash_after", 1.into())]);
    let told = follow(&mut daemon.client(), &chat("echo", SECRET));
    assert!(told.text.contains("frobnicate"), "{:?}", told.text);
    follow(&mut daemon.client(), &chat("broken", SECRET)).error();

    let mut raw = daemon.raw();
    for params in [
        json!({ "model": "echo", "prompt": SECRET }),
        json!({ "model": "echo", "prompt": SECRET, "unknown": SECRET }),
        json!({ "model": SECRET, "prompt": SECRET }),
        json!({ "model": "echo", "prompt": 4711, "options": { "stop": [SECRET] } }),
    ] {
        raw.call("generate", &params);
    }
    raw.call("tokenize", &json!({ "model": "echo", "text": SECRET }));
    raw.call("embed", &json!({ "model": "echo", "input": [SECRET] }));
    raw.call(
        "chat.send",
        &json!({ "model": "echo", "messages": [{ "role": "user", "content": [SECRET] }] }),
    );
    raw.call(SECRET, &json!({ "a": SECRET }));
    raw.write(format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"generate\",\"params\":{{\"prompt\":\"{SECRET}\",}}}}\n"));
    raw.recv();
    raw.write(format!("{SECRET}\n"));
    raw.recv();
    hearth_tests::http(&daemon.socket(), "POST", "/rpc", &format!("{{\"{SECRET}"));
    hearth_tests::http(&daemon.socket(), "GET", &format!("/{SECRET}"), "");

    daemon.status();
    let log = daemon.log();
    assert!(log.contains("Model loaded"), "{log}");
    assert!(!log.contains(SECRET), "the log has the prompt");
    assert!(!log.contains("frobnicate"), "the log has the answer");
}
