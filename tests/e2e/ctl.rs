//! `ctl` and the daemon together.

use hearth_tests::{TestDaemon, ctl_path, reference_model, run};
use std::process::Command;

fn start() -> TestDaemon {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[]);
    daemon
}

#[test]
fn every_listing_is_json_when_asked() {
    let daemon = start();
    daemon.ctl(["load", "tiny"]).ok();
    assert_eq!(daemon.ctl(["ls", "--json"]).json()["models"][0]["name"], "tiny:latest");
    assert_eq!(daemon.ctl(["ps", "--json"]).json()["models"][0]["state"], "ready");
    assert_eq!(daemon.ctl(["show", "tiny", "--json"]).json()["architecture"], "hearth-reference");
    assert_eq!(daemon.ctl(["status", "--json"]).json()["pid"], daemon.pid());
    assert_eq!(daemon.ctl(["backend", "--json"]).json()["backends"][0]["state"], "chosen");
    assert!(daemon.ctl(["load", "tiny", "--json"]).json()["load_us"].is_number());
    assert_eq!(daemon.ctl(["stop", "tiny", "--json"]).json()["unloaded"], true);
}

#[test]
fn a_file_is_imported_by_copy_and_by_link() {
    let daemon = TestDaemon::start();
    let file = reference_model(daemon.dir(), "mine", &[]).display().to_string();
    daemon.ctl(["import", &file, "copied", "--copy"]).ok();
    daemon.ctl(["import", &file, "linked", "--link"]).ok();
    std::fs::remove_file(&file).unwrap();
    let names = daemon.ctl(["ls"]).ok();
    assert!(names.contains("copied:latest") && names.contains("linked:latest"), "{names}");
    daemon.ctl(["run", "copied", "hello"]).ok();
    let gone = daemon.ctl(["import", &file, "again"]);
    assert_eq!(gone.code, Some(1), "{gone:?}");
}

#[test]
fn an_answer_is_on_stdout_alone_and_events_are_lines_of_json() {
    let daemon = start();
    let ran = daemon.ctl(["run", "tiny", "hello", "--temperature", "0"]);
    assert_eq!(ran.stderr, "");
    let text = ran.ok();
    let events = daemon.ctl(["run", "tiny", "hello", "--temperature", "0", "--json"]).ok();
    let events: Vec<serde_json::Value> =
        events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events[0]["type"], "accepted");
    let last = events.last().unwrap();
    assert_eq!(last["type"], "done");
    assert_eq!(last["reply"]["message"]["content"].as_str().unwrap().trim_end(), text.trim_end());
}

#[test]
fn a_prompt_comes_by_stdin_too() {
    let daemon = start();
    let by_argument = daemon.ctl(["run", "tiny", "hello", "--temperature", "0"]).ok();
    let by_stdin = daemon.ctl_with_stdin(["run", "tiny", "--temperature", "0"], "hello").ok();
    let by_chat = daemon.ctl_with_stdin(["chat", "tiny", "--temperature", "0"], "hello").ok();
    assert_eq!(by_argument, by_stdin);
    assert_eq!(by_argument, by_chat);
}

#[test]
fn a_name_that_is_nearly_right_gets_a_hint() {
    let daemon = start();
    let ran = daemon.ctl(["run", "tinny", "hello"]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains("error: ") && ran.stderr.contains("hint: did you mean `tiny"),
        "{ran:?}"
    );
}

#[test]
fn without_a_daemon_it_says_what_it_tried_and_ends_with_3() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(ctl_path());
    command.arg("--socket").arg(folder.path().join("none")).arg("status");
    let ran = run(&mut command, "");
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(ran.stderr.contains("none") && ran.stderr.contains("hint: "), "{ran:?}");
}
