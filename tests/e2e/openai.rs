//! OpenAI's API over HTTP, on the Unix socket and on TCP.

use hearth_tests::{HttpEvents, HttpReply, TestDaemon, http, run};
use serde_json::{Value, json};

const CALL: &str = r#"Let me see. <tool>{"name": "weather", "arguments": {"city": "Oslo"}}</tool>"#;

#[track_caller]
pub(crate) fn post(daemon: &TestDaemon, path: &str, body: &Value) -> HttpReply {
    http(&daemon.socket(), "POST", path, &body.to_string())
}

#[track_caller]
pub(crate) fn answered(daemon: &TestDaemon, path: &str, body: &Value) -> Value {
    let reply = post(daemon, path, body);
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.body
}

/// The error, in the form that OpenAI's clients read.
#[track_caller]
pub(crate) fn refused(reply: HttpReply, status: u16, kind: &str) -> Value {
    assert_eq!((reply.status, &reply.body["error"]["type"]), (status, &json!(kind)), "{reply:?}");
    assert!(reply.body["error"]["message"].as_str().is_some_and(|message| !message.is_empty()));
    assert!(reply.body["error"].as_object().unwrap().contains_key("param"));
    reply.body["error"].clone()
}

/// The events of a stream, none of which has a name; the last must say that it is the last.
#[track_caller]
pub(crate) fn events(daemon: &TestDaemon, path: &str, body: &Value) -> Vec<Value> {
    let mut body = body.clone();
    body["stream"] = true.into();
    let events = HttpEvents::ask(&daemon.socket(), "POST", path, &body.to_string());
    let mut events: Vec<_> = events.collect();
    assert_eq!(events.pop(), Some((String::new(), "[DONE]".into())), "{events:?}");
    assert!(events.iter().all(|(name, _)| name.is_empty()), "{events:?}");
    events.iter().map(|(_, data)| serde_json::from_str(data).unwrap()).collect()
}

