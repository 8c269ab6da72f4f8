//! The property lists for macOS's launchd, as far as can be told without one.

use hearth_tests::{repository, run};
use serde_json::Value;
use std::process::Command;

/// What `launchd.plist(5)` knows of what we use.
const KEYS: [&str; 10] = [
    "EnvironmentVariables",
    "ExitTimeOut",
    "Label",
    "ProcessType",
    "ProgramArguments",
    "Sockets",
    "StandardErrorPath",
    "ThrottleInterval",
    "Umask",
    "UserName",
];
const SOCKET_KEYS: [&str; 6] = [
    "SecureSocketWithKey",
    "SockNodeName",
    "SockPathGroup",
    "SockPathMode",
    "SockPathName",
    "SockServiceName",
];

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn launchd_gets_property_lists_that_it_understands() {
    let folder = repository().join("packaging/launchd");
    let mut labels = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let read = "import json, plistlib, sys; json.dump(plistlib.load(open(sys.argv[1], 'rb')), sys.stdout)";
        let list = run(Command::new("python3").args(["-c", read]).arg(&path), "").json();
        let shown = path.display();
        for key in keys(&list) {
            assert!(KEYS.contains(&key), "{shown}: `{key}`");
        }
        let label = list["Label"].as_str().unwrap();
        assert_eq!(path.file_stem().unwrap(), label, "launchd wants it so");
        labels.push(label.to_owned());
        let program = list["ProgramArguments"][0].as_str().unwrap();
        assert!(program.starts_with('/') && program.ends_with("/hearthd"), "{shown}: {program}");
        for (name, socket) in list["Sockets"].as_object().unwrap() {
            assert!(["rpc", "http"].contains(&name.as_str()), "{shown}: nobody asks for `{name}`");
            for key in keys(socket) {
                assert!(SOCKET_KEYS.contains(&key), "{shown}: `{key}`");
            }
        }
        let rpc = &list["Sockets"]["rpc"];
        // Where `ctl` looks: at the variable, and on macOS at this path.
        if let Some(mode) = rpc["SockPathMode"].as_u64() {
            assert_eq!(mode, 0o660, "{shown}");
            assert_eq!(rpc["SockPathName"], "/var/run/hearth.sock", "{shown}");
        } else {
            assert_eq!(rpc["SecureSocketWithKey"], "HEARTH_SOCKET", "{shown}");
        }
        assert_eq!(list["Umask"], 0o077, "{shown}");
        // The default of `drain_seconds`, and something to say goodbye.
        assert!(list["ExitTimeOut"].as_u64() > Some(30), "{shown}");
    }
    labels.sort();
    assert_eq!(labels, ["hearth.agent", "hearth.hearthd"]);
}
