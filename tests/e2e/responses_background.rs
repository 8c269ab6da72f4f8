//! OpenAI's Responses that go on without their clients.

use crate::responses::{
    ask, endless, fetch, heard, kinds, path, post, refused, respond, streaming,
};
use hearth_tests::{TestDaemon, eventually_is, http};
use serde_json::{Value, json};

#[test]
fn a_response_in_the_background_outlives_its_client_and_is_heard_again() {
    let daemon = TestDaemon::start();
    daemon.model(
        "slow",
        &[("script", "It goes on and on.".into()), ("slow_us_per_decode", 20_000.into())],
    );
    let more = json!({ "background": true, "reasoning": { "effort": "none" } });
    let begun = respond(&daemon, &ask("slow", more.clone()));
    assert_eq!((&begun["status"], &begun["background"]), (&json!("queued"), &json!(true)));
    let poll = || fetch(&daemon, &path(&begun["id"], ""));
    assert!(["in_progress", "completed"].contains(&poll()["status"].as_str().unwrap()));
    let events = heard(&daemon, &path(&begun["id"], "?stream=true"), None, 0);
    let ended = poll();
    assert_eq!(ended["output"][0]["content"][0]["text"], "It goes on and on.");
    if kinds(&events).len() > 1 {
        assert_eq!(kinds(&events)[..3], ["created", "queued", "in_progress"]);
    }
    assert_eq!(events.last().unwrap()["response"], ended);
    let again = heard(&daemon, &path(&begun["id"], "?stream=true&starting_after=41"), None, 42);
    assert_eq!((kinds(&again), &again[0]["response"]), (vec!["completed"], &ended));

    // Heard from the beginning by one who leaves, and then from there on.
    let mut body = ask("slow", more);
    body["stream"] = true.into();
    let mut lines = streaming(&daemon, &body);
    let created = lines.find(|event| event["type"] == "response.created").unwrap();
    let heard_last = lines.find(|event| event["type"] == "response.output_text.delta").unwrap();
    drop(lines);
    let number = heard_last["sequence_number"].as_u64().unwrap();
    let query = format!("?stream=true&starting_after={number}");
    let rest = heard(&daemon, &path(&created["response"]["id"], &query), None, number + 1);
    assert_eq!(kinds(&rest).last(), Some(&"completed"));
    refused(
        &post(&daemon, &ask("slow", json!({ "background": true, "store": false }))),
        400,
        "invalid_params",
    );
}

#[test]
fn a_response_in_the_background_is_cancelled_once_and_for_all() {
    let daemon = TestDaemon::start();
    endless(&daemon);
    let begun = respond(&daemon, &ask("endless", json!({ "background": true })));
    let id = &begun["id"];
    refused(&http(&daemon.socket(), "DELETE", &path(id, ""), ""), 409, "in_use");
    refused(
        &post(&daemon, &ask("endless", json!({ "previous_response_id": id }))),
        400,
        "invalid_params",
    );
    let cancel = || http(&daemon.socket(), "POST", &path(id, "/cancel"), "").body;
    let cancelled = cancel();
    assert_eq!((&cancelled["status"], &cancelled["error"]), (&json!("cancelled"), &Value::Null));
    daemon.await_idle();
    assert_eq!(cancel(), cancelled);
    assert_eq!(fetch(&daemon, &path(id, "")), cancelled);
    assert_eq!(http(&daemon.socket(), "DELETE", &path(id, ""), "").status, 200);

    daemon.model("tiny", &[("script", "Yes.".into())]);
    let plain = respond(&daemon, &ask("tiny", json!({})));
    let reply = http(&daemon.socket(), "POST", &path(&plain["id"], "/cancel"), "");
    refused(&reply, 400, "invalid_params");
}

#[test]
fn a_response_whose_daemon_was_killed_has_failed() {
    let mut daemon = TestDaemon::start();
    endless(&daemon);
    let begun = respond(&daemon, &ask("endless", json!({ "background": true })));
    eventually_is("the response to run", || {
        daemon.loaded().iter().any(|model| model.active_requests > 0)
    });
    daemon.kill();
    daemon.restart();
    let ended = fetch(&daemon, &path(&begun["id"], ""));
    assert_eq!(
        (&ended["status"], &ended["error"]["code"]),
        (&json!("failed"), &json!("server_error"))
    );
    daemon.stop_cleanly();
}
