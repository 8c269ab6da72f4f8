//! What is the same for every dialect that streams: how a stream ends that cannot go on, and that whoever leaves frees the
//! place.

use hearth_tests::{Raw, TestDaemon, eventually_is, signal_process};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::io::Read;

/// A way to ask for text.
struct Dialect {
    path: &'static str,
    request: Value,
    /// What stands in a stream that has begun to tell text.
    text: &'static str,
    /// The last that a stream says which has failed.
    last: fn(&str) -> Value,
}

fn dialects() -> Vec<Dialect> {
    let messages = json!([{ "role": "user", "content": "hi" }]);
    let chat = json!({ "model": "endless", "messages": messages, "max_tokens": 100_000 });
    let prompt = json!({ "model": "endless", "prompt": "once" });
    let ndjson: fn(&str) -> Value =
        |body| serde_json::from_str(body.lines().last().unwrap()).unwrap();
    let openai: fn(&str) -> Value = |body| {
        let events = body.strip_suffix("\n\ndata: [DONE]\n\n").expect(body);
        serde_json::from_str(events.rsplit("data: ").next().unwrap()).unwrap()
    };
    let anthropic: fn(&str) -> Value = |body| {
        let event = body.rsplit("event: error\ndata: ").next().unwrap();
        serde_json::from_str(event.strip_suffix("\n\n").unwrap()).unwrap()
    };
    let responses: fn(&str) -> Value = |body| {
        let last = body.rsplit("data: ").next().unwrap();
        let event: Value = serde_json::from_str(last.trim_end()).unwrap();
        assert_eq!(event["type"], "response.failed", "{event}");
        event["response"].clone()
    };
    let input = json!({ "model": "endless", "input": "hi" });
    [
        ("/api/generate", &prompt, "\"done\":false", ndjson),
        ("/api/chat", &chat, "\"done\":false", ndjson),
        ("/v1/completions", &prompt, "\"text\":\"", openai),
        ("/v1/chat/completions", &chat, "\"content\":\"", openai),
        ("/v1/responses", &input, "output_text.delta", responses),
        ("/v1/messages", &chat, "text_delta", anthropic),
    ]
    .into_iter()
    .map(|(path, request, text, last)| Dialect { path, request: request.clone(), text, last })
    .collect()
}

fn start() -> TestDaemon {
    let daemon = TestDaemon::start();
    daemon.endless("endless");
    daemon
}

/// A server sends no chunks to a client of HTTP/1.0, and ends with the connection.
fn ask(daemon: &TestDaemon, dialect: &Dialect, streams: bool) -> Raw {
    let mut request = dialect.request.clone();
    request["stream"] = streams.into();
    let body = request.to_string();
    let raw = Raw::connect(&daemon.socket());
    raw.write(format!(
        "POST {} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}",
        dialect.path,
        body.len()
    ));
    raw
}

#[track_caller]
fn await_text(raw: &mut Raw, dialect: &Dialect) -> String {
    let mut said = String::new();
    while !said.contains(dialect.text) {
        said += &raw.line().unwrap_or_else(|| panic!("{}: {said}", dialect.path));
    }
    said
}

#[test]
fn a_worker_killed_in_mid_stream_is_the_last_event_in_every_dialect() {
    let daemon = start();
    for dialect in dialects() {
        let mut raw = ask(&daemon, &dialect, true);
        let mut said = await_text(&mut raw, &dialect);
        assert!(said.starts_with("HTTP/1.0 200"), "{said}");
        signal_process(daemon.worker_pid(), Signal::KILL);
        while let Some(line) = raw.line() {
            said += &line;
        }
        let last = (dialect.last)(&said);
        let error = &last["error"];
        let message =
            error["message"].as_str().or(error.as_str()).unwrap_or_else(|| panic!("{said}"));
        assert!(message.contains("signal 9"), "{}: {last}", dialect.path);
        // It was told once, and nothing says that the answer is whole.
        assert_eq!(said.matches("signal 9").count(), 1, "{said}");
        for whole in ["\"done\":true", "\"finish_reason\":\"", "message_stop"] {
            assert!(!said.contains(whole), "{}: {said}", dialect.path);
        }
    }
}

#[test]
fn a_worker_killed_before_the_first_byte_is_a_status_in_every_dialect() {
    let daemon = start();
    daemon.model("crashes", &[("crash_after", 0.into())]);
    for mut dialect in dialects() {
        dialect.request["model"] = "crashes".into();
        for streams in [true, false] {
            let mut said = String::new();
            ask(&daemon, &dialect, streams).stream().read_to_string(&mut said).unwrap();
            assert!(said.starts_with("HTTP/1.0 500"), "{}: {said}", dialect.path);
            assert_eq!(said.matches("signal 6").count(), 1, "{said}");
        }
    }
}

#[test]
fn whoever_leaves_frees_the_place_in_every_dialect() {
    let daemon = start();
    for dialect in dialects() {
        for streams in [true, false] {
            let mut raw = ask(&daemon, &dialect, streams);
            if streams {
                await_text(&mut raw, &dialect);
            }
            eventually_is("the request to run", || daemon.status().active_requests == 1);
            drop(raw);
            daemon.await_idle();
        }
    }
}
