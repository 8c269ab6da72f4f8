//! What no well-behaved client says: a clear error to whoever said it, and nothing else.

use hearth_tests::{Raw, TestDaemon, error_of, http, peak_rss_bytes};
use serde_json::{Value, json};
use std::io::Write;

const MIB: u64 = 1 << 20;

/// The next reply is an error of this kind, and the connection still works.
#[track_caller]
fn refuses(raw: &mut Raw, bytes: impl AsRef<[u8]>, kind: &str) -> Value {
    raw.write(bytes);
    let reply = raw.recv();
    assert_eq!(reply["error"]["data"]["kind"], kind, "{reply}");
    assert!(!reply["error"]["message"].as_str().unwrap().is_empty());
    assert_eq!(raw.call("daemon.status", &json!({}))["id"], 1, "the connection is spoilt");
    reply
}

#[test]
fn malformed_json_is_a_parse_error_and_the_connection_goes_on() {
    let daemon = TestDaemon::start();
    let mut raw = daemon.raw();
    for text in [
        "{\"jsonrpc\": \"2.0\", \"id\": 1, \"method\": }\n",
        "{nonsense}\n",
        "{\"a\" \"b\"}\n",
        "[1, 2,]\n",
        "{]\n",
        "hello, is anybody there?\n",
        "}\n",
        "\"text\"\n",
        "\0\0\0\0\n",
    ] {
        let reply = refuses(&mut raw, text, "parse_error");
        assert_eq!(reply["id"], Value::Null, "{text}");
    }
}

#[test]
fn a_request_that_ends_in_the_middle_is_a_parse_error() {
    let daemon = TestDaemon::start();
    let mut raw = daemon.raw();
    raw.write(r#"{"jsonrpc": "2.0", "id": 1, "met"#);
    raw.half_close();
    let replies = raw.rest();
    assert_eq!(replies.len(), 1, "{replies:?}");
    assert_eq!(replies[0]["error"]["data"]["kind"], "parse_error");
}

#[test]
fn what_is_json_and_no_request_is_an_invalid_request() {
    let daemon = TestDaemon::start();
    let mut raw = daemon.raw();
    for text in [
        "{}\n",
        "{\"jsonrpc\":\"2.0\"}\n",
        "{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"daemon.status\"}\n",
        "{\"id\":1,\"method\":\"daemon.status\"}\n",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":7}\n",
        "{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"daemon.status\"}\n",
        "[]\n",
    ] {
        refuses(&mut raw, text, "invalid_request");
    }
}

#[test]
fn an_unknown_method_is_the_same_error_on_every_wire() {
    let daemon = TestDaemon::start();
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "chat.sent", "params": {} });
    let mut raw = daemon.raw();
    let reply = raw.call("chat.sent", &json!({}));
    let error = &reply["error"];
    assert_eq!(error["code"], -32601);
    assert_eq!(error["message"], "there is no method `chat.sent`");
    assert_eq!(error["data"]["kind"], "method_not_found");
    assert!(error["data"]["hint"].is_string(), "{error}");
    // The WebSocket's is compared in `websocket`.
    let posted = http(&daemon.socket(), "POST", "/rpc", &call.to_string());
    assert_eq!(&posted.body["error"], error);
}

#[test]
fn a_huge_method_name_is_not_repeated_in_full() {
    let daemon = TestDaemon::start();
    let reply = daemon.raw().call(&"é".repeat(100_000), &json!({}));
    assert!(reply.to_string().len() < 1000);
    assert_eq!(reply["error"]["data"]["kind"], "method_not_found");
}

#[test]
fn wrong_types_and_unknown_fields_are_invalid_params_with_a_hint() {
    let daemon = TestDaemon::start();
    let mut raw = daemon.raw();
    let messages = json!([{ "role": "user", "content": "hi" }]);
    for (method, params) in [
        ("chat.send", json!({ "model": 7, "messages": messages })),
        ("chat.send", json!({ "model": "m" })),
        ("chat.send", json!({ "model": "m", "messages": "hi" })),
        ("chat.send", json!({ "model": "m", "messages": [{ "role": "wizard", "content": "" }] })),
        ("chat.send", json!({ "model": "m", "messages": messages, "temperature": 1 })),
        ("chat.send", json!({ "model": "m", "messages": messages, "options": { "seed": -1 } })),
        ("chat.send.stream", json!({ "model": "m", "messages": messages, "stream": true })),
        ("chat.send", json!(["m", messages])),
        ("chat.send", json!("m")),
        ("chat.send", Value::Null),
        ("daemon.status", json!({ "verbose": true })),
        ("model.load", json!({ "model": "m", "keep_alive": "soon" })),
        ("detokenize", json!({ "model": "m", "tokens": [1.5] })),
        ("detokenize", json!({ "model": "m", "tokens": [99_999_999_999_u64] })),
    ] {
        let reply = raw.call(method, &params);
        let error = &reply["error"];
        let kind = error["data"]["kind"].as_str().unwrap_or("none");
        assert!(
            kind == "invalid_params" || (kind == "invalid_request" && params.is_string()),
            "{method} {params}: {reply}"
        );
        assert!(error["data"]["hint"].is_string(), "{method} {params}: {reply}");
    }
}

