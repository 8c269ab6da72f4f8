//! OpenAI's Responses that go on without their clients.

use crate::responses::{ask, fetch, hearing, kinds, path, post, refused, respond, streaming};
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
    daemon.ctl(["load", "slow"]).ok();
    let held = daemon.hold_worker();
    let begun = respond(&daemon, &ask("slow", more.clone()));
    assert_eq!((&begun["status"], &begun["background"]), (&json!("queued"), &json!(true)));
    let poll = || fetch(&daemon, &path(&begun["id"], ""));
    assert_eq!(poll()["status"], "in_progress");
    let hear = |query: &str, first| hearing(&daemon, &path(&begun["id"], query), None, first);
    let mut whole = hear("?stream=true", 0);
    let mut events = vec![whole.next().unwrap()];
    drop(held);
    events.extend(whole);
    assert_eq!(kinds(&events)[..3], ["created", "queued", "in_progress"]);
    let ended = poll();
    assert_eq!(ended["output"][0]["content"][0]["text"], "It goes on and on.");
    assert_eq!(events.last().unwrap()["response"], ended);
    let again: Vec<_> = hear("?stream=true&starting_after=41", 42).collect();
    assert_eq!((kinds(&again), &again[0]["response"]), (vec!["completed"], &ended));

    // Heard from the beginning by one who leaves, and then from there on.
    let mut events = streaming(&daemon, &ask("slow", more));
    let created = events.find(|event| event["type"] == "response.created").unwrap();
    let last_heard = events.find(|event| event["type"] == "response.output_text.delta").unwrap();
    drop(events);
    let number = last_heard["sequence_number"].as_u64().unwrap();
    let query = format!("?stream=true&starting_after={number}");
    let path = path(&created["response"]["id"], &query);
    let rest: Vec<_> = hearing(&daemon, &path, None, number + 1).collect();
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
    daemon.endless("endless");
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
    daemon.endless("endless");
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
