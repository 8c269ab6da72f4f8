//! Sockets that a service manager made, and what it hears from the daemon besides.

use hearth_protocol::{ErrorKind, Event, Generate, RpcError};
use hearth_tests::{DEADLINE, Raw, TestDaemon, ctl_path, eventually_is, generate, run};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::Command;

/// What a service manager hears, until it heard this.
#[track_caller]
fn hear(socket: &UnixDatagram, wanted: &str) -> String {
    let mut buffer = [0; 4096];
    loop {
        let n = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("no `{wanted}`: {error}"));
        let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
        if text.contains(wanted) {
            return text;
        }
    }
}

fn manager(folder: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(folder.join("notify")).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}

/// With a socket that outlives the daemon.
fn activated() -> TestDaemon {
    let builder = TestDaemon::builder();
    let listener = UnixListener::bind(builder.dir().join("sock")).unwrap();
    builder.given("rpc", listener).config("drain_seconds = 600").start()
}

#[test]
fn who_connects_while_the_daemon_stops_is_answered_by_the_next() {
    let mut daemon = activated();
    daemon.endless("endless");
    let first = daemon.pid();
    let mut client = daemon.client();
    let mut params = generate("endless", "once");
    params.options.max_tokens = Some(30);
    let mut stream = client.stream::<Generate>(&params).unwrap();
    while !matches!(stream.next_event().unwrap(), Some(Event::Delta { .. })) {}
    let early = daemon.raw();
    let held = daemon.hold_worker();
    daemon.signal(Signal::TERM);
    eventually_is("the drain", || daemon.log().contains("Stopping"));
    let late = daemon.raw();
    for raw in [&early, &late] {
        raw.send_call(1, "daemon.status", &json!({}));
    }
    drop(held);
    let last = std::iter::from_fn(|| stream.next_event().unwrap()).last();
    assert!(matches!(last, Some(Event::Done { .. })), "{last:?}");
    assert!(daemon.await_end().success());
    assert!(daemon.socket().exists(), "the socket is not the daemon's to remove");
    daemon.restart();
    let pid = |mut raw: Raw| raw.recv()["result"]["pid"].clone();
    // The first one had taken it, or not yet.
    let early = pid(early);
    assert!(early == first || early == daemon.pid(), "{early}");
    assert_eq!(pid(late), daemon.pid());
}

#[test]
fn ctl_repeats_at_the_next_daemon_what_the_last_one_refused_to_begin() {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let path = folder.path().join("sock");
    let listener = UnixListener::bind(&path).unwrap();
    let daemons = std::thread::spawn(move || {
        let error = RpcError::new(ErrorKind::ShuttingDown, "the daemon is stopping");
        let refused = json!({ "type": "error", "error": error });
        let done = json!({ "type": "done", "reply": { "said_by": "the next" } });
        for last in [refused, done] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
            let asked: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(asked["method"], "model.load.stream");
            let accepted = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": 7 });
            let params = json!({ "subscription": 7, "result": last });
            let event = json!({ "jsonrpc": "2.0", "method": "model.load.event", "params": params });
            writeln!(stream, "{accepted}\n{event}").unwrap();
        }
    });
    let mut ctl = Command::new(ctl_path());
    let said = run(ctl.arg("--socket").arg(&path).args(["--json", "load", "any"]), "");
    assert_eq!(said.json()["said_by"], "the next");
    daemons.join().unwrap();
}

#[test]
fn a_given_tcp_socket_speaks_http_beside_the_own_unix_socket() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // What the configuration names too is no mistake.
    let config = format!("[http]\nlisten = [\"{address}\"]");
    let daemon = TestDaemon::builder().given("http", listener).config(&config).start();
    assert_eq!(daemon.status().http, std::slice::from_ref(&address));
    let mut curl = Command::new("curl");
    let said = run(curl.args(["-sS", &format!("http://{address}/api/version")]), "").ok();
    assert!(said.contains("version"), "{said}");
    daemon.stop_cleanly();
}

#[test]
fn a_given_socket_that_does_not_fit_its_name_stops_the_start() {
    let unix = TestDaemon::builder();
    let listener = UnixListener::bind(unix.dir().join("sock")).unwrap();
    let tcp = |address| TcpListener::bind(address).unwrap();
    for (builder, wanted) in [
        (unix.given("http", listener), "a Unix socket by the name `http`"),
        (TestDaemon::builder().given("rpc", tcp("127.0.0.1:0")), "FileDescriptorName=http"),
        (TestDaemon::builder().given("http", tcp("0.0.0.0:0")), "reached from other machines"),
    ] {
        let refused = builder.command().output().unwrap();
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(said.contains(wanted) && said.contains("hint: "), "{said}");
    }
}

#[test]
fn the_service_manager_gets_sockets_to_keep_and_signs_of_life() {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let socket = manager(folder.path());
    let daemon = TestDaemon::builder()
        .env("NOTIFY_SOCKET", folder.path().join("notify").display().to_string())
        .env("WATCHDOG_USEC", "600000")
        .config("[http]\nlisten = [\"127.0.0.1:0\"]")
        .start();
    hear(&socket, "FDSTOREREMOVE=1");
    assert!(hear(&socket, "FDSTORE=1").contains("FDNAME=kept"));
    hear(&socket, "READY=1");
    for _ in 0..3 {
        hear(&socket, "WATCHDOG=1");
    }
    daemon.endless("endless");
    let mut client = daemon.client();
    let mut stream = client.stream::<Generate>(&generate("endless", "once")).unwrap();
    while !matches!(stream.next_event().unwrap(), Some(Event::Delta { .. })) {}
    hear(&socket, "STATUS=Listening on");
    hear(&socket, "1 model loaded, 1 request running");
    daemon.signal(Signal::TERM);
    assert!(hear(&socket, "STOPPING=1").contains("STATUS=Stopping"));
    // While it waits for answers it asks for the time to.
    assert!(hear(&socket, "EXTEND_TIMEOUT_USEC=600000").contains("WATCHDOG=1"));
    drop(client);
}

#[test]
fn a_worker_goes_before_the_daemon_when_memory_runs_out() {
    let daemon = TestDaemon::start();
    daemon.model("quick", &[("script", "a".into())]);
    daemon.client().call::<Generate>(&generate("quick", "once")).unwrap();
    let score = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    assert_eq!(score(daemon.worker_pid()), "500\n");
    assert_ne!(score(daemon.pid()), "500\n");
}
