//! HTTP/1.1 by hand over the socket.

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
