//! A raw connection, for saying what no well-behaved client says.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// One connection: bytes out, lines in.
#[derive(Debug)]
pub struct Raw {
    reader: BufReader<UnixStream>,
}

impl Raw {
    /// Connects.
    #[track_caller]
    pub fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        // Only a fault of the daemon's lets a test wait so long.
        stream.set_read_timeout(Some(crate::DEADLINE)).unwrap();
        stream.set_write_timeout(Some(crate::DEADLINE)).unwrap();
        Self { reader: BufReader::new(stream) }
    }

    /// The socket itself.
    pub fn stream(&self) -> &UnixStream {
        self.reader.get_ref()
    }

    /// Writes bytes as they are.
    #[track_caller]
    pub fn write(&self, bytes: impl AsRef<[u8]>) {
        self.stream().write_all(bytes.as_ref()).unwrap();
    }

    /// Writes one value and a newline.
    #[track_caller]
    pub fn send(&self, value: &Value) {
        self.write(format!("{value}\n"));
    }

    /// Writes a call.
    #[track_caller]
    pub fn send_call(&self, id: u64, method: &str, params: &Value) {
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
    }

    /// The next line; `None` once the daemon has closed the connection.
    #[track_caller]
    pub fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => {
                assert!(line.ends_with('\n'), "a reply without its newline: {line}");
                Some(line)
            }
            Err(error) => panic!("no reply came: {error}"),
        }
    }

    /// The next value, which must come.
    #[track_caller]
    pub fn recv(&mut self) -> Value {
        let line = self.line().expect("the daemon closed the connection");
        serde_json::from_str(&line).unwrap()
    }

    /// A call and its reply; nothing else may be going on.
    #[track_caller]
    pub fn call(&mut self, method: &str, params: &Value) -> Value {
        self.send_call(1, method, params);
        self.recv()
    }

    /// Says that nothing more will be written, as `nc -N` does at the end of its input.
    pub fn half_close(&self) {
        self.stream().shutdown(Shutdown::Write).unwrap();
    }

    /// Everything up to the end of the connection.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<Value> {
        std::iter::from_fn(|| self.line())
            .map(|line| serde_json::from_str(&line).unwrap())
            .collect()
    }

    /// Subscribes, and answers the subscription's id.
    #[track_caller]
    pub fn subscribe(&mut self, method: &str, params: &Value) -> Value {
        let reply = self.call(method, params);
        assert!(reply["error"].is_null(), "{reply}");
        reply["result"].clone()
    }

    /// The next event, which must belong to this subscription.
    #[track_caller]
    pub fn event(&mut self, subscription: &Value) -> Value {
        let mut message = self.recv();
        assert_eq!(&message["params"]["subscription"], subscription, "{message}");
        message["params"]["result"].take()
    }

    /// Events up to and with the terminal one.
    #[track_caller]
    pub fn events(&mut self, subscription: &Value) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            events.push(self.event(subscription));
            let kind = &events[events.len() - 1]["type"];
            if kind == "done" || kind == "error" {
                return events;
            }
        }
    }
}
