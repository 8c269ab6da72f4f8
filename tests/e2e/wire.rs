//! Raw JSON-RPC and HTTP POST, said by hand and by the tools the README names.

use hearth_protocol::{Client, DaemonStatus, Empty, Event, ModelLoad, ProgressEvent, methods};
use hearth_tests::{Ran, TestDaemon, follow, follow_generate, generate, http, run};
use serde_json::{Value, json};

const STATUS: &str = r#"{"jsonrpc":"2.0","id":1,"method":"daemon.status"}"#;

#[test]
fn a_call_needs_no_newline_and_its_reply_is_one_line() {
    let daemon = TestDaemon::start();
    let mut raw = daemon.raw();
    raw.write(STATUS);
    let reply = raw.recv();
    assert_eq!(reply["jsonrpc"], "2.0");
    assert_eq!(reply["id"], 1);
    assert_eq!(reply["result"]["pid"], daemon.pid());
    assert_eq!(reply["result"]["socket"], daemon.socket().to_str().unwrap());
    daemon.stop_cleanly();
}

#[test]
fn calls_on_one_connection_run_side_by_side_and_are_told_apart_by_id() {
    let daemon = TestDaemon::start();
    daemon.model("slow", &[("open_ms", 500.into())]);
    let mut raw = daemon.raw();
    raw.send_call(1, "model.load", &json!({ "model": "slow" }));
    raw.send_call(2, "daemon.status", &json!({}));
    assert_eq!(raw.recv()["id"], 2, "the second call waited for the first");
    assert_eq!(raw.recv()["id"], 1);
}

#[test]
fn a_hundred_calls_in_one_write_all_get_their_replies() {
    let daemon = TestDaemon::start();
    let mut raw = daemon.raw();
    let mut bytes = String::new();
    for id in 0..100 {
        bytes += &json!({ "jsonrpc": "2.0", "id": id, "method": "daemon.status" }).to_string();
    }
    raw.write(bytes);
    let mut ids: Vec<u64> = (0..100).map(|_| raw.recv()["id"].as_u64().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..100).collect::<Vec<_>>());
}

#[test]
fn a_client_that_closed_its_writing_side_still_reads_every_reply() {
    let daemon = TestDaemon::start();
    daemon.model("slow", &[("open_ms", 200.into()), ("slow_us_per_token", 1000.into())]);
    let mut raw = daemon.raw();
    raw.send_call(1, "model.load", &json!({ "model": "slow" }));
    raw.send_call(2, "daemon.status", &json!({}));
    raw.send_call(
        3,
        "generate.stream",
        &json!({ "model": "slow", "prompt": "once upon", "options": { "max_tokens": 20 } }),
    );
    raw.half_close();
    let messages = raw.rest();
    for id in 1..=3 {
        let n = messages.iter().filter(|message| message["id"] == id).count();
        assert_eq!(n, 1, "replies to call {id} in {messages:?}");
    }
    let last = messages.last().unwrap();
    assert_eq!(last["params"]["result"]["type"], "done", "{last}");
}

#[test]
fn ids_may_be_texts_numbers_or_null_and_come_back_as_they_were() {
    let daemon = TestDaemon::start();
    let mut raw = daemon.raw();
    for id in [json!("a\"b"), json!(0), json!(u64::MAX), Value::Null] {
        raw.send(&json!({ "jsonrpc": "2.0", "id": id, "method": "daemon.status", "params": {} }));
        assert_eq!(raw.recv()["id"], id);
    }
}

#[test]
fn a_notification_is_not_answered() {
    let daemon = TestDaemon::start();
    let mut raw = daemon.raw();
    raw.send(&json!({ "jsonrpc": "2.0", "method": "daemon.status" }));
    raw.send(&json!({ "jsonrpc": "2.0", "method": "no.such.method" }));
    raw.send(&json!({ "jsonrpc": "2.0", "id": 7, "method": "daemon.status" }));
    assert_eq!(raw.recv()["id"], 7);
    raw.half_close();
    assert_eq!(raw.rest(), Vec::<Value>::new());
}

