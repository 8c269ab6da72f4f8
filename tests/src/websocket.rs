//! A WebSocket on `/rpc`, through a client that knows nothing of Hearth.

use crate::TestDaemon;
use crate::wait::DEADLINE;
use serde_json::{Value, json};
use std::os::unix::net::UnixStream;
use tungstenite::{Message, client};

/// A connection.
#[derive(Debug)]
pub struct WebSocket(pub tungstenite::WebSocket<UnixStream>);

impl WebSocket {
    /// Connects.
    #[track_caller]
    pub fn connect(daemon: &TestDaemon) -> Self {
        let stream = UnixStream::connect(daemon.socket()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Self(client("ws://localhost/rpc", stream).unwrap().0)
    }

    /// Sends one message.
    #[track_caller]
    pub fn send_text(&mut self, text: &str) {
        self.0.send(Message::text(text)).unwrap();
    }

    /// Sends a call.
    #[track_caller]
    pub fn send_call(&mut self, id: u64, method: &str, params: &Value) {
        let call = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        self.send_text(&call.to_string());
    }

    /// The next message, which must come.
    #[track_caller]
    pub fn recv(&mut self) -> Value {
        loop {
            if let Message::Text(text) = self.0.read().unwrap() {
                return serde_json::from_str(&text).unwrap();
            }
        }
    }

    /// A call and its reply; nothing else may be going on.
    #[track_caller]
    pub fn call(&mut self, method: &str, params: &Value) -> Value {
        self.send_call(1, method, params);
        self.recv()
    }
}
