//! The same mistake gets the same error, whichever of the three wires it is made on.

use hearth_tests::{Raw, TestDaemon, WebSocket, http};
use serde_json::{Value, json};

/// What the daemon answers to a text on each wire. Each connection goes on.
#[track_caller]
fn say(daemon: &TestDaemon, text: &str) -> Vec<(&'static str, Value)> {
    let mut raw = daemon.raw();
    raw.write(text);
    // Ends what the text itself leaves open.
    raw.half_close();
    let mut replies = raw.rest();
    assert_eq!(replies.len(), 1, "{text}: {replies:?}");

    let mut socket = WebSocket::connect(daemon);
    socket.send_text(text);
    let told = socket.recv();
    assert_eq!(socket.call("daemon.status", &json!({}))["id"], 1, "the connection is spoilt");

    let posted = http(&daemon.socket(), "POST", "/rpc", text);
    vec![("raw", replies.remove(0)), ("websocket", told), ("post", posted.body)]
}

#[track_caller]
fn check(daemon: &TestDaemon, text: &str, kind: &str, code: i32) {
    let shown = &text[..text.len().min(100)];
    let replies = say(daemon, text);
    for (wire, reply) in &replies {
        assert_eq!(reply, &replies[0].1, "{wire}: {shown}");
    }
    let error = &replies[0].1["error"];
    assert_eq!(error["data"]["kind"], kind, "{shown}: {error}");
    assert_eq!(error["code"], code, "{shown}: {error}");
    assert!(error["data"]["hint"].is_string(), "{shown}: {error}");
}

#[test]
fn what_is_not_json_is_a_parse_error() {
    let daemon = TestDaemon::start();
    for text in [
        "{nonsense}",
        "hello",
        "{\"a\" \"b\"}",
        "[1,2,]",
        "{]",
        "\"text\"",
        "}",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"met",
        "[{\"jsonrpc\":\"2.0\"}",
    ] {
        check(&daemon, text, "parse_error", -32700);
    }
}

#[test]
fn what_is_no_request_is_an_invalid_request() {
    let daemon = TestDaemon::start();
    for text in [
        "{}",
        r#"{"jsonrpc":"2.0"}"#,
        r#"{"jsonrpc":"2.0","id":7}"#,
        r#"{"jsonrpc":"1.0","id":7,"method":"daemon.status"}"#,
        r#"{"id":7,"method":"daemon.status"}"#,
        r#"{"jsonrpc":"2.0","id":7,"method":7}"#,
        r#"{"jsonrpc":"2.0","id":{},"method":"daemon.status"}"#,
        r#"{"jsonrpc":"2.0","id":[1],"method":"daemon.status"}"#,
        r#"{"jsonrpc":"2.0","id":-1.5,"method":"daemon.status"}"#,
        r#"{"jsonrpc":"2.0","id":true,"method":"daemon.status"}"#,
        "[]",
    ] {
        check(&daemon, text, "invalid_request", -32600);
    }
}

#[test]
fn a_request_that_is_too_long_is_too_large() {
    let daemon = TestDaemon::builder().config("max_request_bytes = 4096").start();
    let prompt = "x".repeat(100_000);
    let call =
        json!({ "jsonrpc": "2.0", "id": 1, "method": "generate", "params": { "prompt": prompt } });
    check(&daemon, &call.to_string(), "too_large", -32008);
    let posted = http(&daemon.socket(), "POST", "/rpc", &call.to_string());
    assert_eq!(posted.status, 413);
}

#[test]
fn a_batch_of_too_many_calls_is_too_large() {
    let daemon = TestDaemon::start();
    let batch = format!("[{}1]", "1,".repeat(5000));
    check(&daemon, &batch, "too_large", -32008);
}

#[test]
fn unknown_methods_and_wrong_parameters_are_refused_alike() {
    let daemon = TestDaemon::start();
    for (method, params, kind, code) in [
        ("no.such.method", json!({}), "method_not_found", -32601),
        ("chat.send", json!({ "model": 1 }), "invalid_params", -32602),
        ("chat.send", json!({ "model": "m", "messages": [], "x": 1 }), "invalid_params", -32602),
        ("chat.send", json!({ "model": "none", "messages": [] }), "model_not_found", -32001),
    ] {
        let call = json!({ "jsonrpc": "2.0", "id": 3, "method": method, "params": params });
        check(&daemon, &call.to_string(), kind, code);
    }
    let stream = json!({ "jsonrpc": "2.0", "id": 3, "method": "chat.send.stream", "params": {} });
    let replies = say(&daemon, &json!([stream]).to_string());
    for (wire, reply) in &replies {
        assert_eq!(reply[0]["error"]["data"]["kind"], "invalid_request", "{wire}: {reply}");
        assert_eq!(reply, &replies[0].1, "{wire}");
    }
}

#[test]
fn a_notification_is_answered_on_no_wire() {
    let daemon = TestDaemon::start();
    let text = json!({ "jsonrpc": "2.0", "method": "daemon.status" }).to_string();
    let mut raw: Raw = daemon.raw();
    raw.write(&text);
    raw.half_close();
    assert_eq!(raw.rest(), Vec::<Value>::new());

    let mut socket = WebSocket::connect(&daemon);
    socket.send_text(&text);
    assert_eq!(socket.call("daemon.status", &json!({}))["result"]["pid"], daemon.pid());

    let posted = http(&daemon.socket(), "POST", "/rpc", &text);
    assert_eq!((posted.status, posted.body), (204, Value::Null));
}

#[test]
fn a_post_of_two_requests_is_refused() {
    let daemon = TestDaemon::start();
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "daemon.status" });
    let posted = http(&daemon.socket(), "POST", "/rpc", &format!("{call}{call}"));
    assert_eq!(posted.body["error"]["data"]["kind"], "parse_error", "{posted:?}");
    assert!(posted.body["error"]["data"]["hint"].as_str().unwrap().contains("batch"));
}

#[test]
fn an_empty_message_and_an_empty_post_are_parse_errors() {
    let daemon = TestDaemon::start();
    let mut socket = WebSocket::connect(&daemon);
    for text in ["", " \n"] {
        socket.send_text(text);
        let told = socket.recv();
        assert_eq!(told["error"]["data"]["kind"], "parse_error", "{told}");
        let posted = http(&daemon.socket(), "POST", "/rpc", text);
        assert_eq!(posted.body, told);
    }
}

#[test]
fn a_body_that_is_no_object_is_refused_in_the_same_words_on_every_path() {
    let daemon = TestDaemon::start();
    for path in ["/api/generate", "/v1/chat/completions", "/v1/messages"] {
        for body in ["[]", " [\"m\"]", "null", "7", "model=m"] {
            let posted = http(&daemon.socket(), "POST", path, body);
            assert_eq!(posted.status, 400, "{path} {body}: {posted:?}");
            let said = posted.body.to_string();
            let wanted = "the request does not fit: it is no JSON object";
            assert!(said.contains(wanted), "{path} {body}: {said}");
        }
    }
}
