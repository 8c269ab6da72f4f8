//! Names and space in the store: `ctl cp`, `rm`, `du`, `prune`, `verify`, and the methods behind them.

use crate::pull::{MIB, noise, source};
use hearth_protocol::{
    CopyParams, Empty, ErrorKind, ModelCopy, ModelDelete, ModelParams, ModelPull, ModelShow,
    ProgressEvent, StoreUsageMethod, StoreVerify, TransferEvent, VerifyParams,
};
use hearth_tests::{
    CTRL_C, ENTER, Fault, FaultProxy, Registry, Terminal, TestDaemon, ctl_path, eventually,
    eventually_is, reference_model, refused,
};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

fn start() -> TestDaemon {
    let daemon = TestDaemon::start();
    daemon.model("one", &[("seed", 1.into())]);
    daemon.model("two", &[("seed", 2.into())]);
    daemon
}

fn weights(daemon: &TestDaemon, model: &str) -> PathBuf {
    daemon.client().call::<ModelShow>(&ModelParams { model: model.into() }).unwrap().path.into()
}

/// A file in the blobs folder that nobody has written to for two days.
fn leave(daemon: &TestDaemon, name: &str) -> PathBuf {
    let path = daemon.dir().join("models/blobs").join(name);
    fs::write(&path, "left").unwrap();
    make_old(&path);
    path
}

fn make_old(path: &Path) {
    let two_days = Duration::from_secs(2 * 24 * 3600);
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - two_days).unwrap();
}

