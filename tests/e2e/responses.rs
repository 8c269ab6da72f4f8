//! OpenAI's Responses over HTTP: items, events in their order, and mistakes.

use crate::openai::schema;
use hearth_tests::{HttpEvents, HttpReply, Raw, TestDaemon, eventually_is, http};
use serde_json::{Value, json};

const RESPONSES: &str = "/v1/responses";

pub(crate) fn ask(model: &str, more: Value) -> Value {
    let mut body = json!({ "model": model, "input": "How is Oslo?", "temperature": 0 });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[track_caller]
pub(crate) fn post(daemon: &TestDaemon, body: &Value) -> HttpReply {
    http(&daemon.socket(), "POST", RESPONSES, &body.to_string())
}

#[track_caller]
pub(crate) fn respond(daemon: &TestDaemon, body: &Value) -> Value {
    let reply = post(daemon, body);
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.body
}

pub(crate) fn path(id: &Value, rest: &str) -> String {
    format!("{RESPONSES}/{}{rest}", id.as_str().unwrap())
}

#[track_caller]
pub(crate) fn fetch(daemon: &TestDaemon, path: &str) -> Value {
    let reply = http(&daemon.socket(), "GET", path, "");
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.body
}

#[track_caller]
pub(crate) fn refused(reply: &HttpReply, status: u16, code: &str) {
    assert_eq!((reply.status, &reply.body["error"]["code"]), (status, &json!(code)), "{reply:?}");
    assert!(reply.body["error"]["message"].as_str().is_some_and(|message| !message.is_empty()));
}

/// The events of a stream as they come, each of which is named as its type, and numbered from this on. Dropping it closes the
/// connection.
#[track_caller]
pub(crate) fn hearing(
    daemon: &TestDaemon,
    path: &str,
    body: Option<&Value>,
    first: u64,
) -> impl Iterator<Item = Value> + use<> {
    let (method, body) = body.map_or(("GET", String::new()), |body| ("POST", body.to_string()));
    let events = HttpEvents::ask(&daemon.socket(), method, path, &body);
    events.zip(first..).map(|((name, data), number)| {
        let event: Value = serde_json::from_str(&data).unwrap();
        assert_eq!(event["type"], name);
        assert_eq!(event["sequence_number"], number, "{event}");
        event
    })
}

#[track_caller]
pub(crate) fn streaming(daemon: &TestDaemon, body: &Value) -> impl Iterator<Item = Value> + use<> {
    let mut body = body.clone();
    body["stream"] = true.into();
    hearing(daemon, RESPONSES, Some(&body), 0)
}

#[track_caller]
fn stream(daemon: &TestDaemon, body: &Value) -> Vec<Value> {
    streaming(daemon, body).collect()
}

/// Types without `response.`, and of several deltas in a row one.
pub(crate) fn kinds(events: &[Value]) -> Vec<&str> {
    let mut kinds: Vec<_> = events
        .iter()
        .map(|event| event["type"].as_str().unwrap().strip_prefix("response.").unwrap())
        .collect();
    kinds.dedup_by(|a, b| a == b && a.ends_with(".delta"));
    kinds
}

pub(crate) fn tools() -> Value {
    let parameters = json!({
        "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"],
    });
    let tool = |name: &str| json!({ "type": "function", "name": name, "parameters": parameters, "strict": true });
    json!([tool("weather"), tool("time")])
}

