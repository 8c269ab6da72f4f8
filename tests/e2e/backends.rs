//! The plugin folder: whatever lies there is reported, and nothing there is fatal.

use hearth_protocol::{Backend, BackendListMethod, BackendState, Empty};
use hearth_tests::{
    TestDaemon, follow_generate, generate, reference_plugins, refused, repository, run,
};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// A folder with the reference plugin, and whatever `fill` adds.
fn start(fill: impl FnOnce(&Path)) -> TestDaemon {
    start_with("", fill)
}

fn start_with(config: &str, fill: impl FnOnce(&Path)) -> TestDaemon {
    let builder = TestDaemon::builder().config(config);
    let folder = builder.dir().join("plugins");
    fs::create_dir(&folder).unwrap();
    fs::copy(
        reference_plugins().join("libhearth_reference.so"),
        folder.join("libhearth_reference.so"),
    )
    .unwrap();
    fill(&folder);
    builder.backends(folder).start()
}

fn backend(daemon: &TestDaemon, name: &str) -> Backend {
    let list = daemon.client().call::<BackendListMethod>(&Empty {}).unwrap().backends;
    list.into_iter()
        .find(|backend| backend.name == name)
        .unwrap_or_else(|| panic!("`{name}` is not listed"))
}

fn compile(source: &Path, output: &Path) {
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-shared", "-fPIC", "-fvisibility=hidden", "-I"]);
    cc.arg(repository().join("backends/abi/include")).arg("-o").arg(output).arg(source);
    run(&mut cc, "").ok();
    fs::set_permissions(output, Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn files_that_are_no_plugins_are_refused_with_a_reason_and_the_good_one_works() {
    let daemon = start(|folder| {
        fs::write(folder.join("libhearth_garbage.so"), b"not a library").unwrap();
        fs::write(folder.join("README"), b"passed over").unwrap();
        let open = folder.join("libhearth_open.so");
        fs::copy(folder.join("libhearth_reference.so"), &open).unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
    });
    assert_eq!(backend(&daemon, "reference").state, BackendState::Chosen);
    let garbage = backend(&daemon, "garbage");
    assert_eq!(garbage.state, BackendState::Refused);
    assert!(garbage.reason.contains("libhearth_garbage.so"), "{}", garbage.reason);
    let open = backend(&daemon, "open");
    assert_eq!(open.state, BackendState::Refused);
    assert!(open.reason.contains("can be written by others (mode 777)"), "{}", open.reason);
    assert_eq!(backend(&daemon, "cuda").state, BackendState::Absent);
    daemon.model("tiny", &[]);
    follow_generate(&mut daemon.client(), &generate("tiny", "once")).reply();
}

#[test]
fn a_plugin_that_crashes_in_its_probe_costs_its_own_line() {
    let daemon = start(|folder| {
        let source = folder.join("crash.c");
        fs::write(&source, "#include <stdlib.h>\n__attribute__((constructor)) static void crash(void) { abort(); }\n").unwrap();
        compile(&source, &folder.join("libhearth_crash.so"));
    });
    let crash = backend(&daemon, "crash");
    assert_eq!(crash.state, BackendState::Crashed);
    assert!(crash.reason.contains("signal: 6"), "{}", crash.reason);
    assert_eq!(backend(&daemon, "reference").state, BackendState::Chosen);
}

#[test]
fn a_plugin_that_hangs_in_its_probe_costs_its_own_line() {
    let daemon = start_with("probe_seconds = 3", |folder| {
        let source = folder.join("hang.c");
        fs::write(&source, "#include <unistd.h>\n__attribute__((constructor)) static void hang(void) { for (;;) pause(); }\n").unwrap();
        compile(&source, &folder.join("libhearth_hang.so"));
    });
    let hang = backend(&daemon, "hang");
    assert_eq!(hang.state, BackendState::Crashed);
    assert!(hang.reason.contains("longer than 3 s"), "{}", hang.reason);
    assert_eq!(backend(&daemon, "reference").state, BackendState::Chosen);
    daemon.model("tiny", &[]);
    follow_generate(&mut daemon.client(), &generate("tiny", "once")).reply();
}

#[test]
fn the_minimal_plugin_in_c_is_listed() {
    let daemon = start(|folder| {
        compile(
            &repository().join("backends/abi/examples/minimal.c"),
            &folder.join("libhearth_minimal.so"),
        );
    });
    let minimal = backend(&daemon, "minimal");
    assert!(matches!(minimal.state, BackendState::Chosen | BackendState::Ready), "{minimal:?}");
}

#[test]
fn without_any_backend_a_request_says_so() {
    let builder = TestDaemon::builder();
    let folder = builder.dir().join("empty");
    fs::create_dir(&folder).unwrap();
    let daemon = builder.backends(folder).start();
    daemon.model("tiny", &[]);
    let result = daemon.client().call::<hearth_protocol::Generate>(&generate("tiny", "once"));
    refused(result, hearth_protocol::ErrorKind::NoBackend);
}

#[test]
fn a_backend_that_is_wanted_and_not_there_is_no_silent_fallback() {
    let daemon = TestDaemon::builder().config("backend = \"cuda\"").start();
    daemon.model("tiny", &[]);
    let result = daemon.client().call::<hearth_protocol::Generate>(&generate("tiny", "once"));
    let error = refused(result, hearth_protocol::ErrorKind::NoBackend);
    assert!(error.message.contains("cuda"), "{error:?}");
    let reference = backend(&daemon, "reference");
    assert_eq!(reference.state, BackendState::Ready);
    assert!(reference.reason.contains("the configuration wants `cuda`"), "{}", reference.reason);
}