#[test]
fn options_out_of_range_are_invalid_params_that_name_the_option() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[]);
    let mut raw = daemon.raw();
    for (option, value) in [
        ("temperature", json!(-1)),
        ("top_p", json!(2)),
        ("min_p", json!(-0.1)),
        ("repeat_penalty", json!(0)),
    ] {
        let params = json!({ "model": "tiny", "prompt": "a", "options": { option: value } });
        let reply = raw.call("generate", &params);
        assert_eq!(reply["error"]["data"]["kind"], "invalid_params", "{reply}");
        assert!(reply["error"]["message"].as_str().unwrap().contains(option), "{reply}");
    }
    for tokens in [json!([-1]), json!([2_000_000_000])] {
        let reply = raw.call("detokenize", &json!({ "model": "tiny", "tokens": tokens }));
        assert_eq!(reply["error"]["data"]["kind"], "invalid_params", "{reply}");
    }
}

#[test]
fn names_that_are_none_are_refused() {
    let daemon = TestDaemon::start();
    let mut client = daemon.client();
    for name in ["", "../../etc/passwd", "a/b/c/d/e", "x:y:z", "name with blanks", "a\0b", ".."] {
        let error = error_of(client.call_value("model.show", &json!({ "model": name })));
        let kind = serde_json::to_value(error.kind()).unwrap();
        assert!(kind == "invalid_params" || kind == "model_not_found", "{name:?}: {error:?}");
    }
}

#[test]
fn a_line_of_100_mb_is_an_error_takes_no_memory_and_spoils_nothing() {
    let daemon = TestDaemon::start();
    let mut raw = daemon.raw();
    let chunk = vec![b'x'; 1 << 20];
    raw.write(br#"{"jsonrpc":"2.0","id":1,"method":"generate","params":{"model":"m","prompt":""#);
    for _ in 0..100 {
        raw.write(&chunk);
    }
    raw.write("\"}}\n");
    let reply = raw.recv();
    assert_eq!(reply["error"]["data"]["kind"], "too_large", "{reply}");
    let hint = reply["error"]["data"]["hint"].as_str().unwrap();
    assert!(hint.contains("max_request_bytes"), "{hint}");
    assert_eq!(raw.call("daemon.status", &json!({}))["result"]["pid"], daemon.pid());

    // Of the limit of 32 MiB there is one copy, and a vector that grows has had another.
    let peak = peak_rss_bytes(daemon.pid());
    assert!(peak < 120 * MIB, "the daemon had {} MiB resident", peak / MIB);
}

#[test]
fn a_line_of_100_mb_of_garbage_is_an_error_and_takes_no_memory() {
    let daemon = TestDaemon::start();
    let mut raw = daemon.raw();
    let chunk = vec![b'x'; 1 << 20];
    for _ in 0..100 {
        raw.write(&chunk);
    }
    raw.write("\n");
    assert_eq!(raw.recv()["error"]["data"]["kind"], "parse_error");
    assert_eq!(raw.call("daemon.status", &json!({}))["result"]["pid"], daemon.pid());
    let peak = peak_rss_bytes(daemon.pid());
    assert!(peak < 40 * MIB, "the daemon had {} MiB resident", peak / MIB);
}

#[test]
fn a_post_of_100_mb_is_too_large_and_takes_no_memory() {
    let daemon = TestDaemon::start();
    let reply = http(&daemon.socket(), "POST", "/rpc", &"x".repeat(100_000_000));
    assert_eq!(reply.status, 413);
    assert_eq!(reply.body["error"]["data"]["kind"], "too_large", "{reply:?}");
    assert_eq!(daemon.status().pid, daemon.pid());
    let peak = peak_rss_bytes(daemon.pid());
    assert!(peak < 120 * MIB, "the daemon had {} MiB resident", peak / MIB);
}

#[test]
fn malformed_json_in_a_post_is_an_error_with_a_kind() {
    let daemon = TestDaemon::start();
    let no_method = r#"{"jsonrpc":"2.0","id":1}"#;
    for (body, kind) in
        [("{nonsense}", "parse_error"), (no_method, "invalid_request"), ("", "parse_error")]
    {
        let reply = http(&daemon.socket(), "POST", "/rpc", body);
        assert_eq!(reply.body["error"]["data"]["kind"], kind, "{body:?}: {reply:?}");
    }
}

#[test]
fn streams_over_post_are_refused_in_words() {
    let daemon = TestDaemon::start();
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "chat.send.stream", "params": { "model": "m", "messages": [] } });
    let reply = http(&daemon.socket(), "POST", "/rpc", &call.to_string());
    let error = &reply.body["error"];
    assert_eq!(error["data"]["kind"], "invalid_request", "{reply:?}");
    assert!(error["data"]["hint"].as_str().unwrap().contains("WebSocket"), "{reply:?}");
}