#[test]
fn a_batch_is_answered_as_a_batch_without_its_notifications() {
    let daemon = TestDaemon::start();
    let mut raw = daemon.raw();
    raw.send(&json!([
        { "jsonrpc": "2.0", "id": 1, "method": "daemon.status" },
        { "jsonrpc": "2.0", "method": "daemon.status" },
        { "jsonrpc": "2.0", "id": 2, "method": "no.such.method" },
        17,
    ]));
    let replies = raw.recv();
    let replies = replies.as_array().unwrap();
    assert_eq!(replies.len(), 3, "{replies:?}");
    let of = |id: Value| replies.iter().find(|reply| reply["id"] == id).unwrap();
    assert_eq!(of(json!(1))["result"]["pid"], daemon.pid());
    assert_eq!(of(json!(2))["error"]["data"]["kind"], "method_not_found");
    assert_eq!(of(Value::Null)["error"]["data"]["kind"], "invalid_request");

    raw.send(&json!([]));
    assert_eq!(raw.recv()["error"]["data"]["kind"], "invalid_request");
    raw.send(&json!([{ "jsonrpc": "2.0", "method": "daemon.status" }]));
    raw.send(&json!({ "jsonrpc": "2.0", "id": 3, "method": "daemon.status" }));
    assert_eq!(raw.recv()["id"], 3, "a batch of notifications alone was answered");
}

#[test]
fn a_batch_may_not_hold_streams() {
    let daemon = TestDaemon::start();
    let mut raw = daemon.raw();
    raw.send(&json!([{ "jsonrpc": "2.0", "id": 1, "method": "chat.send.stream", "params": {} }]));
    let reply = raw.recv();
    assert_eq!(reply[0]["id"], 1);
    assert_eq!(reply[0]["error"]["data"]["kind"], "invalid_request");
}

#[test]
fn a_post_is_answered_like_a_raw_call() {
    let daemon = TestDaemon::start();
    let reply = http(&daemon.socket(), "POST", "/rpc", STATUS);
    assert_eq!(reply.status, 200);
    assert_eq!(reply.body["result"]["pid"], daemon.pid());

    let batch = format!("[{STATUS},{STATUS}]");
    let reply = http(&daemon.socket(), "POST", "/rpc", &batch);
    assert_eq!(reply.body.as_array().unwrap().len(), 2);
}

#[test]
fn other_paths_and_methods_of_http_are_refused_in_words() {
    let daemon = TestDaemon::start();
    for (method, path, status) in [("GET", "/rpc", 405), ("POST", "/x", 404), ("GET", "/x", 404)] {
        let reply = http(&daemon.socket(), method, path, "");
        assert_eq!(reply.status, status, "{method} {path}");
        assert_eq!(reply.body["error"]["data"]["kind"], "invalid_request", "{method} {path}");
    }
}

#[test]
fn one_connection_takes_post_after_post() {
    let daemon = TestDaemon::start();
    let url = "http://localhost/rpc";
    let socket = daemon.socket();
    let ran = run(
        daemon
            .command("curl")
            .args(["-sS", "-w", "\n%{num_connects}\n", "--unix-socket"])
            .arg(socket)
            .args(["-H", "Content-Type: application/json", "-d", STATUS, url, url]),
        "",
    );
    let stdout = ran.ok();
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines.len(), 4, "{stdout}");
    assert_eq!((lines[1], lines[3]), ("1", "0"), "curl had to connect again");
}

#[test]
fn curl_nc_and_socat_work() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("script", "hello".into())]);
    let socket = daemon.socket().display().to_string();
    let pid = u64::from(daemon.pid());
    let pid_of = |ran: Ran| {
        let reply: Value = serde_json::from_str(&ran.ok()).unwrap();
        reply["result"]["pid"].as_u64().unwrap()
    };

    let mut curl = daemon.command("curl");
    curl.args(["-sS", "--unix-socket", &socket, "-H", "Content-Type: application/json"]);
    assert_eq!(pid_of(run(curl.args(["-d", STATUS, "http://localhost/rpc"]), "")), pid);

    assert_eq!(pid_of(run(daemon.command("nc").args(["-N", "-U", &socket]), STATUS)), pid);

    let mut socat = daemon.command("socat");
    socat.args(["-t", "60", "-", &format!("UNIX-CONNECT:{socket}")]);
    assert_eq!(pid_of(run(&mut socat, STATUS)), pid);

    let stream = json!({
        "jsonrpc": "2.0", "id": 1, "method": "chat.send.stream",
        "params": { "model": "tiny", "messages": [{ "role": "user", "content": "hi" }], "options": { "temperature": 0 } },
    });
    let said = run(daemon.command("nc").args(["-N", "-U", &socket]), &stream.to_string()).ok();
    let last: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!(last["params"]["result"]["reply"]["message"]["content"], "hello", "{said}");
}

