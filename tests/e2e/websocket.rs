//! A WebSocket on `/rpc`, through a client that knows nothing of Hearth.

use hearth_tests::{DEADLINE, TestDaemon};
use serde_json::{Value, json};
use std::os::unix::net::UnixStream;
use tungstenite::{Message, WebSocket, client};

struct Socket(WebSocket<UnixStream>);

impl Socket {
    #[track_caller]
    fn connect(daemon: &TestDaemon) -> Self {
        let stream = UnixStream::connect(daemon.socket()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Self(client("ws://localhost/rpc", stream).unwrap().0)
    }

    fn send(&mut self, id: u64, method: &str, params: &Value) {
        let call = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        self.0.send(Message::text(call.to_string())).unwrap();
    }

    #[track_caller]
    fn recv(&mut self) -> Value {
        loop {
            if let Message::Text(text) = self.0.read().unwrap() {
                return serde_json::from_str(&text).unwrap();
            }
        }
    }

    #[track_caller]
    fn call(&mut self, method: &str, params: &Value) -> Value {
        self.send(1, method, params);
        self.recv()
    }
}

fn endless(daemon: &TestDaemon) -> Value {
    daemon.model("endless", &[("eos_one_in", 0.into()), ("slow_us_per_token", 2000.into())]);
    json!({ "model": "endless", "prompt": "once", "request": "mine" })
}

#[test]
fn calls_are_answered() {
    let daemon = TestDaemon::start();
    let mut socket = Socket::connect(&daemon);
    assert_eq!(socket.call("daemon.status", &json!({}))["result"]["pid"], daemon.pid());
    daemon.stop_cleanly();
}

#[test]
fn a_subscription_sends_ordered_events_and_one_terminal_event() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("script", "to be or not".into())]);
    let mut socket = Socket::connect(&daemon);
    let params = json!({ "model": "tiny", "messages": [{ "role": "user", "content": "hi" }], "options": { "temperature": 0 } });
    let subscription = socket.call("chat.send.stream", &params)["result"].clone();
    let (mut text, mut kinds) = (String::new(), Vec::new());
    loop {
        let message = socket.recv();
        assert_eq!(message["method"], "chat.send.event");
        assert_eq!(message["params"]["subscription"], subscription);
        let event = &message["params"]["result"];
        text += event["text"].as_str().unwrap_or_default();
        kinds.push(event["type"].as_str().unwrap().to_string());
        if event["type"] == "done" {
            assert_eq!(event["reply"]["message"]["content"], "to be or not");
            break;
        }
    }
    assert_eq!(kinds[0], "accepted");
    assert_eq!(text, "to be or not");
    // Nothing follows the end.
    assert_eq!(socket.call("daemon.status", &json!({}))["id"], 1);
}

#[test]
fn an_unsubscribe_ends_the_work() {
    let daemon = TestDaemon::start();
    let params = endless(&daemon);
    let mut socket = Socket::connect(&daemon);
    let subscription = socket.call("generate.stream", &params)["result"].clone();
    while socket.recv()["params"]["result"]["type"] != "delta" {}
    socket.send(2, "generate.unsubscribe", &json!([subscription]));
    while socket.recv()["id"] != 2 {}
    daemon.await_idle();
}

#[test]
fn a_closed_connection_ends_the_work() {
    let daemon = TestDaemon::start();
    let params = endless(&daemon);
    let mut socket = Socket::connect(&daemon);
    socket.call("generate.stream", &params);
    while socket.recv()["params"]["result"]["type"] != "delta" {}
    drop(socket);
    daemon.await_idle();
}

#[test]
fn a_cancelled_stream_ends_with_an_error_event() {
    let daemon = TestDaemon::start();
    let params = endless(&daemon);
    let mut socket = Socket::connect(&daemon);
    socket.call("generate.stream", &params);
    while socket.recv()["params"]["result"]["type"] != "delta" {}
    socket.send(2, "cancel", &json!({ "request": "mine" }));
    let end = loop {
        let message = socket.recv();
        if message["params"]["result"]["type"] == "error" {
            break message;
        }
    };
    assert_eq!(end["params"]["result"]["error"]["data"]["kind"], "cancelled");
}

#[test]
fn a_batch_is_answered() {
    let daemon = TestDaemon::start();
    let mut socket = Socket::connect(&daemon);
    let call = |id: u64| json!({ "jsonrpc": "2.0", "id": id, "method": "daemon.status" });
    socket.0.send(Message::text(json!([call(1), call(2)]).to_string())).unwrap();
    assert_eq!(socket.recv().as_array().unwrap().len(), 2);
}

#[test]
fn errors_are_those_of_the_raw_protocol() {
    let daemon = TestDaemon::start();
    let mut socket = Socket::connect(&daemon);
    for (method, params) in [
        ("no.such.method", json!({})),
        ("chat.send", json!({ "model": 1 })),
        ("chat.send", json!({ "model": "none", "messages": [] })),
        ("chat.send.stream", json!({ "modell": "x" })),
    ] {
        let error = socket.call(method, &params)["error"].clone();
        assert_eq!(error, daemon.raw().call(method, &params)["error"], "{method}");
        assert!(error["data"]["kind"].is_string() && error["data"]["hint"].is_string(), "{error}");
    }
}
