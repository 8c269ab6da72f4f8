//! Anthropic's messages over HTTP: the sequence of events, tools, thoughts, stop sequences, counts and errors.

use crate::templates::TEMPLATE;
use hearth_tests::{HttpEvents, HttpReply, TestDaemon, http};
use serde_json::{Value, json};

const PATH: &str = "/v1/messages";

fn request(extra: &Value) -> Value {
    let mut request = json!({
        "model": "tiny", "max_tokens": 100, "temperature": 0,
        "messages": [{ "role": "user", "content": "hi" }],
    });
    for (key, value) in extra.as_object().unwrap() {
        request[key] = value.clone();
    }
    request
}

#[track_caller]
fn ask(daemon: &TestDaemon, extra: &Value) -> HttpReply {
    http(&daemon.socket(), "POST", PATH, &request(extra).to_string())
}

#[track_caller]
fn answer(daemon: &TestDaemon, extra: &Value) -> Value {
    let HttpReply { status, body } = ask(daemon, extra);
    assert_eq!(status, 200, "{body}");
    body
}

/// The data of a stream's events, whose names must be those in the data.
#[track_caller]
fn stream(daemon: &TestDaemon, extra: &Value) -> Vec<Value> {
    let mut asked = request(extra);
    asked["stream"] = true.into();
    let path = format!("{PATH}?beta=true");
    let events = HttpEvents::ask(&daemon.socket(), "POST", &path, &asked.to_string());
    assert!(events.head().contains("request-id: req_"), "{}", events.head());
    let events = events.map(|(name, data)| {
        let data: Value = serde_json::from_str(&data).unwrap();
        assert_eq!(data["type"], name);
        data
    });
    events.collect()
}

/// What a client makes of a stream: the message, as a plain call answers it.
#[track_caller]
fn accumulate(events: &[Value]) -> Value {
    let (first, rest) = events.split_first().unwrap();
    assert_eq!(first["type"], "message_start");
    let mut message = first["message"].clone();
    let (mut open, mut json) = (None, String::new());
    for event in rest {
        let at = event["index"].as_u64().and_then(|at| usize::try_from(at).ok());
        let last = message["content"].as_array().unwrap().len();
        match event["type"].as_str().unwrap() {
            "ping" => {}
            "content_block_start" => {
                assert_eq!((open, at), (None, Some(last)), "{event}");
                open = at;
                message["content"].as_array_mut().unwrap().push(event["content_block"].clone());
            }
            "content_block_delta" => {
                assert_eq!(at, open, "{event}");
                let (delta, block) = (&event["delta"], &mut message["content"][last - 1]);
                let field = match delta["type"].as_str().unwrap() {
                    "text_delta" => "text",
                    "thinking_delta" => "thinking",
                    "signature_delta" => "signature",
                    "input_json_delta" => {
                        json += delta["partial_json"].as_str().unwrap();
                        continue;
                    }
                    other => panic!("{other}"),
                };
                let text = block[field].as_str().unwrap().to_string();
                block[field] = (text + delta[field].as_str().unwrap()).into();
            }
            "content_block_stop" => {
                assert_eq!(at, open.take(), "{event}");
                if message["content"][last - 1]["type"] == "tool_use" {
                    let input = serde_json::from_str(&std::mem::take(&mut json)).unwrap();
                    message["content"][last - 1]["input"] = input;
                }
            }
            "message_delta" => {
                assert_eq!(open, None);
                for (key, value) in event["delta"].as_object().unwrap() {
                    message[key] = value.clone();
                }
                let [before, after] =
                    [&message["usage"], &event["usage"]].map(|usage| usage["input_tokens"].clone());
                assert_eq!(before, after, "what the start says is true");
                message["usage"] = event["usage"].clone();
            }
            "message_stop" => assert_eq!(event, rest.last().unwrap()),
            other => panic!("{other}"),
        }
    }
    assert_eq!(rest.last().unwrap()["type"], "message_stop");
    message
}

/// Asks both ways, and answers the message that both make.
#[track_caller]
fn both(daemon: &TestDaemon, extra: &Value) -> (Value, Vec<Value>) {
    let events = stream(daemon, extra);
    let (mut streamed, mut whole) = (accumulate(&events), answer(daemon, extra));
    for message in [&mut streamed, &mut whole] {
        assert!(message["id"].as_str().unwrap().starts_with("msg_"));
        message["id"].take();
        // The second finds in memory what the first has computed.
        message["usage"].take();
        for block in message["content"].as_array_mut().unwrap() {
            if block["type"] == "tool_use" {
                block["id"].take();
            }
        }
    }
    assert_eq!(streamed, whole);
    (whole, events)
}

fn names(events: &[Value]) -> Vec<&str> {
    let mut names: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    names.dedup();
    names
}

