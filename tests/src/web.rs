//! HTTP/1.1 over loopback by hand, both sides: what a test's own servers need, and what fills a registry.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A request or a response, without its first line. Names of headers are in lower case.
#[derive(Debug, Clone, Default)]
pub struct WebMessage {
    /// By name; the last of several.
    pub headers: BTreeMap<String, String>,
    /// All of it.
    pub body: Vec<u8>,
}

/// What a test's server is asked.
#[derive(Debug, Clone)]
pub struct WebRequest {
    /// Such as `GET`.
    pub method: String,
    /// With the query.
    pub path: String,
    /// The rest.
    pub message: WebMessage,
}

/// What a server answered.
#[derive(Debug, Clone)]
pub struct WebReply {
    /// Such as 200.
    pub status: u16,
    /// The rest.
    pub message: WebMessage,
}

impl WebReply {
    /// A reply of the test's own.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let message = WebMessage { headers: BTreeMap::new(), body: body.into() };
        Self { status, message }
    }

    /// The head as it goes over the wire, for a body of this length.
    pub fn head(&self, length: usize) -> String {
        let mut head = format!("HTTP/1.1 {} X\r\n", self.status);
        for (name, value) in &self.message.headers {
            if !["content-length", "connection", "transfer-encoding"].contains(&name.as_str()) {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        head + &format!("content-length: {length}\r\nconnection: close\r\n\r\n")
    }
}

/// A server on a port that the kernel chose. It ends when it is dropped.
#[derive(Debug)]
pub struct WebServer {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
}

impl WebServer {
    /// Answers each connection's one request by `answer`, on a thread of its own.
    pub fn start(answer: impl Fn(WebRequest, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let (answer, is_over) = (Arc::new(answer), Arc::clone(&ended));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                let answer = Arc::clone(&answer);
                std::thread::spawn(move || {
                    let mut stream = stream;
                    if let Some(request) = read_request(&stream) {
                        answer(request, &mut stream);
                    }
                });
            }
        });
        Self { address, ended }
    }

    /// Such as `127.0.0.1:4711`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
    }
}

fn read_request(stream: &TcpStream) -> Option<WebRequest> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    Some(WebRequest { method, path, message: read_message(&mut reader, false)? })
}

fn read_headers(reader: &mut impl BufRead) -> Option<WebMessage> {
    let mut message = WebMessage::default();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { return Some(message) };
        message.headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
}

fn read_message(reader: &mut impl BufRead, to_end: bool) -> Option<WebMessage> {
    let mut message = read_headers(reader)?;
    let length = message.headers.get("content-length").and_then(|length| length.parse().ok());
    if message.headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
        message.body = read_chunks(reader)?;
        return Some(message);
    }
    match length {
        Some(length) => {
            message.body.resize(length, 0);
            reader.read_exact(&mut message.body).ok()?;
        }
        None if to_end => {
            reader.read_to_end(&mut message.body).ok()?;
        }
        None => {}
    }
    Some(message)
}

/// A body whose length was not known at its start. One that is cut has no last chunk, and is no body.
fn read_chunks(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let length = usize::from_str_radix(line.trim_end(), 16).ok()?;
        let start = body.len();
        // With the line break behind it.
        body.resize(start + length + 2, 0);
        reader.read_exact(&mut body[start..]).ok()?;
        body.truncate(start + length);
        if length == 0 {
            return Some(body);
        }
    }
}

/// Asks a server, and reads all of its answer.
#[track_caller]
pub fn web_ask(host: &str, request: &WebRequest) -> WebReply {
    let stream = TcpStream::connect(host).unwrap();
    (&stream).write_all(request_head(host, request).as_bytes()).unwrap();
    (&stream).write_all(&request.message.body).unwrap();
    let mut reader = BufReader::new(&stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap().parse().unwrap();
    let is_head = request.method == "HEAD";
    let message = match is_head {
        true => read_headers(&mut reader).unwrap(),
        false => read_message(&mut reader, true).unwrap(),
    };
    let _ = stream.shutdown(Shutdown::Both);
    WebReply { status, message }
}

/// Asks a server, and is gone in the middle of the question.
#[track_caller]
pub(crate) fn web_cut(host: &str, request: &WebRequest) {
    let mut stream = TcpStream::connect(host).unwrap();
    let body = &request.message.body;
    stream.write_all(request_head(host, request).as_bytes()).unwrap();
    stream.write_all(&body[..body.len() / 2]).unwrap();
}

fn request_head(host: &str, request: &WebRequest) -> String {
    let mut head = format!("{} {} HTTP/1.1\r\nhost: {host}\r\n", request.method, request.path);
    for (name, value) in &request.message.headers {
        if !["host", "connection", "content-length"].contains(&name.as_str()) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    head + &format!("content-length: {}\r\nconnection: close\r\n\r\n", request.message.body.len())
}