fn chat(model: &str, more: Value) -> Value {
    let messages = json!([{ "role": "user", "content": "How is Oslo?" }]);
    let mut body = json!({ "model": model, "messages": messages, "temperature": 0 });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn tools() -> Value {
    let parameters = json!({ "type": "object", "properties": { "city": { "type": "string" } } });
    let tool = |name: &str| json!({ "type": "function", "function": { "name": name, "parameters": parameters } });
    json!([tool("weather"), tool("time")])
}

/// Of answers that would be otherwise without it.
pub(crate) fn schema() -> Value {
    json!({
        "type": "object",
        "properties": { "b": { "type": "boolean" }, "a": { "type": "integer", "maximum": 9, "minimum": 0 } },
        "required": ["b", "a"],
        "additionalProperties": false,
    })
}

const CHAT: &str = "/v1/chat/completions";

#[test]
fn a_chat_completion_has_the_fields_that_clients_read() {
    let daemon = TestDaemon::start();
    daemon.model("thinks", &[("script", "<think>hm</think>Yes.".into())]);
    let reply = answered(&daemon, CHAT, &chat("thinks", json!({ "unknown": { "field": 1 } })));
    assert_eq!((&reply["object"], &reply["model"]), (&json!("chat.completion"), &json!("thinks")));
    assert!(reply["id"].as_str().is_some_and(|id| id.starts_with("chatcmpl-")), "{reply}");
    assert!(reply["created"].as_u64().is_some_and(|time| time > 1_700_000_000), "{reply}");
    let choice = &reply["choices"][0];
    assert_eq!((&choice["index"], &choice["finish_reason"]), (&json!(0), &json!("stop")));
    let message = json!({
        "role": "assistant", "content": "Yes.", "refusal": null, "reasoning": "hm", "reasoning_content": "hm",
    });
    assert_eq!(choice["message"], message);
    let usage = &reply["usage"];
    let count = |name: &str| usage[name].as_u64().unwrap();
    assert_eq!(count("prompt_tokens") + count("completion_tokens"), count("total_tokens"));
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 0);
    let again = answered(&daemon, CHAT, &chat("thinks", json!({})));
    let cached = again["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    assert_eq!(cached, count("prompt_tokens") - 1);
}

#[test]
fn an_effort_of_none_asks_not_to_think() {
    let daemon = TestDaemon::start();
    daemon.model("thinks", &[("script", "<think>hm</think>Yes.".into())]);
    let prompt = |more| {
        let reply = answered(&daemon, CHAT, &chat("thinks", more));
        (reply["usage"]["prompt_tokens"].clone(), reply["choices"][0]["message"].clone())
    };
    let plain = prompt(json!({ "reasoning_effort": "high" }));
    for more in
        [json!({ "reasoning_effort": "none" }), json!({ "reasoning": { "effort": "none" } })]
    {
        assert_ne!(prompt(more), plain);
    }
    let reply = post(&daemon, CHAT, &chat("thinks", json!({ "reasoning_effort": "some" })));
    refused(reply, 400, "invalid_request_error");
}

#[test]
fn a_stream_ends_with_a_reason_the_cost_and_done() {
    let daemon = TestDaemon::start();
    daemon.model("thinks", &[("script", "<think>hm</think>Yes, it is.".into())]);
    let body = chat("thinks", json!({ "stream_options": { "include_usage": true } }));
    let mut events = events(&daemon, CHAT, &body);
    let n_tokens = answered(&daemon, CHAT, &body)["usage"]["completion_tokens"].clone();
    let (id, first) = (events[0]["id"].clone(), events[0]["choices"][0]["delta"].clone());
    assert_eq!(first["role"], "assistant");
    assert!(
        events.iter().all(|event| event["id"] == id && event["object"] == "chat.completion.chunk")
    );
    let cost = events.pop().unwrap();
    assert_eq!((&cost["choices"], &cost["usage"]["completion_tokens"]), (&json!([]), &n_tokens));
    let last = events.last().unwrap()["choices"][0].clone();
    assert_eq!((&last["delta"], &last["finish_reason"]), (&json!({}), &json!("stop")));
    let text = |name: &str| -> String {
        events.iter().filter_map(|event| event["choices"][0]["delta"][name].as_str()).collect()
    };
    assert_eq!((text("content").as_str(), text("reasoning").as_str()), ("Yes, it is.", "hm"));
    assert_eq!(text("reasoning_content"), "hm");
    assert!(events.iter().all(|event| event["usage"].is_null()), "{events:?}");
}

#[test]
fn a_tool_call_streams_its_name_first_and_then_its_arguments() {
    let daemon = TestDaemon::start();
    daemon.model("tools", &[("script", CALL.into()), ("slow_us_per_decode", 2000.into())]);
    let body = chat("tools", json!({ "tools": tools(), "reasoning_effort": "none" }));
    let whole = answered(&daemon, CHAT, &body)["choices"][0].clone();
    let call = &whole["message"]["tool_calls"][0];
    assert_eq!(
        (&whole["finish_reason"], &call["type"]),
        (&json!("tool_calls"), &json!("function"))
    );
    let function = json!({ "name": "weather", "arguments": r#"{"city": "Oslo"}"# });
    assert_eq!(
        (&call["function"], &whole["message"]["content"]),
        (&function, &json!("Let me see. "))
    );

    let events = events(&daemon, CHAT, &body);
    let calls: Vec<_> = events
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["tool_calls"][0].as_object())
        .collect();
    assert!(calls.iter().all(|call| call["index"] == 0));
    assert_eq!(calls[0]["function"]["name"], "weather");
    assert!(calls[0]["id"].as_str().is_some_and(|id| !id.is_empty()));
    assert!(
        calls[1..]
            .iter()
            .all(|call| !call.contains_key("id") && call["function"]["name"].is_null())
    );
    let text: String =
        calls.iter().map(|call| call["function"]["arguments"].as_str().unwrap()).collect();
    assert_eq!(text, r#"{"city": "Oslo"}"#);
    assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");

    // The call goes back with the tool's answer, and the chat goes on.
    let mut body = chat("tools", json!({ "tools": tools(), "reasoning_effort": "none" }));
    let mut message = whole["message"].clone();
    message["content"] = Value::Null;
    let answer = json!({ "role": "tool", "tool_call_id": call["id"], "content": "rain" });
    body["messages"].as_array_mut().unwrap().extend([message, answer]);
    answered(&daemon, CHAT, &body);
}

#[test]
fn tools_are_chosen_by_the_client_where_it_wants_to() {
    let daemon = TestDaemon::start();
    daemon.model("talks", &[("script", "I would rather talk.".into())]);
    let ask = |choice: Value| {
        let mut body = chat("talks", json!({ "tools": tools(), "tool_choice": choice }));
        body["reasoning_effort"] = "none".into();
        body["max_completion_tokens"] = 2000.into();
        post(&daemon, CHAT, &body)
    };
    let named = json!({ "type": "function", "function": { "name": "time" } });
    for (choice, names) in [(json!("required"), &["weather", "time"][..]), (named, &["time"])] {
        let reply = ask(choice);
        assert_eq!(reply.body["choices"][0]["finish_reason"], "tool_calls", "{reply:?}");
        let message = &reply.body["choices"][0]["message"];
        assert_eq!(message["content"], Value::Null);
        let name = message["tool_calls"][0]["function"]["name"].as_str().unwrap();
        assert!(names.contains(&name), "{name}");
    }
    for choice in [json!("auto"), json!("none")] {
        let message = ask(choice).body["choices"][0]["message"].clone();
        assert_eq!(message["content"], "I would rather talk.", "{message}");
    }
    refused(ask(json!("sometimes")), 400, "invalid_request_error");
    refused(ask(json!({ "type": "custom" })), 400, "invalid_request_error");
}

#[test]
fn several_calls_have_indexes_of_their_own_and_can_be_forbidden() {
    let call = |city: &str| {
        format!(r#"<tool>{{"name": "weather", "arguments": {{"city": "{city}"}}}}</tool>"#)
    };
    let daemon = TestDaemon::start();
    daemon.model("tools", &[("script", (call("Oslo") + &call("Bergen")).as_str().into())]);
    let body = |parallel| {
        chat(
            "tools",
            json!({ "tools": tools(), "parallel_tool_calls": parallel, "reasoning_effort": "none" }),
        )
    };
    let deltas = events(&daemon, CHAT, &body(true));
    let begun: Vec<_> = deltas
        .iter()
        .map(|event| &event["choices"][0]["delta"]["tool_calls"][0])
        .filter(|call| call["id"].is_string())
        .map(|call| call["index"].clone())
        .collect();
    assert_eq!(begun, [0, 1]);
    let one = answered(&daemon, CHAT, &body(false));
    assert_eq!(one["choices"][0]["message"]["tool_calls"].as_array().unwrap().len(), 1);
}

#[test]
fn answers_keep_to_a_schema_or_are_json() {
    let daemon = TestDaemon::start();
    daemon.model("talks", &[("script", "I would rather talk.".into())]);
    let format = json!({ "type": "json_schema", "json_schema": { "name": "it", "strict": true, "schema": schema() } });
    let ask = |format: Value| {
        let reply = answered(
            &daemon,
            CHAT,
            &chat("talks", json!({ "response_format": format, "seed": 1 })),
        );
        let text = reply["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let fits = ask(format);
    assert_eq!(fits.as_object().unwrap().keys().collect::<Vec<_>>(), ["b", "a"]);
    assert!(fits["b"].is_boolean() && fits["a"].as_u64().is_some_and(|a| a < 10), "{fits}");
    let json = json!({ "response_format": { "type": "json_object" }, "max_tokens": 40 });
    let object = answered(&daemon, CHAT, &chat("talks", json));
    let text = object["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(text.starts_with('{'), "{text}");
    let body = chat("talks", json!({ "response_format": { "type": "json_schema" } }));
    refused(post(&daemon, CHAT, &body), 400, "invalid_request_error");
}

#[test]
fn several_answers_their_chances_and_what_ends_them() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("script", "one two three".into())]);
    let more = json!({ "n": 2, "stop": " three", "logprobs": true, "top_logprobs": 2 });
    let reply = answered(&daemon, CHAT, &chat("tiny", more.clone()));
    for (index, choice) in reply["choices"].as_array().unwrap().iter().enumerate() {
        assert_eq!((&choice["index"], &choice["finish_reason"]), (&json!(index), &json!("stop")));
        assert_eq!(choice["message"]["content"], "one two");
        let place = &choice["logprobs"]["content"][0];
        assert_eq!((&place["token"], &place["bytes"]), (&json!("o"), &json!([111])));
        assert!(place["logprob"].as_f64().is_some_and(|chance| chance <= 0.0));
        assert_eq!(place["top_logprobs"].as_array().unwrap().len(), 2);
    }
    assert_eq!(reply["choices"].as_array().unwrap().len(), 2);
    let events = events(&daemon, CHAT, &chat("tiny", more));
    for index in 0..2 {
        let of_it =
            || events.iter().map(|event| &event["choices"][0]).filter(|it| it["index"] == index);
        let text: String = of_it().filter_map(|it| it["delta"]["content"].as_str()).collect();
        assert_eq!(text, "one two");
        assert_eq!(of_it().filter(|it| it["delta"]["role"] == "assistant").count(), 1);
        assert_eq!(of_it().filter(|it| it["finish_reason"] == "stop").count(), 1);
        assert!(of_it().any(|it| it["logprobs"]["content"][0]["token"] == "o"));
    }
    let reply =
        answered(&daemon, CHAT, &chat("tiny", json!({ "max_tokens": 3, "logprobs": null })));
    assert_eq!(reply["choices"][0]["message"]["content"], "one");
    assert_eq!(reply["choices"][0]["finish_reason"], "length");
    assert_eq!(reply["choices"][0]["logprobs"], Value::Null);
    refused(
        post(&daemon, CHAT, &chat("tiny", json!({ "top_logprobs": 2 }))),
        400,
        "invalid_request_error",
    );
}

#[test]
fn a_seed_and_biases_decide_what_is_said() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("eos_one_in", 0.into())]);
    let text = |more: Value| {
        let mut body = json!({ "model": "tiny", "prompt": "x", "max_tokens": 20 });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        answered(&daemon, "/v1/completions", &body)["choices"][0]["text"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(text(json!({ "seed": 3 })), text(json!({ "seed": 3 })));
    assert_ne!(text(json!({ "seed": 3 })), text(json!({ "seed": 4 })));
    assert_eq!(text(json!({ "temperature": 0, "logit_bias": { "65": 100 } })), "A".repeat(20));
}

#[test]
fn messages_come_in_parts_and_a_model_that_cannot_see_says_so() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("script", "Yes.".into())]);
    let ask = |content: Value| {
        let messages = json!([{ "role": "developer", "content": "Be short." }, { "role": "user", "content": content }]);
        post(&daemon, CHAT, &json!({ "model": "tiny", "messages": messages }))
    };
    let part = |text: &str| json!({ "type": "text", "text": text });
    let parts = ask(json!([part("one"), part("two")]));
    let text = ask(json!("one\ntwo"));
    assert_eq!((parts.status, text.status), (200, 200));
    assert_eq!(parts.body["usage"]["prompt_tokens"], text.body["usage"]["prompt_tokens"]);
    let image =
        json!({ "type": "image_url", "image_url": { "url": "data:image/png;base64,AA==" } });
    let error = refused(ask(json!([part("What is it?"), image])), 400, "invalid_request_error");
    assert!(error["message"].as_str().unwrap().contains("image"), "{error}");
}