#[test]
fn cp_gives_a_model_another_name_and_rm_takes_names_away() {
    let daemon = start();
    let weights = weights(&daemon, "one");
    assert!(daemon.ctl(["cp", "one", "uno"]).ok().contains("`uno:latest`"));
    daemon.ctl(["run", "uno", "hello"]).ok();
    daemon.ctl(["stop", "uno"]).ok();
    assert!(daemon.ctl(["rm", "one"]).ok().contains("frees 0 B"));
    assert!(weights.exists());

    let ran = daemon.ctl(["rm", "none", "uno", "nobody"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stdout.contains("`uno:latest` is removed"), "{ran:?}");
    assert!(ran.stderr.contains("`none:latest`") && ran.stderr.contains("`nobody:"), "{ran:?}");
    assert!(!weights.exists());
    let left = daemon.ctl(["ls", "--json"]).json();
    assert_eq!(left["models"].as_array().unwrap().len(), 1);
    assert!(daemon.ctl(["rm", "two", "--json"]).json()["freed_bytes"].as_u64().unwrap() > 0);
}

#[test]
fn a_loaded_model_is_not_removed_under_the_name_it_is_loaded_by() {
    let daemon = start();
    daemon.ctl(["load", "one"]).ok();
    daemon.ctl(["cp", "one", "uno"]).ok();
    let mut client = daemon.client();
    let mut delete = |model: &str| client.call::<ModelDelete>(&ModelParams { model: model.into() });
    let error = refused(delete("ONE"), ErrorKind::InUse);
    assert!(error.hint().unwrap().contains("ctl stop one:latest"), "{error:?}");
    assert_eq!(delete("uno").unwrap().freed_bytes, 0);

    // Its name belongs to another model now, which is not loaded.
    let params = CopyParams { from: "two".into(), to: "one".into(), request: None };
    daemon.client().call::<ModelCopy>(&params).unwrap();
    assert_eq!(delete("one").unwrap().name, "one:latest");
    assert_eq!(daemon.loaded().len(), 1);
}

#[test]
fn du_says_whose_the_space_is() {
    let daemon = start();
    daemon.ctl(["cp", "one", "uno"]).ok();
    let file = reference_model(daemon.dir(), "away", &[("seed", 3.into())]).display().to_string();
    daemon.ctl(["import", &file, "linked", "--link"]).ok();
    leave(&daemon, "sha256-77-partial");
    let usage = daemon.client().call::<StoreUsageMethod>(&Empty {}).unwrap();
    let [store] = &usage.stores[..] else { panic!("{usage:?}") };
    assert_eq!(PathBuf::from(&store.path), daemon.dir().join("models"));
    let of = |name: &str| store.models.iter().find(|model| model.name == name).unwrap();
    assert_eq!((of("one:latest").own_bytes, of("uno:latest").own_bytes), (0, 0));
    assert!(of("two:latest").own_bytes > 0 && of("two:latest").linked_bytes == 0);
    assert_eq!(of("linked:latest").linked_bytes, fs::metadata(&file).unwrap().len());
    for model in &store.models {
        let parts = model.own_bytes + model.shared_bytes + model.linked_bytes;
        assert_eq!(model.size_bytes, parts, "{model:?}");
    }
    assert_eq!((store.unfinished.files, store.unfinished.bytes), (1, 4));

    let text = daemon.ctl(["du"]).ok();
    assert!(text.starts_with("NAME ") && text.contains("unfinished   4 B in 1 file\n"), "{text}");
    assert_eq!(daemon.ctl(["du", "--json"]).json()["stores"][0]["unfinished"]["bytes"], 4);
}

#[test]
fn prune_says_what_it_removes() {
    let daemon = start();
    let lost = leave(&daemon, &format!("sha256-{}", "7".repeat(64)));
    let partial = leave(&daemon, "sha256-77-partial-0");
    let text = daemon.ctl(["prune", "--dry-run"]).ok();
    assert!(text.contains(lost.to_str().unwrap()) && text.contains("would be removed"), "{text}");
    assert!(lost.exists() && partial.exists());

    // Where there is nobody to ask it does not ask.
    assert_eq!(daemon.ctl(["prune"]).ok(), "8 B in 2 files removed\n");
    assert!(!lost.exists() && !partial.exists());
    let pruned = daemon.ctl(["prune", "--json"]).json();
    assert_eq!(
        (pruned["removed"].as_array().unwrap().len(), &pruned["freed_bytes"]),
        (0, &0.into())
    );
    assert!(daemon.ctl(["verify"]).ok().contains("of 2 models read"));
}

#[test]
fn prune_spares_a_download_that_waits_for_its_server() {
    let registry = Registry::start();
    registry.push("library/m", &[("model", &noise(8 * MIB))]);
    let proxy = FaultProxy::start(registry.host(), |request, _| {
        if request.path.contains("/blobs/") { Fault::StallAfter(3 * MIB) } else { Fault::None }
    });
    let daemon = TestDaemon::start();
    let mut client = daemon.client();
    let mut stream = client.stream::<ModelPull>(&source(&proxy.host())).unwrap();
    eventually("a part of the download", || match stream.next_event().unwrap().unwrap() {
        TransferEvent::Progress { blobs } => {
            blobs.iter().any(|blob| blob.done_bytes >= MIB as u64).then_some(())
        }
        _ => None,
    });
    let mut partials = fs::read_dir(daemon.dir().join("models/blobs")).unwrap();
    let partial = partials.find_map(|entry| {
        let path = entry.unwrap().path();
        path.to_str().unwrap().ends_with("-pull").then_some(path)
    });
    let partial = partial.unwrap();
    make_old(&partial);
    daemon.ctl(["prune"]).ok();
    assert!(partial.exists());
    // Given up, it is like any other.
    drop(client);
    eventually_is("the partial goes", || {
        make_old(&partial);
        daemon.ctl(["prune"]).ok();
        !partial.exists()
    });
}

#[test]
fn at_a_terminal_prune_asks_first() {
    let daemon = start();
    let partial = leave(&daemon, "sha256-77-partial");
    let prune = |args: &[&str]| {
        let mut command = daemon.command(ctl_path());
        command.arg("prune").args(args).env("TERM", "xterm");
        Terminal::start(&mut command, 200)
    };
    for (keys, code) in [(ENTER, 0), ("no\r", 0), (CTRL_C, 130)] {
        let mut terminal = prune(&[]);
        terminal.await_text("remove 4 B in 1 file? [y/N]");
        terminal.press(keys);
        assert_eq!(terminal.await_end().code(), Some(code));
        assert!(partial.exists());
    }
    let mut terminal = prune(&[]);
    terminal.await_text("[y/N]");
    terminal.enter("y");
    terminal.await_text("4 B in 1 file removed");
    assert_eq!(terminal.await_end().code(), Some(0));
    assert!(!partial.exists());

    leave(&daemon, "sha256-77-partial");
    let mut terminal = prune(&["--yes"]);
    terminal.await_text("4 B in 1 file removed");
    assert!(!terminal.text().contains("[y/N]"));
    assert_eq!(terminal.await_end().code(), Some(0));
}

#[test]
fn verify_finds_what_is_wrong_and_says_in_which_model() {
    let daemon = start();
    daemon.ctl(["verify"]).ok();
    let damaged = weights(&daemon, "one");
    let mut bytes = fs::read(&damaged).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&damaged, bytes).unwrap();

    let ran = daemon.ctl(["verify"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stdout.contains("`one:latest`: ") && !ran.stdout.contains("`two:"), "{ran:?}");
    assert!(ran.stderr.starts_with("error: 1 fault\n"), "{ran:?}");
    let ran = daemon.ctl(["verify", "one", "--json"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let reply: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(reply["faults"][0]["path"], damaged.to_str().unwrap());
    daemon.ctl(["verify", "two"]).ok();
    assert_eq!(daemon.ctl(["verify", "none"]).code, Some(1));
}

#[test]
fn verify_tells_how_far_it_is_and_can_be_cancelled() {
    let daemon = start();
    // Reading it takes longer than the cancel, on any disk.
    let big = daemon.dir().join("big.gguf");
    fs::copy(reference_model(daemon.dir(), "small", &[]), &big).unwrap();
    File::options().write(true).open(&big).unwrap().set_len(2 << 30).unwrap();
    daemon.import(&big, "big", hearth_protocol::ImportMode::Link);

    let mut client = daemon.client();
    let canceller = client.canceller().unwrap();
    let params = VerifyParams { request: Some("mine".into()), ..VerifyParams::default() };
    let mut stream = client.stream::<StoreVerify>(&params).unwrap();
    let mut last = 0.0;
    let error = loop {
        match stream.next_event().unwrap().unwrap() {
            ProgressEvent::Accepted { request } => assert_eq!(request, "mine"),
            ProgressEvent::Progress { fraction, .. } => {
                assert!(fraction >= last && fraction <= 1.0, "{fraction} after {last}");
                last = fraction;
                canceller.cancel("mine").unwrap();
            }
            ProgressEvent::Done { reply } => panic!("it read all: {reply:?}"),
            ProgressEvent::Error { error } => break error,
        }
    };
    assert_eq!(error.kind(), Some(ErrorKind::Cancelled));
    daemon.await_idle();
}