fn look() -> Value {
    json!({
        "name": "look", "description": "Looks.", "cache_control": { "type": "ephemeral" },
        "input_schema": { "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] },
    })
}

#[test]
fn a_text_streams_in_the_order_of_anthropics_events() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("script", "Grüße, 世界!".into())]);
    let (message, events) = both(&daemon, &json!({}));
    assert_eq!(message["content"], json!([{ "type": "text", "text": "Grüße, 世界!" }]));
    assert_eq!(message["type"], "message");
    assert_eq!((&message["role"], &message["model"]), (&json!("assistant"), &json!("tiny")));
    assert_eq!(
        (&message["stop_reason"], &message["stop_sequence"]),
        (&json!("end_turn"), &Value::Null)
    );
    let expected = [
        "message_start",
        "ping",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ];
    assert_eq!(names(&events), expected);
}

#[test]
fn usage_says_how_much_of_the_prompt_was_found_in_memory() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("script", "Yes.".into())]);
    let counted = http(
        &daemon.socket(),
        "POST",
        "/v1/messages/count_tokens",
        &request(&json!({})).to_string(),
    );
    let n_prompt = counted.body["input_tokens"].as_u64().unwrap();
    let first = answer(&daemon, &json!({}))["usage"].clone();
    let usage = |input: u64, cached: u64, output: &Value| {
        json!({
            "input_tokens": input, "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached, "output_tokens": output,
        })
    };
    assert_eq!(first, usage(n_prompt, 0, &first["output_tokens"]));
    // All but the last token is in memory now, and the stream knows it before its first text.
    let events = stream(&daemon, &json!({}));
    assert_eq!(events[0]["message"]["usage"], usage(1, n_prompt - 1, &json!(0)));
    assert_eq!(accumulate(&events)["usage"], usage(1, n_prompt - 1, &first["output_tokens"]));
}

#[test]
fn tokens_are_counted_as_the_model_would_read_them_and_nothing_is_answered() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("script", "Yes.".into())]);
    for extra in [
        json!({}),
        json!({ "system": "Be brief." }),
        json!({ "tools": [look()] }),
        json!({ "thinking": { "type": "enabled", "budget_tokens": 1024 } }),
    ] {
        let mut asked = request(&extra);
        asked.as_object_mut().unwrap().remove("max_tokens");
        let counted =
            http(&daemon.socket(), "POST", "/v1/messages/count_tokens", &asked.to_string());
        assert_eq!(counted.status, 200, "{}", counted.body);
        let usage = answer(&daemon, &extra)["usage"].clone();
        let read = usage["input_tokens"].as_u64().unwrap()
            + usage["cache_read_input_tokens"].as_u64().unwrap();
        assert_eq!(counted.body, json!({ "input_tokens": read }));
    }
}

#[test]
fn the_stop_sequence_that_ended_the_answer_is_named() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("script", "alpha beta gamma".into())]);
    let (message, _) = both(&daemon, &json!({ "stop_sequences": ["gamma", "beta"] }));
    assert_eq!(message["content"], json!([{ "type": "text", "text": "alpha " }]));
    assert_eq!(
        (&message["stop_reason"], &message["stop_sequence"]),
        (&json!("stop_sequence"), &json!("beta"))
    );
    let (message, _) = both(&daemon, &json!({ "stop_sequences": ["delta"], "max_tokens": 3 }));
    assert_eq!(
        (&message["stop_reason"], &message["stop_sequence"]),
        (&json!("max_tokens"), &Value::Null)
    );
}

#[test]
fn thoughts_are_a_block_of_their_own_and_only_where_asked_for() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("script", "<think>Hm, well.</think>Hello.".into())]);
    let thinking = json!({ "thinking": { "type": "enabled", "budget_tokens": 1024 } });
    let (message, _) = both(&daemon, &thinking);
    let expected = json!([
        { "type": "thinking", "thinking": "Hm, well.", "signature": "unsigned" },
        { "type": "text", "text": "Hello." },
    ]);
    assert_eq!(message["content"], expected);
    let disabled = both(&daemon, &json!({ "thinking": { "type": "disabled" } })).0;
    assert_eq!(disabled["content"], both(&daemon, &json!({})).0["content"]);
    assert_eq!(disabled["content"].as_array().unwrap().len(), 1);
}

#[test]
fn a_budget_ends_the_thoughts() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("script", "<think>on and on and on and on</think>Hello.".into())]);
    let thinking = json!({ "thinking": { "type": "enabled", "budget_tokens": 5 } });
    let (message, _) = both(&daemon, &thinking);
    let thought = message["content"][0]["thinking"].as_str().unwrap();
    assert!(
        "on and on and on and on".starts_with(thought.trim_end()) && thought.len() < 10,
        "{message}"
    );
}

