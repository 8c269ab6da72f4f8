//! A proxy before a registry that breaks what it passes on, in the ways networks and servers do.

use crate::web::{WebReply, WebRequest, WebServer, web_ask, web_cut};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What becomes of one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// The connection is reset in the middle of the body.
    Reset,
    /// Nothing comes any more after this many bytes of the body.
    StallAfter(usize),
    /// The body ends in the middle, as if that were its end.
    Truncate,
    /// One byte in the middle is another.
    WrongByte,
    /// The bytes, and the header that says which they are, are others than asked for.
    WrongRange,
    /// The whole content for any range.
    NoRanges,
    /// An answer of the proxy's own.
    Status(u16),
    /// The connection is reset, and nothing is passed on.
    Drop,
    /// It is passed on, and the connection is reset before the answer.
    Lose,
    /// Half of what came is passed on, and both connections are reset.
    Cut,
    /// Nothing is ever answered.
    Hang,
    /// To this scheme, on a host that does not matter.
    RedirectTo(&'static str),
}

/// What a proxy has passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// Such as `GET`.
    pub method: String,
    /// Such as `/v2/library/m/blobs/sha256:...`.
    pub path: String,
    /// The header as it came.
    pub range: Option<String>,
    /// Whether a secret came with it.
    pub authorization: Option<String>,
    /// Of the request's body.
    pub n_asked: usize,
    /// Of the answer's body.
    pub n_bytes: usize,
}

/// A running proxy.
#[derive(Debug)]
pub struct FaultProxy {
    server: WebServer,
    passed: Arc<Mutex<Vec<Passed>>>,
}

impl FaultProxy {
    /// Before this host. `choose` sees each request, and how many there were for the same before it.
    pub fn start(
        upstream: &str,
        choose: impl Fn(&WebRequest, usize) -> Fault + Send + Sync + 'static,
    ) -> Self {
        let upstream = upstream.to_owned();
        let passed: Arc<Mutex<Vec<Passed>>> = Arc::default();
        let (log, counts) = (Arc::clone(&passed), Mutex::new(HashMap::new()));
        let server = WebServer::start(move |request, stream| {
            let n_before = {
                let mut counts = counts.lock().unwrap();
                let count = counts.entry(request.path.clone()).or_insert(0);
                *count += 1;
                *count - 1
            };
            let fault = choose(&request, n_before);
            let n_bytes = pass(&upstream, &request, fault, stream);
            let header = |name| request.message.headers.get(name).cloned();
            log.lock().unwrap().push(Passed {
                method: request.method.clone(),
                n_asked: request.message.body.len(),
                path: request.path.clone(),
                range: header("range"),
                authorization: header("authorization"),
                n_bytes,
            });
        });
        Self { server, passed }
    }

    /// Such as `127.0.0.1:4711`.
    pub fn host(&self) -> String {
        self.server.host()
    }

    /// What has been passed on so far, each once it was.
    pub fn passed(&self) -> Vec<Passed> {
        self.passed.lock().unwrap().clone()
    }

    /// The bytes of uploads that came, whatever became of them.
    pub fn n_sent_bytes(&self) -> usize {
        self.passed().iter().map(|one| one.n_asked).sum()
    }

    /// The bytes of blobs that have been passed on.
    pub fn n_blob_bytes(&self) -> usize {
        self.passed().iter().filter(|one| one.path.contains("/blobs/")).map(|one| one.n_bytes).sum()
    }
}

fn pass(upstream: &str, request: &WebRequest, fault: Fault, stream: &mut TcpStream) -> usize {
    match fault {
        Fault::Drop => return reset(stream),
        Fault::Lose => {
            web_ask(upstream, request);
            return reset(stream);
        }
        Fault::Cut => {
            web_cut(upstream, request);
            return reset(stream);
        }
        // The other side ends it; what it still says is nothing.
        Fault::Hang => {
            let _ = stream.read_to_end(&mut Vec::new());
            return 0;
        }
        _ => {}
    }
    let mut reply = match fault {
        Fault::Status(status) => WebReply::new(status, "busy"),
        Fault::RedirectTo(scheme) => {
            let mut reply = WebReply::new(307, "");
            reply.message.headers.insert("location".into(), format!("{scheme}://localhost/x"));
            reply
        }
        _ => {
            let mut request = request.clone();
            if fault == Fault::NoRanges {
                request.message.headers.remove("range");
            }
            let mut reply = web_ask(upstream, &request);
            // What it says of itself leads here.
            let here = request.message.headers.get("host").map_or("", String::as_str);
            if let Some(location) = reply.message.headers.get_mut("location") {
                *location = location.replace(upstream, here);
            }
            reply
        }
    };
    let body = &mut reply.message.body;
    let middle = body.len() / 2;
    let n_sent = match fault {
        Fault::Reset => middle,
        Fault::Truncate => middle,
        Fault::StallAfter(n_bytes) => n_bytes.min(body.len()),
        _ => body.len(),
    };
    match fault {
        Fault::WrongByte if !body.is_empty() => body[middle] ^= 1,
        Fault::WrongRange => {
            body.reverse();
            let range = format!("bytes 7-{}/{}", body.len() + 6, body.len() + 7);
            reply.message.headers.insert("content-range".into(), range);
        }
        _ => {}
    }
    let length = if fault == Fault::Truncate { middle } else { reply.message.body.len() };
    let head = reply.head(length);
    let sent = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(&reply.message.body[..n_sent]));
    match fault {
        // The other side ends it; what it still says is nothing.
        Fault::StallAfter(_) => drop(stream.read_to_end(&mut Vec::new())),
        Fault::Reset => drop(reset(stream)),
        _ => {}
    }
    if sent.is_ok() { n_sent } else { 0 }
}

/// Ends a connection, once it is dropped, as a crash would.
fn reset(stream: &TcpStream) -> usize {
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
    0
}
