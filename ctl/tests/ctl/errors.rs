//! Exit codes, and what a person reads when something is wrong.

use crate::support::{Call, FakeDaemon, ctl, run};
use serde_json::json;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;

#[test]
fn no_daemon_at_the_given_socket() {
    let home = tempfile::tempdir().unwrap();
    let mut command = ctl(home.path());
    command.args(["ls", "--socket", "/nowhere/s"]);
    run(command, "").is(
        3,
        "",
        "\
error: no daemon answers
  `/nowhere/s`: no such file
hint: start one with `hearthd` in another terminal, or `./dev run` in a checkout
",
    );
}

#[test]
fn no_daemon_at_the_usual_sockets() {
    // On a machine with Hearth installed the last of them answers.
    if Path::new("/run/hearth/hearth.sock").exists() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let runtime_dir = home.path().join("hearth");
    fs::create_dir(&runtime_dir).unwrap();
    let socket = runtime_dir.join("hearth.sock");
    // A socket file stays behind when its listener ends, as after kill -9.
    drop(UnixListener::bind(&socket).unwrap());
    let mut command = ctl(home.path());
    command.arg("status").env("XDG_RUNTIME_DIR", home.path());
    let ran = run(command, "");
    assert_eq!(ran.code, Some(3));
    let first = format!(
        "error: no daemon answers\n  `{}`: refused, nothing listens there\n",
        socket.display()
    );
    assert!(ran.stderr.starts_with(&first), "{}", ran.stderr);
    assert!(ran.stderr.contains("\n  `/run/hearth/hearth.sock`: "), "{}", ran.stderr);
}

#[test]
fn the_service_manager_is_asked_why() {
    for (load, active, hint) in [
        (
            "loaded",
            "inactive",
            "hearth.service is inactive; start it with `sudo systemctl start hearth`",
        ),
        (
            "loaded",
            "failed",
            "hearth.service has failed; `journalctl -u hearth -n 20` says why, `sudo systemctl restart hearth` tries again",
        ),
        ("loaded", "activating", "hearth.service is starting; try again in a moment"),
        (
            "not-found",
            "inactive",
            "start one with `hearthd` in another terminal, or `./dev run` in a checkout",
        ),
    ] {
        let home = tempfile::tempdir().unwrap();
        fake_systemctl(home.path(), &format!("echo LoadState={load}\necho ActiveState={active}\n"));
        let mut command = ctl(home.path());
        command.arg("ls").env("HEARTH_SOCKET", "/nowhere/s");
        run(command, "").is(
            3,
            "",
            &format!("error: no daemon answers\n  `/nowhere/s`: no such file\nhint: {hint}\n"),
        );
    }
}

#[test]
fn a_service_manager_that_hangs_is_not_waited_for() {
    let home = tempfile::tempdir().unwrap();
    fake_systemctl(home.path(), "exec /bin/sleep 1000\n");
    let mut command = ctl(home.path());
    command.arg("ls").env("HEARTH_SOCKET", "/nowhere/s");
    assert_eq!(run(command, "").code, Some(3));
}