#[test]
fn thoughts_text_and_a_call_are_told_in_order_and_come_to_the_same() {
    let daemon = TestDaemon::start();
    let script =
        r#"<think>hm</think>See. <tool>{"name": "weather", "arguments": {"city": "Oslo"}}</tool>"#;
    daemon.model("all", &[("script", script.into()), ("slow_us_per_decode", 1000.into())]);
    let body = ask("all", json!({ "tools": tools() }));
    let events = stream(&daemon, &body);
    assert_eq!(
        kinds(&events),
        [
            "created",
            "in_progress",
            "output_item.added",
            "content_part.added",
            "reasoning_text.delta",
            "reasoning_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
            "completed",
        ]
    );
    let last = events.last().unwrap()["response"].clone();
    assert_eq!((&last["status"], &last["error"]), (&json!("completed"), &Value::Null));
    let output = last["output"].as_array().unwrap();
    let id = |at: usize| output[at]["id"].clone();
    assert_eq!(
        last["output"],
        json!([
            { "id": id(0), "type": "reasoning", "status": "completed", "summary": [],
              "content": [{ "type": "reasoning_text", "text": "hm" }], "encrypted_content": null },
            { "id": id(1), "type": "message", "status": "completed", "role": "assistant",
              "content": [{ "type": "output_text", "text": "See. ", "annotations": [], "logprobs": [] }] },
            { "id": id(2), "type": "function_call", "status": "completed", "call_id": output[2]["call_id"],
              "name": "weather", "arguments": "{\"city\": \"Oslo\"}" },
        ])
    );
    // Each item is done as it is in the end, and its deltas make it up.
    let of = |kind: &str| {
        let kind = format!("response.{kind}");
        events.iter().filter(move |event| event["type"] == *kind).collect::<Vec<_>>()
    };
    for (at, (added, done)) in
        of("output_item.added").iter().zip(of("output_item.done")).enumerate()
    {
        assert_eq!((&added["output_index"], &done["output_index"]), (&json!(at), &json!(at)));
        assert_eq!((&added["item"]["status"], &done["item"]), (&json!("in_progress"), &output[at]));
    }
    let text = |kind: &str, at: usize| -> String {
        let events = of(kind);
        assert!(
            events.iter().all(|event| event["item_id"] == id(at) && event["output_index"] == at)
        );
        events.iter().map(|event| event["delta"].as_str().unwrap()).collect()
    };
    assert_eq!(text("reasoning_text.delta", 0), "hm");
    assert_eq!(text("output_text.delta", 1), "See. ");
    assert_eq!(text("function_call_arguments.delta", 2), "{\"city\": \"Oslo\"}");
    assert_eq!(of("function_call_arguments.done")[0]["arguments"], "{\"city\": \"Oslo\"}");

    let mut whole = respond(&daemon, &body);
    for (at, item) in whole["output"].as_array_mut().unwrap().iter_mut().enumerate() {
        item["id"] = id(at);
    }
    whole["output"][2]["call_id"] = output[2]["call_id"].clone();
    assert_eq!(whole["output"], last["output"]);
    assert_eq!(fetch(&daemon, &path(&last["id"], "")), last);
}

#[test]
fn a_response_has_the_fields_that_clients_read() {
    let daemon = TestDaemon::start();
    daemon.model("thinks", &[("script", "<think>hm</think>Yes.".into())]);
    let more = json!({
        "instructions": "Be short.", "metadata": { "a": "b" }, "user": "somebody", "unknown": 1,
        "include": ["reasoning.encrypted_content"],
    });
    let response = respond(&daemon, &ask("thinks", more));
    assert!(response["id"].as_str().is_some_and(|id| id.starts_with("resp_")), "{response}");
    assert!(response["created_at"].as_u64().is_some_and(|time| time > 1_700_000_000));
    for (name, value) in [
        ("object", json!("response")),
        ("status", json!("completed")),
        ("background", json!(false)),
        ("error", Value::Null),
        ("incomplete_details", Value::Null),
        ("instructions", json!("Be short.")),
        ("max_output_tokens", Value::Null),
        ("metadata", json!({ "a": "b" })),
        ("model", json!("thinks")),
        ("parallel_tool_calls", json!(true)),
        ("previous_response_id", Value::Null),
        ("reasoning", json!({ "effort": null, "summary": null })),
        ("store", json!(true)),
        ("temperature", json!(0.0)),
        ("text", json!({ "format": { "type": "text" }, "verbosity": null })),
        ("tool_choice", json!("auto")),
        ("tools", json!([])),
        ("top_p", json!(1.0)),
        ("truncation", json!("disabled")),
        ("user", json!("somebody")),
    ] {
        assert_eq!(response.get(name), Some(&value), "{name}");
    }
    assert_eq!(response["output"][0]["encrypted_content"], "hm");
    let usage = &response["usage"];
    assert_eq!(usage["output_tokens_details"]["reasoning_tokens"], 2, "a byte is a token");
    assert_eq!(usage["input_tokens_details"]["cached_tokens"], 0);
    let count = |name: &str| usage[name].as_u64().unwrap();
    assert_eq!(count("input_tokens") + count("output_tokens"), count("total_tokens"));
    let counted = http(
        &daemon.socket(),
        "POST",
        "/v1/responses/input_tokens",
        &ask("thinks", json!({ "instructions": "Be short." })).to_string(),
    );
    assert_eq!(
        counted.body,
        json!({ "object": "response.input_tokens", "input_tokens": usage["input_tokens"] })
    );
    let again = respond(&daemon, &ask("thinks", json!({ "instructions": "Be short." })));
    let cached = again["usage"]["input_tokens_details"]["cached_tokens"].as_u64().unwrap();
    assert_eq!(cached, count("input_tokens") - 1);
}

