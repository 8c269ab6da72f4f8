//! HTTP inside TLS, asked by `curl`, and a WebSocket inside it.

use hearth_tests::{DEADLINE, TestDaemon, eventually_is, openssl, run};
use rustix::process::Signal;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto::ring};
use serde_json::Value;
use std::fs::Permissions;
use std::io::Read;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

const CONFIG: &str = "[http]\nlisten = [\"https://127.0.0.1:0\", \"127.0.0.1:0\"]\n";

/// A certificate for this machine, signed by its own key.
fn certify(folder: &Path) {
    let subject = "-subj /CN=hearth -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:localhost,IP:127.0.0.1";
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -keyout key.pem";
    openssl(folder, &format!("req -x509 -days 2 {key} -out cert.pem {subject}"), b"");
}

fn builder() -> hearth_tests::Builder {
    let builder = TestDaemon::builder();
    let dir = builder.dir().to_owned();
    certify(&dir);
    builder.config(CONFIG).config(&files(&dir))
}

fn files(dir: &Path) -> String {
    let dir = dir.display();
    format!("tls_certificate = \"{dir}/cert.pem\"\ntls_key = \"{dir}/key.pem\"")
}

fn curl(daemon: &TestDaemon, certificate: &str, args: &[&str]) -> hearth_tests::Ran {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--noproxy", "*", "--cacert", certificate]);
    run(curl.args(args).current_dir(daemon.dir()), "")
}

#[test]
fn a_stream_comes_through_tls_and_plain_http_is_told_of_it() {
    let daemon = builder().start();
    daemon.model("m", &[]);
    let [secret, plain] = &daemon.status().http[..] else { panic!("two addresses") };
    assert!(secret.starts_with("https://127.0.0.1:"), "{secret}");

    let (generate, body) = (format!("{secret}/api/generate"), r#"{"model":"m","prompt":"Tell"}"#);
    let said = curl(&daemon, "cert.pem", &["--http2", "-v", &generate, "-d", body]);
    assert!(said.stderr.contains("server accepted http/1.1"), "{}", said.stderr);
    let lines: Vec<Value> =
        said.ok().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.len() > 1 && lines.last().unwrap()["done"] == true, "{lines:?}");

    // The other port is as ever.
    assert!(curl(&daemon, "cert.pem", &[plain]).ok().contains("running"));

    // Each dialect in its own words, and with the body read.
    let unsafe_url = secret.replace("https", "http");
    for (path, place) in [("/api/chat", "/error"), ("/v1/chat/completions", "/error/message")] {
        let url = format!("{unsafe_url}{path}");
        let told = curl(&daemon, "cert.pem", &["-w", "\n%{http_code}", &url, "-d", "{}"]).ok();
        let (body, status) = told.rsplit_once('\n').unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        let message = body.pointer(place).and_then(Value::as_str).unwrap_or_default();
        assert!(status == "400" && message.contains("this port is for HTTPS"), "{told}");
    }
    daemon.stop_cleanly();
}

#[test]
fn a_websocket_inside_tls_gets_all_its_replies_also_when_it_reads_late() {
    let daemon = builder().start();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(daemon.dir().join("cert.pem")).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let address = daemon.http();
    let tcp = TcpStream::connect(address.strip_prefix("https://").unwrap()).unwrap();
    tcp.set_read_timeout(Some(DEADLINE)).unwrap();
    let tls = StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), tcp);
    let (mut socket, _) = tungstenite::client("wss://localhost/rpc", tls).unwrap();
    // More than the sockets' buffers hold.
    for id in 0..64 {
        let call = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"rpc.discover"}}"#);
        socket.send(tungstenite::Message::text(call)).unwrap();
    }
    let mut ids: Vec<_> = (0..64)
        .map(|_| {
            let reply = socket.read().unwrap().into_text().unwrap();
            serde_json::from_str::<Value>(&reply).unwrap()["id"].as_u64().unwrap()
        })
        .collect();
    ids.sort_unstable();
    assert!(ids.into_iter().eq(0..64));
}

#[test]
fn who_does_not_finish_a_handshake_keeps_nobody_waiting_and_is_let_go_at_the_end() {
    let daemon = builder().start();
    let url = daemon.http();
    let address = url.strip_prefix("https://").unwrap();
    let mut silent: Vec<_> = (0..32).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert!(curl(&daemon, "cert.pem", &[&url]).ok().contains("running"));
    daemon.stop_cleanly();
    for stream in &mut silent {
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
    }
}

#[test]
fn a_new_certificate_is_read_when_the_daemon_is_told_and_a_broken_one_is_not() {
    let daemon = builder().start();
    let url = daemon.http();
    let works = |certificate: &str| curl(&daemon, certificate, &[&url]).code == Some(0);
    std::fs::copy(daemon.dir().join("cert.pem"), daemon.dir().join("old.pem")).unwrap();
    certify(daemon.dir());
    assert!(works("old.pem") && !works("cert.pem"));
    daemon.signal(Signal::HUP);
    eventually_is("the new certificate", || works("cert.pem"));
    assert!(!works("old.pem"));

    // A certificate of another key's.
    std::fs::copy(daemon.dir().join("cert.pem"), daemon.dir().join("new.pem")).unwrap();
    std::fs::copy(daemon.dir().join("old.pem"), daemon.dir().join("cert.pem")).unwrap();
    daemon.signal(Signal::HUP);
    eventually_is("what is wrong", || daemon.log().contains("are no certificate and its key"));
    assert!(works("new.pem") && !works("old.pem"));
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let builder = builder();
    let key = builder.dir().join("key.pem");
    std::fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let ran = builder.run();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("everybody may use") && ran.stderr.contains("chmod o="), "{ran:?}");
}
