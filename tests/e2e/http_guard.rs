//! Who is let in over TCP, on the wire: a refusal is an answer in the dialect that was asked in, and ends no connection.

use crate::ollama::{TCP, start};
use hearth_tests::{DEADLINE, TestDaemon};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;

const KEY: &str = "0123456789abcdef";
const NOBODYS_KEY: &str = "fedcba9876543210";
const ANOTHERS_KEY: &str = "00112233445566778899";

/// A connection that several requests are sent on.
struct Kept(BufReader<TcpStream>);

impl Kept {
    fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Self(BufReader::new(stream))
    }

    /// The status and the body, which must be JSON.
    #[track_caller]
    fn ask(&mut self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> (u16, Value) {
        let n_bytes = body.len();
        let mut head = format!("{method} {path} HTTP/1.1\r\nContent-Length: {n_bytes}\r\n");
        for header in headers {
            head += &format!("{header}\r\n");
        }
        if !headers.iter().any(|header| header.starts_with("Host:")) {
            head += "Host: localhost\r\n";
        }
        self.0.get_mut().write_all((head + "\r\n").as_bytes()).unwrap();
        self.0.get_mut().write_all(body).unwrap();
        let mut line = || {
            let mut line = String::new();
            assert_ne!(self.0.read_line(&mut line).unwrap(), 0, "the connection was closed");
            line.trim_end().to_lowercase()
        };
        let status = line().split(' ').nth(1).unwrap().parse().unwrap();
        let mut length = 0;
        loop {
            match line() {
                end if end.is_empty() => break,
                header => {
                    if let Some(n) = header.strip_prefix("content-length: ") {
                        length = n.parse().unwrap();
                    }
                }
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }
}

#[test]
fn a_refusal_by_origin_or_host_is_read_whole_and_the_connection_goes_on() {
    let daemon = start();
    let mut kept = Kept::connect(&daemon.http());
    let large = vec![b'x'; 3 << 20];
    for header in ["Origin: https://evil.example", "Host: evil.example"] {
        for (path, body) in [
            ("/api/chat", b"{}".as_slice()),
            ("/v1/chat/completions", &large),
            ("/v1/messages", &large),
            ("/rpc", &large),
            ("/api/blobs/sha256:0", &large),
        ] {
            let (status, answer) = kept.ask("POST", path, &[header], body);
            assert_eq!(status, 403, "{path}");
            let error = &answer["error"];
            let said = error["message"].as_str().or(error.as_str()).unwrap();
            assert!(said.contains(header.split(':').next().unwrap()), "{said}");
            let (status, version) = kept.ask("GET", "/api/version", &[], b"");
            assert_eq!((status, version["version"].is_string()), (200, true));
        }
    }
}

#[test]
fn what_cannot_be_asked_for_is_read_whole_too() {
    let daemon = start();
    let mut kept = Kept::connect(&daemon.http());
    let large = vec![b'x'; 3 << 20];
    for (method, path, status) in [
        ("POST", "/nothing", 404),
        ("PUT", "/api/chat", 405),
        ("POST", "/api/me", 403),
        ("PUT", "/rpc", 405),
        ("POST", "/rpc", 415),
    ] {
        assert_eq!(kept.ask(method, path, &[], &large).0, status, "{method} {path}");
        assert_eq!(kept.ask("GET", "/api/version", &[], b"").0, 200);
    }
}

/// An address by which this machine reaches itself as it does others. Nothing is sent.
fn own_address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.254:9").expect("this machine has an address beside 127.0.0.1");
    socket.local_addr().unwrap().ip()
}

/// A daemon that other machines reach, and the address that they would use.
fn start_for_others() -> (TestDaemon, String) {
    start_for_others_with("")
}

fn start_for_others_with(lines: &str) -> (TestDaemon, String) {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    let own = rustix::process::getuid().as_raw();
    let lines_of_keys = format!("{own} {KEY}\n65534 {NOBODYS_KEY}\n4242 {ANOTHERS_KEY}\n");
    std::fs::write(&keys, lines_of_keys).unwrap();
    std::fs::set_permissions(&keys, PermissionsExt::from_mode(0o600)).unwrap();
    let listen = TCP.replace("127.0.0.1", "0.0.0.0");
    let config = format!("{lines}\n{listen}\nkeys = \"{}\"", keys.display());
    let daemon = TestDaemon::builder().config(&config).start();
    let port = daemon.http().rsplit(':').next().unwrap().to_owned();
    (daemon, format!("{}:{port}", own_address()))
}

#[test]
fn another_machine_without_a_key_is_refused_in_the_dialect_it_asks_in() {
    let (_daemon, address) = start_for_others();
    let mut kept = Kept::connect(&address);
    for wrong in [&[][..], &["Authorization: Bearer 0123456789abcdee"], &["X-Api-Key: no"]] {
        let (status, answer) = kept.ask("POST", "/v1/chat/completions", wrong, b"{}");
        assert_eq!((status, &answer["error"]["code"]), (401, &"invalid_api_key".into()));
        let (status, answer) = kept.ask("POST", "/v1/messages", wrong, &vec![b' '; 1 << 20]);
        assert_eq!((status, &answer["error"]["type"]), (401, &"authentication_error".into()));
        let (status, answer) = kept.ask("GET", "/api/tags", wrong, b"");
        assert!(status == 401 && answer["error"].as_str().unwrap().contains("key"), "{answer}");
        let (status, answer) = kept.ask("POST", "/rpc", wrong, b"{}");
        assert_eq!((status, &answer["error"]["data"]["kind"]), (401, &"permission_denied".into()));
    }
}

#[test]
fn another_machine_with_a_key_is_the_user_whose_key_it_is() {
    let (daemon, address) = start_for_others();
    daemon.model("m", &[]);
    let mut kept = Kept::connect(&address);
    let (bearer, nobodys) =
        (format!("Authorization: Bearer {KEY}"), format!("X-Api-Key: {NOBODYS_KEY}"));
    let body = br#"{ "model": "m" }"#;
    let (status, answer) = kept.ask("DELETE", "/api/delete", &[&nobodys], body);
    let said = answer["error"].as_str().unwrap();
    assert!(status == 403 && said.contains("uid 65534 may not call `model.delete`"), "{said}");
    // Whoever has a key need not name this machine as it names itself.
    let (status, tags) = kept.ask("GET", "/api/tags", &[&nobodys, "Host: evil.example"], b"");
    assert_eq!((status, tags["models"].as_array().map(Vec::len)), (200, Some(1)));
    assert_eq!(kept.ask("DELETE", "/api/delete", &[&bearer], body).0, 200);
    let (_, tags) = kept.ask("GET", "/api/tags", &[&bearer], b"");
    assert_eq!(tags["models"].as_array().map(Vec::len), Some(0));
}

#[test]
fn connections_from_elsewhere_count_as_the_users_whose_keys_come_on_them() {
    // Of which one user may have six.
    let (_daemon, address) = start_for_others_with("max_connections = 8");
    let ask = |kept: &mut Kept, key: &str| {
        let key = format!("Authorization: Bearer {key}");
        kept.ask("GET", "/api/version", &[&key], b"").0
    };
    let mut of_one: Vec<Kept> = (0..6).map(|_| Kept::connect(&address)).collect();
    for kept in &mut of_one {
        assert_eq!(ask(kept, ANOTHERS_KEY), 200);
    }
    let mut seventh = Kept::connect(&address);
    assert_eq!(ask(&mut seventh, ANOTHERS_KEY), 503);
    assert_eq!(ask(&mut seventh, NOBODYS_KEY), 200);
}

#[test]
fn who_is_not_let_in_from_elsewhere_is_sent_away_and_who_was_stays() {
    let (_daemon, address) = start_for_others();
    let bearer = format!("Authorization: Bearer {KEY}");
    let mut known = Kept::connect(&address);
    assert_eq!(known.ask("GET", "/api/version", &[&bearer], b"").0, 200);
    let refused = "GET /api/version HTTP/1.1\r\nHost: x\r\n\r\n";
    let body_to_come = "POST /api/generate HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n";
    let mut strangers = ["", "GET / HT", refused, body_to_come].map(|bytes| {
        let mut stranger = Kept::connect(&address).0.into_inner();
        stranger.write_all(bytes.as_bytes()).unwrap();
        stranger
    });
    for stranger in &mut strangers {
        stranger.read_to_end(&mut Vec::new()).unwrap();
    }
    assert_eq!(known.ask("GET", "/api/version", &[&bearer], b"").0, 200);
}
