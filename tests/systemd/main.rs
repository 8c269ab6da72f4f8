//! `hearthd` as a service of a real systemd, which `boot.sh` boots in namespaces of its own. It needs root.

#![cfg(test)]

mod package;

use hearth_reference::Value as Setting;
use hearth_tests::{ctl_path, hearthd_path, reference_model, reference_plugins, repository};
use serde_json::Value;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

const QUICK: &str = "Plugh, said the hollow voice.";

/// What systemd adds to each entry, as far as it is looked at here.
fn service(name: &str, args: &str, more: &str) -> String {
    format!(
        "[Unit]\nDescription={name}\n[Service]\nType=notify\nTimeoutStartSec=300\n\
         ExecStart=/var/ci/hearthd --config /var/ci/hearth.toml --backends /var/ci/backends {args}\n\
         DynamicUser=yes\nRuntimeDirectory={name}\nStateDirectory={name}\n{more}\n"
    )
}

fn slow_answer() -> String {
    (0..60).map(|n| format!("word{n}")).collect::<Vec<_>>().join(" ")
}

/// Everything that `inside.sh` finds in `/var/ci`, readable for the service's own user.
fn furnish(folder: &Path) {
    fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    let copy = |from: &Path| fs::copy(from, folder.join(from.file_name().unwrap())).unwrap();
    copy(&hearthd_path());
    copy(&ctl_path());
    copy(&repository().join("tests/systemd/inside.sh"));
    furnish_reference(folder);
    fs::write(folder.join("hearth.toml"), "log = \"debug\"\n").unwrap();
    let write = |name: &str, args: &str, more: &str| {
        fs::write(folder.join(format!("{name}.service")), service(name, args, more)).unwrap();
    };
    write("hearth", "", "");
    write("hearth-nowhere", "--socket /proc/nowhere/sock", "");
    // systemd says in $JOURNAL_STREAM that standard output is the journal's; the log goes to standard error.
    write("hearth-to-file", "", "StandardOutput=journal\nStandardError=append:/var/ci/to-file.log");
}

/// The reference plugin with a quick and a slow model.
fn furnish_reference(folder: &Path) {
    let plugin = "libhearth_reference.so";
    fs::create_dir(folder.join("backends")).unwrap();
    fs::copy(reference_plugins().join(plugin), folder.join("backends").join(plugin)).unwrap();
    reference_model(folder, "quick", &[("script", QUICK.into())]);
    let slow: [(&str, Setting); 2] =
        [("script", slow_answer().as_str().into()), ("slow_us_per_decode", 10_000_u64.into())];
    reference_model(folder, "slow", &slow);
}

/// The journal's entries of one unit's own processes.
fn journal(folder: &Path, unit: &str) -> Vec<Value> {
    let mut journalctl = Command::new("journalctl");
    journalctl.args(["-o", "json", "--no-pager", "-D"]).arg(folder.join("journal"));
    let output = journalctl.arg(format!("_SYSTEMD_UNIT={unit}.service")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Runs a script of `folder` in a copy of the system in `root`.
#[track_caller]
fn boot(folder: &Path, script: &str, root: &Path) {
    let mut boot = Command::new(repository().join("tests/systemd/boot.sh"));
    let status = boot.arg(folder).arg(script).arg(root).status().unwrap();
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
    assert!(
        status.success(),
        "{status}: this needs root, systemd, cgroup2 and overlayfs\n--- boot.log\n{}\n--- output\n{}\n--- journal\n{:#?}",
        read("boot.log"),
        read("output"),
        journal(folder, "hearth"),
    );
}

/// Neither a prompt nor an answer, also at the level `debug`.
#[track_caller]
fn assert_private(entries: &[Value]) {
    let everything = serde_json::to_string(entries).unwrap().to_lowercase();
    for private in ["xyzzy", "plugh", "word1"] {
        assert!(!everything.contains(private), "`{private}` is in the journal");
    }
}

#[track_caller]
fn entry<'a>(entries: &'a [Value], message: &str) -> &'a Value {
    let begins =
        |entry: &&Value| entry["MESSAGE"].as_str().is_some_and(|found| found.starts_with(message));
    entries.iter().find(begins).unwrap_or_else(|| panic!("no `{message}` in {entries:#?}"))
}

#[test]
fn a_service_starts_logs_and_stops() {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let folder = folder.path();
    furnish(folder);
    boot(folder, "inside.sh", Path::new("/"));
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();

    // The answers came whole, also the one that a stop had to wait for.
    assert_eq!(read("quick.answer").trim_end(), QUICK);
    assert_eq!(read("slow.answer").trim_end(), slow_answer());

    let entries = journal(folder, "hearth");
    for entry in &entries {
        assert_eq!(entry["_TRANSPORT"], "journal", "not sent with fields: {entry:#}");
        assert_eq!(entry["SYSLOG_IDENTIFIER"], "hearthd", "{entry:#}");
    }
    let listening = entry(&entries, "Listening");
    assert_eq!(listening["F_SOCKET"], "/run/hearth/hearth.sock");
    assert_eq!(listening["F_MODELS"], "/var/lib/hearth/models");
    assert_eq!(listening["PRIORITY"], "5");
    assert_eq!(entry(&entries, "Backend chosen")["F_BACKEND"], "reference");
    let loaded = entry(&entries, "Model loaded");
    assert_eq!(loaded["F_MODEL"], "quick:latest");
    assert!(loaded["F_PID"].as_str().is_some_and(|pid| pid.parse::<u32>().is_ok()), "{loaded:#}");
    assert_eq!(entry(&entries, "Stopping")["F_REQUESTS"], "1");

    assert_private(&entries);

    assert!(read("to-file.log").contains("Listening"), "{}", read("to-file.log"));
    assert!(journal(folder, "hearth-to-file").is_empty());
}