#[test]
fn thoughts_are_a_summary_where_one_is_asked_for() {
    let daemon = TestDaemon::start();
    daemon.model("thinks", &[("script", "<think>hm</think>Yes.".into())]);
    let body = ask("thinks", json!({ "reasoning": { "effort": "low", "summary": "auto" } }));
    let events = stream(&daemon, &body);
    assert_eq!(
        kinds(&events)[2..8],
        [
            "output_item.added",
            "reasoning_summary_part.added",
            "reasoning_summary_text.delta",
            "reasoning_summary_text.done",
            "reasoning_summary_part.done",
            "output_item.done",
        ]
    );
    let item = &events.last().unwrap()["response"]["output"][0];
    assert_eq!(item["summary"], json!([{ "type": "summary_text", "text": "hm" }]));
    assert_eq!(
        (&item["content"], &events[3]["part"]["type"]),
        (&json!([]), &json!("summary_text"))
    );
    let none = respond(&daemon, &ask("thinks", json!({ "reasoning": { "effort": "none" } })));
    assert_eq!(none["output"][0]["type"], "message");
    refused(
        &post(&daemon, &ask("thinks", json!({ "reasoning": { "effort": "some" } }))),
        400,
        "invalid_params",
    );
}

#[test]
fn what_only_began_like_a_call_is_text_and_no_call() {
    let daemon = TestDaemon::start();
    let script =
        r#"<tool>{"name": "weather", "arguments": {"city": "Oslo where it often rains"}}</tool>"#;
    daemon.model("cut", &[("script", script.into()), ("slow_us_per_decode", 1000.into())]);
    let more =
        json!({ "tools": tools(), "reasoning": { "effort": "none" }, "max_output_tokens": 60 });
    let events = stream(&daemon, &ask("cut", more));
    let response = &events.last().unwrap()["response"];
    assert_eq!(kinds(&events).last(), Some(&"incomplete"));
    assert_eq!(response["incomplete_details"], json!({ "reason": "max_output_tokens" }));
    let output = response["output"].as_array().unwrap();
    let of = |kind: &str| output.iter().find(|item| item["type"] == kind);
    assert_eq!(of("function_call").unwrap()["status"], "incomplete");
    assert!(!kinds(&events).contains(&"function_call_arguments.done"), "{events:?}");
    let text = of("message").unwrap()["content"][0]["text"].as_str().unwrap();
    assert_eq!(text, &script[..60]);
    let n_items = |kind: &str| events.iter().filter(|event| event["type"] == kind).count();
    assert_eq!(n_items("response.output_item.added"), output.len());
    assert_eq!(n_items("response.output_item.done"), output.len());
}