#[test]
fn a_stream_and_a_call_of_one_method_answer_the_same() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[]);
    let mut client = daemon.client();
    let params = generate("tiny", "once upon a time");
    let told = follow_generate(&mut client, &params);
    let reply = client.call::<hearth_protocol::Generate>(&params).unwrap();
    assert!(!reply.text.is_empty());
    assert_eq!(told.text, reply.text);
    assert_eq!(told.reply().text, reply.text);
    assert_eq!(told.reply().finish, reply.finish);
    let prefill =
        |event: &Event<_>| matches!(event, Event::Prefill { done, total, .. } if done == total);
    assert!(told.events.iter().any(prefill), "{:?}", told.events);
}

#[test]
fn loading_tells_how_far_it_is_and_ends_once() {
    let daemon = TestDaemon::start();
    daemon.model("slow", &[("open_ms", 300.into())]);
    let mut client = daemon.client();
    let params = hearth_protocol::LoadParams {
        model: "slow".into(),
        draft: None,
        keep_alive: None,
        request: None,
    };
    let mut stream = client.stream::<ModelLoad>(&params).unwrap();
    let (mut last, mut n_progress, mut n_done) = (0.0, 0, 0);
    while let Some(event) = stream.next_event().unwrap() {
        match event {
            ProgressEvent::Accepted { .. } => assert_eq!((n_progress, n_done), (0, 0)),
            ProgressEvent::Progress { fraction, .. } => {
                assert!(fraction >= last && n_done == 0);
                (last, n_progress) = (fraction, n_progress + 1);
            }
            ProgressEvent::Done { reply } => {
                assert_eq!(reply.model.name, "slow:latest");
                assert!(reply.load_us >= 300_000);
                n_done += 1;
            }
            ProgressEvent::Error { error } => panic!("{error:?}"),
        }
    }
    assert!(n_progress > 1 && n_done == 1, "{n_progress} and {n_done}");
    client.call::<DaemonStatus>(&Empty {}).unwrap();
}

#[test]
fn two_streams_on_one_connection_each_end_with_exactly_one_terminal_event() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("eos_one_in", 0.into())]);
    let mut raw = daemon.raw();
    let mut subscriptions = Vec::new();
    for id in [1, 2] {
        raw.send_call(
            id,
            "generate.stream",
            &json!({ "model": "tiny", "prompt": format!("text {id}"), "options": { "max_tokens": 50 } }),
        );
    }
    raw.half_close();
    let mut ends = Vec::new();
    for message in raw.rest() {
        if !message["id"].is_null() {
            subscriptions.push(message["result"].clone());
            continue;
        }
        assert_eq!(message["method"], "generate.event");
        let subscription = message["params"]["subscription"].clone();
        assert!(!ends.contains(&subscription), "an event after the end: {message}");
        let event = &message["params"]["result"];
        if event["type"] == "done" || event["type"] == "error" {
            ends.push(subscription);
        }
    }
    let sorted = |mut ids: Vec<Value>| {
        ids.sort_by_key(ToString::to_string);
        ids
    };
    assert_eq!(subscriptions.len(), 2);
    assert_eq!(sorted(ends), sorted(subscriptions));
}

#[test]
fn discovery_describes_every_method_and_nothing_else() {
    let daemon = TestDaemon::start();
    let document = daemon.client().call_value("rpc.discover", &json!({})).unwrap();
    assert!(document["openrpc"].as_str().unwrap().starts_with("1."), "{document}");
    assert!(document["info"]["version"].is_string());
    let listed: Vec<&str> = document["methods"]
        .as_array()
        .unwrap()
        .iter()
        .map(|method| method["name"].as_str().unwrap())
        .collect();
    for method in methods() {
        assert!(listed.contains(&method.name), "`{}` is not in {listed:?}", method.name);
    }
    // Whatever is listed exists: it answers something else than that there is no such method.
    let mut client = Client::connect(&daemon.socket()).unwrap();
    for name in listed {
        if let Err(error) = client.call_value(name, &json!({ "no such field": 1 })) {
            assert!(!error.to_string().contains("there is no method"), "{error}");
        }
    }
    // Every reference leads somewhere.
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#/").skip(1) {
        let path = reference.split('"').next().unwrap();
        assert!(document.pointer(&format!("/{path}")).is_some(), "`#/{path}` leads nowhere");
    }
}

#[test]
fn a_chat_streams_what_it_answers() {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("script", "two words".into())]);
    let told = follow(&mut daemon.client(), &hearth_tests::chat("tiny", "hi"));
    assert_eq!(told.text, "two words");
    assert_eq!(told.reply().message.content, "two words");
}