#[test]
fn embeddings_are_numbers_or_base64_and_can_be_shortened() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[]);
    let ask = |more: Value| {
        let mut body = json!({ "model": "tiny", "input": ["one", "two"] });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let path = "/v1/embeddings";
    let whole = answered(&daemon, path, &ask(json!({})));
    let numbers = |reply: &Value, index: usize| -> Vec<f64> {
        let list = reply["data"][index]["embedding"].as_array().unwrap();
        list.iter().map(|x| x.as_f64().unwrap()).collect()
    };
    assert_eq!((&whole["object"], whole["data"].as_array().unwrap().len()), (&json!("list"), 2));
    assert_eq!((&whole["data"][1]["index"], numbers(&whole, 1).len()), (&json!(1), 32));
    assert_eq!(whole["usage"]["prompt_tokens"], whole["usage"]["total_tokens"]);
    let one = answered(&daemon, path, &ask(json!({ "input": "two" })));
    assert_eq!(numbers(&one, 0), numbers(&whole, 1));
    let tokens =
        answered(&daemon, path, &ask(json!({ "input": [[111, 110, 101], [116, 119, 111]] })));
    assert_eq!(tokens["data"], whole["data"]);
    let short = numbers(&answered(&daemon, path, &ask(json!({ "dimensions": 4 }))), 0);
    let length: f64 = short.iter().map(|x| x * x).sum();
    assert!(short.len() == 4 && (length - 1.0).abs() < 1e-3, "{short:?}");
    let text = answered(&daemon, path, &ask(json!({ "encoding_format": "base64" })));
    // Four bytes are a number: 32 are 172 letters, padded.
    assert_eq!(text["data"][0]["embedding"].as_str().map(str::len), Some(172));
    for wrong in [
        json!({ "dimensions": 33 }),
        json!({ "input": [] }),
        json!({ "input": null }),
        json!({ "input": {} }),
    ] {
        refused(post(&daemon, path, &ask(wrong)), 400, "invalid_request_error");
    }
}

