//! OpenAI's Responses as the daemon keeps them: others follow them, and what was asked can be looked up.

use crate::responses::{ask, fetch, path, post, refused, respond, tools};
use hearth_tests::{TestDaemon, http};
use serde_json::{Value, json};

#[test]
fn others_follow_a_response_and_each_knows_what_led_to_it() {
    let mut daemon = TestDaemon::start();
    daemon.model("tiny", &[("script", "An answer.".into())]);
    let first = respond(&daemon, &ask("tiny", json!({ "instructions": "Not handed on." })));
    let after = |previous: &Value, text: &str| {
        ask("tiny", json!({ "previous_response_id": previous["id"], "input": text }))
    };
    let left = respond(&daemon, &after(&first, "left?"));
    let right = respond(&daemon, &after(&first, "and the one on the right?"));
    assert_eq!(left["previous_response_id"], first["id"]);
    daemon.kill();
    daemon.restart();
    let last = respond(&daemon, &after(&left, "more"));
    let whole = json!({ "input": [
        { "role": "user", "content": "How is Oslo?" },
        first["output"][0],
        { "role": "user", "content": "left?" },
        left["output"][0],
        { "role": "user", "content": "more" },
    ] });
    let told = respond(&daemon, &ask("tiny", whole));
    assert_eq!(last["usage"]["input_tokens"], told["usage"]["input_tokens"]);
    assert_ne!(right["usage"]["input_tokens"], left["usage"]["input_tokens"]);

    // What is deleted is gone, and what followed it goes on.
    let deleted = http(&daemon.socket(), "DELETE", &path(&first["id"], ""), "");
    assert_eq!(deleted.body, json!({ "id": first["id"], "object": "response", "deleted": true }));
    refused(&http(&daemon.socket(), "GET", &path(&first["id"], ""), ""), 404, "session_not_found");
    refused(
        &http(&daemon.socket(), "DELETE", &path(&first["id"], ""), ""),
        404,
        "session_not_found",
    );
    let reply = post(&daemon, &after(&first, "?"));
    refused(&reply, 400, "previous_response_not_found");
    assert_eq!(reply.body["error"]["param"], "previous_response_id");
    respond(&daemon, &after(&right, "?"));

    let unstored = respond(&daemon, &ask("tiny", json!({ "store": false })));
    refused(
        &http(&daemon.socket(), "GET", &path(&unstored["id"], ""), ""),
        404,
        "session_not_found",
    );
    refused(&post(&daemon, &after(&unstored, "?")), 400, "previous_response_not_found");
}

#[test]
fn a_conversation_is_a_session() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("script", "An answer.".into())]);
    let params = r#"{"model":"tiny","name":"work","system":"Be short."}"#;
    let session = daemon.ctl(["rpc", "session.create", params]).json();
    let first = respond(
        &daemon,
        &json!({ "conversation": session["id"], "input": "one", "temperature": 0 }),
    );
    assert_eq!(first["conversation"], json!({ "id": session["id"] }));
    assert_eq!(first["model"], "tiny:latest");
    let by_name = json!({ "conversation": { "id": "work" }, "input": "two", "store": false, "temperature": 0 });
    respond(&daemon, &by_name);
    let shown = daemon.ctl(["rpc", "session.show", r#"{"session":"work"}"#]).json();
    let said: Vec<_> =
        shown["conversation"].as_array().unwrap().iter().map(|said| &said["content"]).collect();
    assert_eq!(said, ["one", "An answer.", "two", "An answer."]);
    // One may also branch off from where it was.
    respond(&daemon, &ask("tiny", json!({ "previous_response_id": first["id"] })));
    assert_eq!(daemon.ctl(["rpc", "session.show", r#"{"session":"work"}"#]).json(), shown);
    let both = json!({ "conversation": "work", "previous_response_id": first["id"], "input": "x" });
    refused(&post(&daemon, &both), 400, "invalid_params");
    refused(
        &post(&daemon, &json!({ "conversation": "none", "input": "x" })),
        404,
        "session_not_found",
    );
}

#[test]
fn a_tools_answer_goes_back_by_its_call() {
    let daemon = TestDaemon::start();
    daemon.model("talks", &[("script", "I would rather talk.".into())]);
    let more = json!({
        "tools": tools(), "tool_choice": { "type": "function", "name": "time" },
        "reasoning": { "effort": "none" }, "max_output_tokens": 2000,
    });
    let asked = respond(&daemon, &ask("talks", more.clone()));
    let call = &asked["output"][0];
    assert_eq!((&call["type"], &call["name"]), (&json!("function_call"), &json!("time")));
    let output =
        json!({ "type": "function_call_output", "call_id": call["call_id"], "output": "noon" });
    let stateful = ask("talks", json!({ "previous_response_id": asked["id"], "input": [output] }));
    let stateless = ask(
        "talks",
        json!({ "input": [{ "role": "user", "content": "How is Oslo?" }, call, output] }),
    );
    let (stateful, stateless) = (respond(&daemon, &stateful), respond(&daemon, &stateless));
    assert_eq!(stateful["output"][0]["content"][0]["text"], "I would rather talk.");
    assert_eq!(stateful["usage"]["input_tokens"], stateless["usage"]["input_tokens"]);

    let mut few = more;
    few["tool_choice"] = json!({ "type": "allowed_tools", "mode": "required", "tools": [{ "type": "function", "name": "weather" }] });
    assert_eq!(respond(&daemon, &ask("talks", few.clone()))["output"][0]["name"], "weather");
    few["tool_choice"] = "none".into();
    assert_eq!(respond(&daemon, &ask("talks", few.clone()))["output"][0]["type"], "message");
    few["tool_choice"] = "sometimes".into();
    refused(&post(&daemon, &ask("talks", few)), 400, "invalid_params");
}

#[test]
fn what_was_asked_is_listed() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("script", "Yes.".into())]);
    let said = |n: usize| json!({ "role": "user", "content": format!("said {n}") });
    let items: Vec<_> = (0..5).map(said).collect();
    let response = respond(&daemon, &ask("tiny", json!({ "input": items })));
    let list =
        |query: &str| fetch(&daemon, &path(&response["id"], &format!("/input_items{query}")));
    let texts = |list: &Value| -> Vec<String> {
        let items = list["data"].as_array().unwrap().iter();
        items.map(|item| item["content"].as_str().unwrap()[5..].to_owned()).collect()
    };
    let all = list("");
    assert_eq!(texts(&all), ["4", "3", "2", "1", "0"]);
    assert_eq!((&all["object"], &all["has_more"]), (&json!("list"), &json!(false)));
    let page = list("?order=asc&limit=2");
    assert_eq!((texts(&page), &page["has_more"]), (vec!["0".into(), "1".into()], &json!(true)));
    assert_eq!(page["first_id"], page["data"][0]["id"]);
    let last = page["last_id"].as_str().unwrap();
    assert_eq!(texts(&list(&format!("?order=asc&after={last}"))), ["2", "3", "4"]);
    let reply = http(&daemon.socket(), "GET", &path(&response["id"], "/input_items?limit=0"), "");
    refused(&reply, 400, "invalid_params");
}
