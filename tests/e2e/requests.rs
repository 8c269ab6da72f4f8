//! Requests by name: whatever takes a while is accepted under one, and ends when somebody says so.

use hearth_protocol::{
    CancelMethod, CancelParams, ChatParams, ErrorKind, ImportMode, ImportParams, Imported,
    LoadParams, Loaded, ModelImport, ModelListMethod, ModelLoad, ProgressEvent, Stream,
    StreamMethod,
};
use hearth_tests::{
    TestDaemon, WebSocket, chat, ctl_path, eventually_is, follow, is_alive, reference_model,
    refused, signal_process,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs::File;
use std::process::Stdio;

fn load(model: &str, request: &str) -> LoadParams {
    LoadParams { model: model.into(), draft: None, keep_alive: None, request: Some(request.into()) }
}

#[track_caller]
fn cancel(daemon: &TestDaemon, request: &str) {
    let params = CancelParams { request: request.into() };
    daemon.client().call::<CancelMethod>(&params).unwrap();
}

#[track_caller]
fn last<M: StreamMethod>(stream: &mut Stream<'_, M>) -> M::Event {
    std::iter::from_fn(|| stream.next_event().unwrap()).last().unwrap()
}

/// A file whose import takes many seconds.
fn import_of_a_long_file(daemon: &TestDaemon) -> ImportParams {
    let path = reference_model(daemon.dir(), "long", &[]);
    File::options().write(true).open(&path).unwrap().set_len(16 << 30).unwrap();
    let (path, request) = (path.to_str().unwrap().into(), Some("mine".into()));
    ImportParams { path, name: Some("long".into()), mode: ImportMode::Copy, request }
}

/// Nothing of an import is in the store.
#[track_caller]
fn await_empty_store(daemon: &TestDaemon) {
    daemon.await_idle();
    let blobs = daemon.dir().join("models/blobs");
    eventually_is("the store to be empty", || {
        std::fs::read_dir(&blobs).map_or(0, Iterator::count) == 0
    });
    let list = daemon.client().call::<ModelListMethod>(&hearth_protocol::Empty {}).unwrap();
    assert!(list.models.is_empty() && list.problems.is_empty(), "{list:?}");
}

#[test]
fn a_load_is_accepted_first_and_a_cancel_ends_it_with_its_worker() {
    let daemon = TestDaemon::start();
    daemon.model("late", &[("open_ms", 600_000.into())]);
    let mut client = daemon.client();
    let mut stream = client.stream::<ModelLoad>(&load("late", "mine")).unwrap();
    let first = stream.next_event().unwrap().unwrap();
    assert_eq!(first, ProgressEvent::Accepted { request: "mine".into() });
    while !matches!(stream.next_event().unwrap(), Some(ProgressEvent::Progress { .. })) {}
    assert_eq!(daemon.status().active_requests, 1);
    let worker = daemon.worker_pid();
    cancel(&daemon, "mine");
    let ProgressEvent::Error { error } = last(&mut stream) else { panic!("it ended well") };
    assert_eq!(error.kind(), Some(ErrorKind::Cancelled));
    eventually_is("the worker to be gone", || !is_alive(worker) && daemon.loaded().is_empty());
}

#[test]
fn a_load_that_somebody_else_waits_for_goes_on() {
    let daemon = TestDaemon::start();
    daemon.model("late", &[("open_ms", 1500.into())]);
    let (mut one, mut other) = (daemon.client(), daemon.client());
    let mut cancelled = one.stream::<ModelLoad>(&load("late", "one")).unwrap();
    let mut wanted = other.stream::<ModelLoad>(&load("late", "other")).unwrap();
    eventually_is("the load", || daemon.loaded().len() == 1);
    let held = daemon.hold_worker();
    eventually_is("both to wait", || daemon.loaded()[0].active_requests == 2);
    cancel(&daemon, "one");
    let ProgressEvent::Error { error } = last(&mut cancelled) else { panic!("it ended well") };
    assert_eq!(error.kind(), Some(ErrorKind::Cancelled));
    drop(held);
    let ProgressEvent::<Loaded>::Done { reply } = last(&mut wanted) else { panic!("it failed") };
    assert_eq!(reply.model.state, "ready");
}

#[test]
fn whoever_waits_for_a_load_in_vain_ends_it_by_leaving() {
    let daemon = TestDaemon::start();
    daemon.model("late", &[("open_ms", 600_000.into())]);
    let raw = daemon.raw();
    raw.send_call(1, "generate", &json!({ "model": "late", "prompt": "x", "keep_alive": -1 }));
    eventually_is("the load", || daemon.loaded().len() == 1);
    let worker = daemon.worker_pid();
    drop(raw);
    eventually_is("the worker to be gone", || !is_alive(worker) && daemon.loaded().is_empty());
}

#[test]
fn ctl_stop_ends_a_load_for_everybody_who_waits() {
    let daemon = TestDaemon::start();
    daemon.model("late", &[("open_ms", 600_000.into())]);
    let mut raw = daemon.raw();
    raw.send_call(1, "model.load", &json!({ "model": "late" }));
    eventually_is("the load", || daemon.loaded().len() == 1);
    assert!(daemon.ctl(["stop", "late"]).ok().contains("is unloaded"));
    assert_eq!(raw.recv()["error"]["data"]["kind"], "worker_died");
    assert_eq!(daemon.loaded(), []);
}

/// Starts `ctl` and sends it SIGINT once its request runs.
#[track_caller]
fn interrupt_ctl(daemon: &TestDaemon, args: &[&str]) {
    let mut ctl = daemon.command(ctl_path());
    let mut ctl = ctl.args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually_is("the request", || daemon.status().active_requests == 1);
    signal_process(ctl.id(), Signal::INT);
    assert!(!ctl.wait().unwrap().success());
}

#[test]
fn ctrl_c_in_ctl_load_ends_the_load() {
    let daemon = TestDaemon::start();
    daemon.model("late", &[("open_ms", 600_000.into())]);
    interrupt_ctl(&daemon, &["load", "late"]);
    eventually_is("the load to be ended", || daemon.loaded().is_empty());
}

#[test]
fn ctrl_c_in_ctl_import_ends_the_import_and_leaves_nothing_behind() {
    let daemon = TestDaemon::start();
    let path = import_of_a_long_file(&daemon).path;
    interrupt_ctl(&daemon, &["import", &path, "long", "--copy"]);
    await_empty_store(&daemon);
}

#[test]
fn a_cancelled_import_leaves_nothing_behind() {
    let daemon = TestDaemon::start();
    let params = import_of_a_long_file(&daemon);
    let mut client = daemon.client();
    let mut stream = client.stream::<ModelImport>(&params).unwrap();
    let first = stream.next_event().unwrap().unwrap();
    assert_eq!(first, ProgressEvent::Accepted { request: "mine".into() });
    while !matches!(stream.next_event().unwrap(), Some(ProgressEvent::Progress { .. })) {}
    cancel(&daemon, "mine");
    let ProgressEvent::<Imported>::Error { error } = last(&mut stream) else {
        panic!("it ended well")
    };
    assert_eq!(error.kind(), Some(ErrorKind::Cancelled));
    await_empty_store(&daemon);
}

#[test]
fn a_stop_waits_for_a_load_to_end() {
    let mut daemon = TestDaemon::start();
    daemon.model("late", &[("open_ms", 1000.into())]);
    let mut raw = daemon.raw();
    raw.send_call(1, "model.load", &json!({ "model": "late" }));
    eventually_is("the load", || daemon.loaded().len() == 1);
    let held = daemon.hold_worker();
    daemon.signal(Signal::TERM);
    eventually_is("the socket to go", || !daemon.socket().exists());
    drop(held);
    let reply = raw.recv();
    assert_eq!(reply["result"]["model"]["name"], "late:latest", "{reply}");
    assert!(daemon.await_end().success());
}

#[test]
fn a_second_sigterm_ends_an_import_and_leaves_nothing_behind() {
    let mut daemon = TestDaemon::start();
    let params = import_of_a_long_file(&daemon);
    let mut client = daemon.client();
    let mut stream = client.stream::<ModelImport>(&params).unwrap();
    while !matches!(stream.next_event().unwrap(), Some(ProgressEvent::Progress { .. })) {}
    daemon.signal(Signal::TERM);
    eventually_is("the socket to go", || !daemon.socket().exists());
    daemon.signal(Signal::TERM);
    let ProgressEvent::<Imported>::Error { error } = last(&mut stream) else {
        panic!("it ended well")
    };
    assert_eq!(error.kind(), Some(ErrorKind::ShuttingDown));
    assert!(daemon.await_end().success());
    daemon.restart();
    await_empty_store(&daemon);
}

#[test]
fn two_requests_of_one_name_do_not_run_at_once() {
    let daemon = TestDaemon::start();
    daemon.model("late", &[("open_ms", 600_000.into())]);
    let raw = daemon.raw();
    raw.send_call(1, "model.load", &json!({ "model": "late", "request": "mine" }));
    eventually_is("the load", || daemon.status().active_requests == 1);
    let again = daemon.client().call::<ModelLoad>(&load("late", "mine"));
    refused(again, ErrorKind::InvalidParams);
}

/// The reply to an unsubscribe and the stream's last event, in whichever order they come.
#[track_caller]
fn after_unsubscribing(mut recv: impl FnMut() -> Value) {
    let (mut reply, mut end) = (None, None);
    while reply.is_none() || end.is_none() {
        let message = recv();
        if message["id"] == 2 {
            assert_eq!(message["result"], true, "{message}");
            assert!(reply.replace(message).is_none());
        } else {
            assert!(end.is_none(), "an event after the end: {message}");
            let event = &message["params"]["result"];
            assert_ne!(event["type"], "done", "{message}");
            if event["type"] == "error" {
                end = Some(event["error"]["data"]["kind"].clone());
            }
        }
    }
    assert_eq!(end.unwrap(), "cancelled");
}

fn endless(daemon: &TestDaemon) -> Value {
    daemon.endless("endless");
    json!({ "model": "endless", "prompt": "once" })
}

#[test]
fn an_unsubscribed_stream_ends_with_one_terminal_event() {
    let daemon = TestDaemon::start();
    let params = endless(&daemon);

    let mut raw = daemon.raw();
    let subscription = raw.subscribe("generate.stream", &params);
    while raw.event(&subscription)["type"] != "delta" {}
    raw.send_call(2, "generate.unsubscribe", &json!([subscription]));
    after_unsubscribing(|| raw.recv());
    daemon.await_idle();
    raw.half_close();
    assert_eq!(raw.rest(), Vec::<Value>::new());

    let mut socket = WebSocket::connect(&daemon);
    let subscription = socket.call("generate.stream", &params)["result"].clone();
    while socket.recv()["params"]["result"]["type"] != "delta" {}
    socket.send_call(2, "generate.unsubscribe", &json!([subscription]));
    after_unsubscribing(|| socket.recv());
    daemon.await_idle();
    assert_eq!(socket.call("daemon.status", &json!({}))["id"], 1, "an event after the end");
}

#[test]
fn unsubscribing_from_a_stream_that_has_ended_changes_nothing() {
    let daemon = TestDaemon::start();
    let mut params = endless(&daemon);
    params["options"] = json!({ "max_tokens": 2 });
    let mut raw = daemon.raw();
    let subscription = raw.subscribe("generate.stream", &params);
    assert_eq!(raw.events(&subscription).last().unwrap()["type"], "done");
    assert_eq!(raw.call("generate.unsubscribe", &json!([subscription]))["result"], false);
    raw.half_close();
    assert_eq!(raw.rest(), Vec::<Value>::new());
}

#[test]
fn a_request_ends_when_its_time_is_over_whatever_it_does() {
    let daemon = TestDaemon::start();
    daemon.model("late", &[("open_ms", 600_000.into())]);
    daemon.endless("endless");
    // While it loads, and in the middle of an answer; and the next is served.
    for model in ["late", "endless"] {
        let params = ChatParams { timeout_ms: Some(300), ..chat(model, "hello") };
        let told = follow(&mut daemon.client(), &params);
        let error = told.error();
        assert_eq!(error.kind(), Some(ErrorKind::DeadlineExceeded), "{error:?}");
        assert!(error.message.contains("300 ms"), "{error:?}");
        daemon.await_idle();
    }
    let mut params = ChatParams { timeout_ms: Some(600_000), ..chat("endless", "hello") };
    params.options.max_tokens = Some(2);
    assert_eq!(follow(&mut daemon.client(), &params).reply().usage.completion_tokens, 2);
}