#[test]
fn models_are_listed_and_found_by_names_with_slashes() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[]);
    daemon.ctl(["cp", "tiny", "ada/tiny"]).ok();
    let get = |path: &str| http(&daemon.socket(), "GET", path, "");
    let list = get("/v1/models").body;
    assert_eq!((&list["object"], list["data"].as_array().unwrap().len()), (&json!("list"), 2));
    let known = |id: &str| {
        let found = list["data"].as_array().unwrap().iter().find(|model| model["id"] == id);
        found.unwrap_or_else(|| panic!("{list}")).clone()
    };
    assert_eq!(known("tiny:latest")["owned_by"], "library");
    assert_eq!(known("ada/tiny:latest")["owned_by"], "ada");
    for path in ["/v1/models/ada/tiny", "/v1/models/ada%2Ftiny"] {
        assert_eq!(get(path).body, known("ada/tiny:latest"), "{path}");
    }
    refused(get("/v1/models/%ff"), 400, "invalid_request_error");
    let error = refused(get("/v1/models/none"), 404, "not_found_error");
    assert_eq!(error["code"], "model_not_found");
}

#[test]
fn mistakes_are_errors_as_openai_has_them() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("context_length", 64.into())]);
    let error = refused(post(&daemon, CHAT, &chat("none", json!({}))), 404, "not_found_error");
    assert_eq!(error["code"], "model_not_found");
    let error = refused(
        post(&daemon, CHAT, &chat("none", json!({ "stream": true }))),
        404,
        "not_found_error",
    );
    assert_eq!(error["code"], "model_not_found", "the stream has not begun");
    let body = json!({ "model": "tiny", "prompt": "x".repeat(200) });
    let error = refused(post(&daemon, "/v1/completions", &body), 400, "invalid_request_error");
    assert_eq!(error["code"], "context_length_exceeded");
    for body in [
        chat("", json!({})),
        chat("tiny", json!({ "messages": [] })),
        chat("tiny", json!({ "messages": [{ "role": "nobody" }] })),
        chat("tiny", json!({ "temperature": "hot" })),
        chat("tiny", json!({ "temperature": -1 })),
        chat("tiny", json!({ "tools": [{ "type": "web_search" }] })),
        chat("tiny", json!({ "n": 0 })),
        json!([]),
    ] {
        refused(post(&daemon, CHAT, &body), 400, "invalid_request_error");
    }
    refused(http(&daemon.socket(), "POST", CHAT, "{"), 400, "invalid_request_error");
    refused(http(&daemon.socket(), "GET", CHAT, ""), 405, "invalid_request_error");
    refused(http(&daemon.socket(), "GET", "/v1/nothing", ""), 404, "not_found_error");
}