#[test]
fn answers_keep_to_a_schema_and_say_how_likely_they_were() {
    let daemon = TestDaemon::start();
    daemon.model("talks", &[("script", "I would rather talk.".into())]);
    let format = json!({ "type": "json_schema", "name": "it", "strict": true, "schema": schema() });
    let response = respond(&daemon, &ask("talks", json!({ "text": { "format": format } })));
    let text = response["output"][0]["content"][0]["text"].as_str().unwrap();
    let fits: Value = serde_json::from_str(text).unwrap();
    assert_eq!(fits.as_object().unwrap().keys().collect::<Vec<_>>(), ["b", "a"]);
    assert_eq!(response["text"]["format"], format);
    for format in [json!({ "type": "json_schema" }), json!({ "type": "yaml" })] {
        refused(
            &post(&daemon, &ask("talks", json!({ "text": { "format": format } }))),
            400,
            "invalid_params",
        );
    }
    let more = json!({
        "include": ["message.output_text.logprobs"], "top_logprobs": 2, "max_output_tokens": 3,
        "reasoning": { "effort": "none" },
    });
    let events = stream(&daemon, &ask("talks", more));
    let response = &events.last().unwrap()["response"];
    let places = response["output"][0]["content"][0]["logprobs"].as_array().unwrap();
    assert_eq!(places.len(), 3);
    assert_eq!((&places[0]["token"], &places[0]["bytes"]), (&json!("I"), &json!([73])));
    assert_eq!(places[0]["top_logprobs"].as_array().unwrap().len(), 2);
    let told: Vec<_> = events
        .iter()
        .filter(|event| event["type"] == "response.output_text.delta")
        .flat_map(|event| event["logprobs"].as_array().unwrap())
        .collect();
    assert_eq!(told, places.iter().collect::<Vec<_>>());
}

#[test]
fn a_client_that_leaves_frees_its_place_and_nothing_is_kept() {
    let daemon = TestDaemon::start();
    daemon.endless("endless");
    let mut events = streaming(&daemon, &ask("endless", json!({})));
    let id =
        events.find(|event| event["type"] == "response.created").unwrap()["response"]["id"].clone();
    assert!(events.any(|event| event["type"] == "response.output_text.delta"
        || event["type"] == "response.reasoning_text.delta"));
    assert!(daemon.status().active_requests > 0);
    drop(events);
    daemon.await_idle();
    refused(&http(&daemon.socket(), "GET", &path(&id, ""), ""), 404, "session_not_found");

    let raw = Raw::connect(&daemon.socket());
    let body = ask("endless", json!({})).to_string();
    raw.write(format!(
        "POST {RESPONSES} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    eventually_is("the request to run", || daemon.status().active_requests > 0);
    drop(raw);
    daemon.await_idle();
}

#[test]
fn an_error_in_the_middle_is_an_event_and_the_last() {
    let daemon = TestDaemon::start();
    let settings =
        [("eos_one_in", 0.into()), ("crash_after", 50.into()), ("slow_us_per_decode", 2000.into())];
    daemon.model("crashes", &settings);
    let more = json!({ "reasoning": { "effort": "none" } });
    let events = stream(&daemon, &ask("crashes", more.clone()));
    assert_eq!(kinds(&events)[kinds(&events).len() - 2..], ["output_item.done", "failed"]);
    let response = &events.last().unwrap()["response"];
    assert_eq!(
        (&response["status"], &response["error"]["code"]),
        (&json!("failed"), &json!("server_error"))
    );
    assert_eq!(response["output"][0]["status"], "incomplete");
    refused(&post(&daemon, &ask("crashes", more)), 500, "worker_died");
    refused(&post(&daemon, &ask("none", json!({ "stream": true }))), 404, "model_not_found");
}

#[test]
fn mistakes_are_errors_before_anything_runs() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[]);
    for (more, code) in [
        (json!({ "model": "" }), "invalid_params"),
        (json!({ "input": [] }), "invalid_params"),
        (json!({ "input": null }), "invalid_params"),
        (json!({ "input": 7 }), "invalid_request"),
        (json!({ "input": [{ "type": "item_reference", "id": "msg_1" }] }), "unsupported"),
        (
            json!({ "input": [{ "role": "user", "content": [{ "type": "input_file", "file_id": "f" }] }] }),
            "unsupported",
        ),
        (json!({ "tools": [{ "type": "web_search" }] }), "unsupported"),
        (json!({ "tools": [7] }), "unsupported"),
        (json!({ "text": { "format": "json" } }), "invalid_params"),
        (json!({ "truncation": "some" }), "invalid_params"),
        (json!({ "temperature": -1 }), "invalid_params"),
    ] {
        refused(&post(&daemon, &ask("tiny", more)), 400, code);
    }
    refused(
        &http(&daemon.socket(), "GET", "/v1/responses/resp_none", ""),
        404,
        "session_not_found",
    );
}