fn fake_systemctl(home: &Path, script: &str) {
    let bin = home.join("bin");
    fs::create_dir(&bin).unwrap();
    fs::write(bin.join("systemctl"), format!("#!/bin/sh\n{script}")).unwrap();
    fs::set_permissions(bin.join("systemctl"), Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn the_daemon_says_no() {
    let error = json!({
        "code": -32001, "message": "there is no model `x`",
        "data": { "kind": "model_not_found", "hint": "`ctl ls` lists what there is" }
    });
    let answer = error.clone();
    let daemon = FakeDaemon::start(move |call| call.error(&answer));
    let words = "error: there is no model `x`\nhint: `ctl ls` lists what there is\n";
    daemon.ctl(&["show", "x"]).is(1, "", words);
    daemon.ctl(&["load", "x"]).is(1, "", words);
    daemon.ctl(&["run", "x", "hi"]).is(1, "", words);
    let json = format!("{}\n", json!({ "error": error }));
    daemon.ctl(&["--json", "show", "x"]).is(1, &json, words);
}

#[test]
fn an_error_of_a_kind_added_since_is_still_shown() {
    let daemon = FakeDaemon::start(|call| {
        call.error(&json!({ "code": -32050, "message": "the moon is wrong", "data": { "kind": "astrology" } }));
    });
    let ran = daemon.ctl(&["ps"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("the moon is wrong"), "{}", ran.stderr);
}

#[test]
fn an_answer_that_cannot_be_read_names_both_versions() {
    let daemon = FakeDaemon::start(|call| match call.method.as_str() {
        "daemon.status" => call.reply(&json!({ "version": "9.9.9" })),
        "model.ps" => call.reply(&json!({ "modelle": [] })),
        _ => call.send_text("<html>"),
    });
    daemon.ctl(&["ps"]).is(
        1,
        "",
        "\
error: the daemon's answer cannot be read: missing field `models`
hint: ctl is version 0.1.0 and the daemon is 9.9.9; restart the daemon if it was upgraded, or use the `ctl` that came with it
",
    );
    // What cannot be understood can still be shown.
    daemon.ctl(&["ps", "--json"]).is(0, "{\"modelle\":[]}\n", "");
    let ran = daemon.ctl(&["ls"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("the daemon is 9.9.9"), "{}", ran.stderr);
}

#[test]
fn a_method_the_daemon_does_not_know_names_both_versions() {
    let daemon = FakeDaemon::start(|call| match call.method.as_str() {
        "daemon.status" => call.reply(&json!({ "version": "0.0.1" })),
        _ => call.error(&json!({
            "code": -32601, "message": "there is no method `model.ps`",
            "data": { "kind": "method_not_found", "hint": "`rpc.discover` lists the methods" }
        })),
    });
    daemon.ctl(&["ps"]).is(
        1,
        "",
        "\
error: there is no method `model.ps`
hint: ctl is version 0.1.0 and the daemon is 0.0.1; restart the daemon if it was upgraded, or use the `ctl` that came with it
",
    );
}

#[test]
fn a_daemon_that_goes_away() {
    let daemon = FakeDaemon::start(Call::hang_up);
    daemon.ctl(&["ps"]).is(
        1,
        "",
        "\
error: the daemon closed the connection before it answered
hint: it was stopped or restarted; run the command again, or look at its log
",
    );
}

#[test]
fn usage() {
    let daemon = FakeDaemon::start(|_| {});
    for args in [
        &["frobnicate"][..],
        &[],
        &["run"],
        &["load", "m", "--keep-alive", "soon"],
        &["import", "f", "--copy", "--link"],
        &["rpc", "m", "{"],
        &["rpc", "chat.send.stream"],
        &["run", "m"],
        &["chat", "m"],
    ] {
        let ran = daemon.ctl(args);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{args:?}: {ran:?}");
        assert!(!ran.stderr.is_empty(), "{args:?}");
    }
    assert_eq!(daemon.calls(), []);
    daemon.ctl(&["run", "m"]).is(
        2,
        "",
        "error: the prompt is empty\nhint: `ctl run MODEL PROMPT`, or write the prompt to stdin\n",
    );
    assert_eq!(daemon.ctl(&["--help"]).code, Some(0));
    assert_eq!(daemon.ctl(&["--version"]).stdout, "ctl 0.1.0\n");
}

#[test]
fn manual_pages_need_a_folder() {
    let home = tempfile::tempdir().unwrap();
    let mut command = ctl(home.path());
    command.args(["man", "/nowhere/man"]);
    run(command, "").is(
        1,
        "",
        "\
error: cannot write manual pages to `/nowhere/man`: No such file or directory (os error 2)
hint: give a folder that exists
",
    );
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let daemon = FakeDaemon::replying("model.ps", json!({ "models": [] }));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = daemon.command(&["--json", "ps"]);
    command.stdout(writer);
    run(command, "").is(0, "", "");
}