#[test]
fn an_error_in_the_middle_is_an_event_and_the_stream_ends() {
    let daemon = TestDaemon::start();
    let settings =
        [("eos_one_in", 0.into()), ("crash_after", 50.into()), ("slow_us_per_decode", 2000.into())];
    daemon.model("crashes", &settings);
    for (path, body) in [
        (CHAT, chat("crashes", json!({}))),
        ("/v1/completions", json!({ "model": "crashes", "prompt": ["x", "y"] })),
    ] {
        let mut events = events(&daemon, path, &body);
        let error = events.pop().unwrap()["error"].clone();
        assert_eq!((&error["type"], &error["code"]), (&json!("api_error"), &json!("worker_died")));
        assert!(
            !events.is_empty()
                && events.iter().all(|event| event["choices"][0]["finish_reason"].is_null())
        );
    }
}

#[test]
fn a_page_that_names_another_host_is_refused_as_openai_does() {
    let daemon = TestDaemon::builder().config("[http]\nlisten = [\"127.0.0.1:0\"]").start();
    let address = daemon.http();
    let ask = |more: &[&str]| {
        let mut curl = daemon.command("curl");
        run(curl.args(["-sS", &format!("http://{address}/v1/models")]).args(more), "").json()
    };
    assert_eq!(ask(&[]), json!({ "object": "list", "data": [] }));
    for header in ["Host: evil.example", "Origin: https://evil.example"] {
        assert_eq!(ask(&["-H", header])["error"]["type"], "permission_error", "{header}");
    }
}