#[test]
fn a_call_streams_as_json_and_its_result_goes_back() {
    let daemon = TestDaemon::start();
    let script = r#"I look.<tool>{"name": "look", "arguments": {"city": "Rome"}}</tool>"#;
    daemon.model("tiny", &[("script", script.into())]);
    let (message, _) = both(&daemon, &json!({ "tools": [look()] }));
    assert_eq!(message["stop_reason"], "tool_use");
    assert_eq!(message["content"][0], json!({ "type": "text", "text": "I look." }));
    assert_eq!(message["content"][1]["input"], json!({ "city": "Rome" }));

    let called = answer(&daemon, &json!({ "tools": [look()] }))["content"].clone();
    let id = &called[1]["id"];
    let result = json!([
        { "role": "user", "content": "hi" },
        { "role": "assistant", "content": called },
        { "role": "user", "content": [{ "type": "tool_result", "tool_use_id": id, "content": "sunny" }] },
    ]);
    answer(&daemon, &json!({ "tools": [look()], "messages": result }));
}

#[test]
fn the_choice_of_tools_is_kept() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("script", "I would rather talk.".into())]);
    let other = json!({ "name": "other", "input_schema": { "type": "object" } });
    let asked = |choice: Value| json!({ "tools": [look(), other], "tool_choice": choice, "max_tokens": 1000 });
    for (choice, name) in [
        (json!({ "type": "any", "disable_parallel_tool_use": true }), None),
        (json!({ "type": "tool", "name": "other" }), Some("other")),
    ] {
        let message = answer(&daemon, &asked(choice));
        assert_eq!(message["stop_reason"], "tool_use", "{message}");
        let calls = message["content"].as_array().unwrap();
        assert_eq!((calls.len(), &calls[0]["type"]), (1, &json!("tool_use")), "{message}");
        assert!(name.is_none_or(|name| calls[0]["name"] == name) && calls[0]["input"].is_object());
    }
    let script = r#"<tool>{"name": "look", "arguments": {}}</tool>"#;
    daemon.model("calls", &[("script", script.into())]);
    let mut none = asked(json!({ "type": "none" }));
    none["model"] = "calls".into();
    let message = answer(&daemon, &none);
    assert_eq!(message["content"], json!([{ "type": "text", "text": script }]));
}

#[test]
fn mistakes_are_errors_of_anthropics_kinds() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("script", "Yes.".into())]);
    let image = json!([{ "type": "image", "source": { "type": "url", "url": "https://x/y.png" } }]);
    for (extra, status, kind, said) in [
        (
            json!({ "max_tokens": null }),
            400,
            "invalid_request_error",
            "max_tokens is required and must not be negative",
        ),
        (
            json!({ "max_tokens": -1 }),
            400,
            "invalid_request_error",
            "max_tokens is required and must not be negative",
        ),
        (json!({ "messages": [] }), 400, "invalid_request_error", "at least one message"),
        (
            json!({ "messages": [{ "role": "system", "content": "x" }] }),
            400,
            "invalid_request_error",
            "`system`",
        ),
        (
            json!({ "messages": [{ "role": "user", "content": image }] }),
            400,
            "invalid_request_error",
            "images",
        ),
        (json!({ "tool_choice": { "type": "any" } }), 400, "invalid_request_error", "no tool"),
        (
            json!({ "messages": [{ "role": "user", "content": "x".repeat(100_000) }] }),
            400,
            "invalid_request_error",
            "prompt is too long",
        ),
        (json!({ "model": "claude" }), 404, "not_found_error", "claude"),
    ] {
        for stream in [false, true] {
            let mut extra = extra.clone();
            extra["stream"] = stream.into();
            let reply = ask(&daemon, &extra);
            assert_eq!(reply.status, status, "{}", reply.body);
            assert_eq!(
                (&reply.body["type"], &reply.body["error"]["type"]),
                (&json!("error"), &json!(kind))
            );
            assert!(
                reply.body["error"]["message"].as_str().unwrap().contains(said),
                "{}",
                reply.body
            );
            assert!(reply.body["request_id"].as_str().unwrap().starts_with("req_"));
        }
    }
    let reply = http(&daemon.socket(), "GET", PATH, "");
    assert_eq!((reply.status, &reply.body["type"]), (405, &json!("error")));
}

#[test]
fn thinking_is_ignored_by_models_that_cannot_and_so_is_what_means_nothing_here() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("script", "Yes.".into())]);
    daemon.add_layers("tiny", &[("template", TEMPLATE)]);
    for extra in [
        json!({ "thinking": { "type": "enabled", "budget_tokens": 1024 } }),
        json!({ "thinking": { "type": "adaptive" } }),
        json!({ "thinking": { "type": "of tomorrow" }, "output_config": { "effort": "high" } }),
        json!({ "metadata": { "user_id": "u" }, "service_tier": "auto", "container": null, "unknown": 1 }),
    ] {
        let message = answer(&daemon, &extra);
        assert_eq!(message["content"], json!([{ "type": "text", "text": "Yes." }]), "{extra}");
        for field in ["id", "type", "role", "model", "stop_reason", "stop_sequence", "usage"] {
            assert!(message.as_object().unwrap().contains_key(field), "`{field}`: {message}");
        }
    }
}
