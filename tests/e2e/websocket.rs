//! A WebSocket on `/rpc`, through a client that knows nothing of Hearth.

use hearth_tests::{TestDaemon, WebSocket};
use serde_json::{Value, json};
use tungstenite::Message;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};

fn endless(daemon: &TestDaemon) -> Value {
    daemon.endless("endless");
    json!({ "model": "endless", "prompt": "once", "request": "mine" })
}

#[test]
fn calls_are_answered() {
    let daemon = TestDaemon::start();
    let mut socket = WebSocket::connect(&daemon);
    assert_eq!(socket.call("daemon.status", &json!({}))["result"]["pid"], daemon.pid());
    daemon.stop_cleanly();
}

#[test]
fn a_subscription_sends_ordered_events_and_one_terminal_event() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("script", "to be or not".into())]);
    let mut socket = WebSocket::connect(&daemon);
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
fn a_closed_connection_ends_the_work() {
    let daemon = TestDaemon::start();
    let params = endless(&daemon);
    let mut socket = WebSocket::connect(&daemon);
    socket.call("generate.stream", &params);
    while socket.recv()["params"]["result"]["type"] != "delta" {}
    drop(socket);
    daemon.await_idle();
}

#[test]
fn a_cancelled_stream_ends_with_an_error_event() {
    let daemon = TestDaemon::start();
    let params = endless(&daemon);
    let mut socket = WebSocket::connect(&daemon);
    socket.call("generate.stream", &params);
    while socket.recv()["params"]["result"]["type"] != "delta" {}
    socket.send_call(2, "cancel", &json!({ "request": "mine" }));
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
    let mut socket = WebSocket::connect(&daemon);
    let call = |id: u64| json!({ "jsonrpc": "2.0", "id": id, "method": "daemon.status" });
    socket.send_text(&json!([call(1), call(2)]).to_string());
    assert_eq!(socket.recv().as_array().unwrap().len(), 2);
}

/// A frame of a message in several frames.
fn part(text: &str, opcode: Data, is_last: bool) -> Message {
    Message::Frame(Frame::message(text.as_bytes().to_vec(), OpCode::Data(opcode), is_last))
}

#[test]
fn a_message_may_come_in_several_frames_with_a_ping_between_them() {
    let daemon = TestDaemon::start();
    let mut socket = WebSocket::connect(&daemon);
    let call = json!({ "jsonrpc": "2.0", "id": 5, "method": "daemon.status" }).to_string();
    let (first, rest) = call.split_at(20);
    let (second, third) = rest.split_at(1);
    socket.0.send(part(first, Data::Text, false)).unwrap();
    socket.0.send(part(second, Data::Continue, false)).unwrap();
    socket.0.send(Message::Ping(b"there?".to_vec().into())).unwrap();
    assert_eq!(socket.0.read().unwrap(), Message::Pong(b"there?".to_vec().into()));
    socket.0.send(part(third, Data::Continue, true)).unwrap();
    assert_eq!(socket.recv()["id"], 5);
}

#[test]
fn a_binary_message_is_read_like_a_text() {
    let daemon = TestDaemon::start();
    let mut socket = WebSocket::connect(&daemon);
    let call = json!({ "jsonrpc": "2.0", "id": 5, "method": "daemon.status" }).to_string();
    socket.0.send(Message::binary(call.into_bytes())).unwrap();
    assert_eq!(socket.recv()["id"], 5);
}

#[test]
fn a_close_is_answered_with_its_code() {
    let daemon = TestDaemon::start();
    let mut socket = WebSocket::connect(&daemon);
    let close = CloseFrame { code: CloseCode::Normal, reason: "done".into() };
    socket.0.close(Some(close)).unwrap();
    match socket.0.read().unwrap() {
        Message::Close(Some(close)) => assert_eq!(close.code, CloseCode::Normal),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_breaks_the_protocol_closes_the_connection_with_a_code_and_harms_nobody() {
    let daemon = TestDaemon::start();
    let reserved = Message::Frame(Frame::from_payload(
        FrameHeader { rsv1: true, ..FrameHeader::default() },
        Vec::new().into(),
    ));
    let split_ping = Message::Frame(Frame::from_payload(
        FrameHeader {
            is_final: false,
            opcode: OpCode::Control(Control::Ping),
            ..FrameHeader::default()
        },
        Vec::new().into(),
    ));
    for frames in [
        vec![part("{}", Data::Continue, true)],
        vec![part("{", Data::Text, false), part("}", Data::Text, true)],
        vec![reserved],
        vec![split_ping],
    ] {
        let mut socket = WebSocket::connect(&daemon);
        for frame in frames {
            socket.0.send(frame).unwrap();
        }
        match socket.0.read().unwrap() {
            Message::Close(Some(close)) => assert_eq!(close.code, CloseCode::Protocol),
            other => panic!("{other:?}"),
        }
    }
    daemon.status();
}

#[test]
fn a_daemon_that_stops_says_so() {
    let mut daemon = TestDaemon::start();
    let mut socket = WebSocket::connect(&daemon);
    socket.call("daemon.status", &json!({}));
    daemon.signal(rustix::process::Signal::TERM);
    match socket.0.read().unwrap() {
        Message::Close(Some(close)) => assert_eq!(close.code, CloseCode::Away),
        other => panic!("{other:?}"),
    }
    assert!(daemon.await_end().success());
}

#[test]
fn announcing_long_messages_takes_no_memory_and_a_long_one_is_swallowed() {
    let daemon = TestDaemon::start();
    let mut silent = Vec::new();
    for _ in 0..50 {
        let socket = WebSocket::connect(&daemon);
        // A masked text frame of 30 MiB, of which nothing comes.
        let mut header = vec![0x81, 0xff];
        header.extend((30_u64 << 20).to_be_bytes());
        header.extend([1, 2, 3, 4]);
        std::io::Write::write_all(&mut socket.0.get_ref(), &header).unwrap();
        silent.push(socket);
    }
    let mut socket = WebSocket::connect(&daemon);
    socket.send_text(&format!("[\"{}\"]", "x".repeat(100_000_000)));
    assert_eq!(socket.recv()["error"]["data"]["kind"], "too_large");
    assert_eq!(socket.call("daemon.status", &json!({}))["result"]["pid"], daemon.pid());
    let peak = hearth_tests::peak_rss_bytes(daemon.pid());
    assert!(peak < 120 << 20, "the daemon had {} MiB resident", peak >> 20);
}

#[test]
fn a_client_that_vanishes_behind_more_calls_than_are_taken_at_once_ends_them_all() {
    let daemon = TestDaemon::start();
    let mut params = endless(&daemon);
    params["request"].take();
    let mut socket = WebSocket::connect(&daemon);
    for id in 0..400 {
        socket.send_call(id, "generate", &params);
    }
    hearth_tests::eventually_is("many calls", || daemon.status().active_requests >= 256);
    drop(socket);
    daemon.await_idle();
}
