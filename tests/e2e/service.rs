//! Starting as a service: readiness, going into the background, the configuration.

use hearth_protocol::{Client, DaemonStatus, Empty};
use hearth_tests::{
    Guard, TestDaemon, eventually, eventually_is, hearthd_path, is_alive, run, signal_process,
};
use rustix::fs::FlockOperation;
use rustix::process::Signal;
use std::net::TcpListener;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Command;

#[test]
fn the_service_manager_hears_ready_only_when_the_socket_takes_connections() {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(hearth_tests::DEADLINE)).unwrap();
    let builder = TestDaemon::builder().env("NOTIFY_SOCKET", path.display().to_string());
    let listens_at = builder.dir().join("sock");
    let (ready, is_ready) = std::sync::mpsc::channel();
    let hearing = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        let mut heard = Vec::new();
        loop {
            let n = socket.recv(&mut buffer).unwrap();
            let text = String::from_utf8(buffer[..n].to_vec()).unwrap();
            if text.contains("READY=1") {
                ready.send(UnixStream::connect(&listens_at).is_ok()).unwrap();
            }
            let stopping = text.contains("STOPPING=1");
            heard.push(text);
            if stopping {
                return heard;
            }
        }
    });
    let daemon = builder.start();
    assert!(is_ready.recv().unwrap(), "ready, and nothing listens");
    daemon.stop_cleanly();
    let heard = hearing.join().unwrap();
    let ready = heard.iter().find(|text| text.contains("READY=1")).unwrap();
    assert!(ready.contains("STATUS=Listening on"), "{heard:?}");
    assert!(heard.last().unwrap().contains("STOPPING=1"), "{heard:?}");
}

#[test]
fn daemonize_leaves_with_success_once_the_socket_listens() {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let (socket, pid_file, log) =
        (folder.path().join("sock"), folder.path().join("pid"), folder.path().join("log"));
    let mut command = Command::new(hearthd_path());
    command.arg("--daemonize").arg("--pid-file").arg(&pid_file).arg("--log-file").arg(&log);
    command.arg("--socket").arg(&socket).arg("--models").arg(folder.path().join("models"));
    command
        .args(["--config", "/dev/null"])
        .arg("--backends")
        .arg(hearth_tests::reference_plugins());
    let parent = run(&mut command, "");
    assert_eq!(parent.code, Some(0), "{parent:?}");
    // No waiting: it listens already.
    let mut client = Client::connect(&socket).unwrap();
    let status = client.call::<DaemonStatus>(&Empty {}).unwrap();
    let pid: u32 = std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    assert_eq!(status.pid, pid);
    let _guard = Guard::new(pid);
    eventually_is("the log", || std::fs::read_to_string(&log).unwrap().contains("Listening"));
    signal_process(pid, Signal::TERM);
    eventually_is("its end", || !is_alive(pid));
    assert!(!socket.exists());
    assert!(!pid_file.exists(), "the number may soon be another process's");
}

#[test]
fn daemonize_fails_with_the_reason_when_the_socket_cannot_be_made() {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let mut command = Command::new(hearthd_path());
    command.arg("--daemonize").arg("--socket").arg(folder.path().join("file/sock"));
    command.args(["--config", "/dev/null"]).arg("--models").arg(folder.path());
    let parent = run(&mut command, "");
    assert_eq!(parent.code, Some(1), "{parent:?}");
    assert!(parent.stderr.contains("file"), "{parent:?}");
}

#[test]
fn daemonize_says_which_pid_file_it_cannot_have() {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let taken = folder.path().join("taken");
    let other = std::fs::File::create(&taken).unwrap();
    rustix::fs::flock(&other, FlockOperation::LockExclusive).unwrap();
    for (pid_file, wanted) in [
        (taken, "another daemon has the pid file"),
        (folder.path().join("missing/pid"), "cannot open the pid file"),
    ] {
        let mut command = Command::new(hearthd_path());
        command.arg("--daemonize").arg("--pid-file").arg(&pid_file);
        command.arg("--socket").arg(folder.path().join("sock"));
        command.args(["--config", "/dev/null"]).arg("--models").arg(folder.path());
        let parent = run(&mut command, "");
        assert_eq!(parent.code, Some(1), "{parent:?}");
        let said = format!("error: {wanted} `{}`", pid_file.display());
        assert!(parent.stderr.starts_with(&said), "{parent:?}");
    }
}

#[test]
fn an_unknown_key_stops_the_start_with_its_line_and_the_nearest_name() {
    let refused = TestDaemon::builder().config("[engine]\nparalel = 2").run();
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("line 2, `paralel = 2`: unknown field `paralel`"),
        "{refused:?}"
    );
    assert!(refused.stderr.contains("hint: did you mean `parallel`?"), "{refused:?}");
}

#[test]
fn a_value_out_of_range_stops_the_start_and_is_named() {
    for (line, wanted) in [
        ("keep_alive = \"soon\"", "`keep_alive` is `soon`"),
        ("socket_mode = \"rw\"", "`socket_mode` is `rw`"),
        ("max_loaded_models = 0", "`max_loaded_models` is 0"),
    ] {
        let refused = TestDaemon::builder().config(line).run();
        assert_eq!(refused.code, Some(1), "{line}");
        assert!(refused.stderr.contains(wanted), "{line}: {refused:?}");
    }
}

#[test]
fn an_address_that_is_taken_stops_the_start_with_a_hint() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let ran = TestDaemon::builder().config(&format!("[http]\nlisten = [\"{address}\"]")).run();
    assert_eq!(ran.code, Some(1));
    let lines: Vec<&str> = ran.stderr.lines().collect();
    assert!(lines[0].contains(&format!("cannot listen on `{address}`: Address already in use")));
    assert!(lines[1].starts_with("hint: ") && lines[1].contains("in `http.listen`"), "{lines:?}");
}

#[test]
fn a_backend_that_is_not_there_is_missed_in_the_log() {
    let daemon = TestDaemon::builder().config("backend = \"cqu\"").start();
    eventually_is("a warning", || {
        daemon.log().contains("WARN No model can be loaded: there is no backend `cqu`")
    });
}

#[test]
fn the_socket_has_the_mode_that_was_asked_for() {
    use std::os::unix::fs::PermissionsExt;
    let mode =
        |daemon: &TestDaemon| daemon.socket().metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&TestDaemon::start()), 0o660);
    let open = TestDaemon::builder().config("socket_mode = \"0600\"").start();
    assert_eq!(mode(&open), 0o600);
}

#[test]
fn probing_goes_on_beside_the_socket_and_ends() {
    let daemon = TestDaemon::start();
    let backend = eventually("the probe", || daemon.status().backend);
    assert_eq!(backend, "reference");
}