#[test]
fn broken_http_ends_its_own_connection_only() {
    let daemon = TestDaemon::start();
    for text in [
        "GET\r\n\r\n",
        "POST /rpc HTTP/9.9\r\n\r\n",
        "POST /rpc HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    ] {
        let mut raw = daemon.raw();
        raw.write(text);
        raw.half_close();
        while raw.line().is_some() {}
    }
    daemon.status();
}

#[test]
fn invalid_utf_8_is_a_parse_error() {
    let daemon = TestDaemon::start();
    let mut raw = daemon.raw();
    for (before, after) in [
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"generate","params":{"model":"m","prompt":""#,
            r#""}}"#,
        ),
        (r#"{"jsonrpc":"2.0","id":1,"method":""#, r#""}"#),
        (r#"{"jsonrpc":"2.0","id":""#, r#"","method":"daemon.status"}"#),
    ] {
        let mut bytes = before.as_bytes().to_vec();
        bytes.extend([0xff, 0xfe, 0xc3, 0x28]);
        bytes.extend(after.as_bytes());
        raw.write(bytes);
        let reply = raw.recv();
        assert_eq!(reply["error"]["data"]["kind"], "parse_error", "{reply}");
    }
    refuses(&mut raw, [0xff, 0xfe, b'\n'], "parse_error");
}

#[test]
fn surrogates_that_make_no_character_are_an_error() {
    let daemon = TestDaemon::start();
    let mut raw = daemon.raw();
    raw.write(
        r#"{"jsonrpc":"2.0","id":1,"method":"generate","params":{"model":"m","prompt":"\ud800"}}"#,
    );
    assert_eq!(raw.recv()["error"]["data"]["kind"], "invalid_params");
    daemon.status();
}

#[test]
fn deep_nesting_overflows_no_stack() {
    let daemon = TestDaemon::start();
    let mut raw = daemon.raw();
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    raw.write(deep(1_000_000) + "\n");
    assert_eq!(raw.recv()[0]["error"]["data"]["kind"], "invalid_request");

    let tool = format!(r#"{{"name":"t","parameters":{}}}"#, deep(1_000_000));
    raw.write(format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"chat.send","params":{{"model":"m","messages":[],"tools":[{tool}]}}}}"#
    ));
    assert_eq!(raw.recv()["error"]["data"]["kind"], "invalid_params");
    let braces = format!("{}{}\n", "{\"a\":".repeat(500_000), "}".repeat(500_000));
    raw.write(braces);
    assert!(raw.recv()["error"].is_object());
    daemon.status();
}

#[test]
fn nesting_that_just_fits_reaches_the_worker_and_kills_nobody() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[]);
    let mut raw = daemon.raw();
    for n in [20, 60, 90, 110, 118, 122, 124, 126] {
        let schema = format!("{}{}", "[".repeat(n), "]".repeat(n));
        raw.write(format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"chat.send","params":{{"model":"tiny","messages":[],"tools":[{{"name":"t","parameters":{schema}}}],"options":{{"max_tokens":1}}}}}}"#
        ));
        let reply = raw.recv();
        let kind = &reply["error"]["data"]["kind"];
        assert!(kind.is_null() || kind == "invalid_params", "{n}: {reply}");
    }
    let worker = daemon.worker_pid();
    assert_eq!(
        raw.call("generate", &json!({ "model": "tiny", "prompt": "a" }))["error"],
        Value::Null
    );
    assert_eq!(daemon.worker_pid(), worker, "the worker died");
}

#[test]
fn an_empty_conversation_and_an_empty_prompt_are_answered_or_refused() {
    let daemon = TestDaemon::start();
    daemon.model("bare", &[("add_bos", false.into())]);
    let reply = daemon.raw().call("generate", &json!({ "model": "bare", "prompt": "" }));
    assert_eq!(reply["error"]["data"]["kind"], "invalid_params", "{reply}");
    let params = json!({ "model": "bare", "messages": [], "options": { "max_tokens": 3 } });
    assert!(daemon.raw().call("chat.send", &params)["result"].is_object());
}

#[test]
fn a_client_that_goes_while_it_is_being_answered_is_nobodys_problem() {
    let daemon = TestDaemon::start();
    for _ in 0..200 {
        let raw = daemon.raw();
        raw.send_call(1, "rpc.discover", &json!({}));
        drop(raw);
    }
    for _ in 0..50 {
        let raw = daemon.raw();
        let _ = raw.stream().write_all(br#"{"jsonrpc":"2.0","id":1,"#);
    }
    assert_eq!(daemon.status().pid, daemon.pid());
    assert!(!daemon.log().contains("ERROR"), "the log has an error");
    daemon.stop_cleanly();
}
