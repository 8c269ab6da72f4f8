//! HTTP by hand over the socket: one answer, or a stream of events.

use crate::raw::Raw;
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

/// A response.
#[derive(Debug)]
pub struct HttpReply {
    /// Such as 200.
    pub status: u16,
    /// The body, which must be JSON; null if there is none.
    pub body: Value,
}

/// `METHOD PATH` with a JSON body, on a connection of its own.
#[track_caller]
pub fn http(socket: &Path, method: &str, path: &str, body: &str) -> HttpReply {
    let raw = Raw::connect(socket);
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    raw.write(head);
    // A server that refuses a body by its length alone stops reading it.
    let _ = raw.stream().write_all(body.as_bytes());
    let mut text = Vec::new();
    match raw.stream().read_to_end(&mut text) {
        // What it had not read is lost, and its answer is here.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        read => drop(read.unwrap()),
    }
    let text = String::from_utf8(text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = if body.is_empty() { Value::Null } else { serde_json::from_str(body).unwrap() };
    HttpReply { status, body }
}

/// A stream of events, as they come: the name of each, which may be empty, and its data. Dropping it closes the connection.
#[derive(Debug)]
pub struct HttpEvents {
    raw: Raw,
    head: String,
}

impl HttpEvents {
    /// Asks for a stream, which must begin. Nothing comes in chunks, which HTTP/1.0 has not.
    #[track_caller]
    pub fn ask(socket: &Path, method: &str, path: &str, body: &str) -> Self {
        let mut raw = Raw::connect(socket);
        let length = body.len();
        raw.write(format!("{method} {path} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}"));
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            head += &raw.line().expect("a response");
        }
        assert!(head.contains(" 200 OK") && head.contains("text/event-stream"), "{head}");
        Self { raw, head }
    }

    /// The status and the headers.
    pub fn head(&self) -> &str {
        &self.head
    }
}

impl Iterator for HttpEvents {
    type Item = (String, String);

    fn next(&mut self) -> Option<Self::Item> {
        let (mut name, mut data) = (String::new(), String::new());
        loop {
            let Some(line) = self.raw.line() else {
                assert_eq!((name, data), Default::default(), "the last event is cut");
                return None;
            };
            match line.trim_end_matches('\n').split_once(": ") {
                Some(("event", text)) => name += text,
                Some(("data", text)) => data += text,
                None if line == "\n" => return Some((name, data)),
                _ => panic!("no line of an event: {line:?}"),
            }
        }
    }
}
