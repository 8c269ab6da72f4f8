//! Stopping: running answers may end, a second signal does not wait for them.

use hearth_protocol::{ErrorKind, Event, Generate};
use hearth_tests::{TestDaemon, eventually_is, generate, is_alive, signal_process};
use rustix::process::Signal;
use serde_json::json;

fn start() -> TestDaemon {
    let daemon = TestDaemon::builder().config("drain_seconds = 600").start();
    daemon.endless("endless");
    daemon
}

#[test]
fn an_idle_daemon_stops_with_success_and_takes_its_socket_away() {
    TestDaemon::start().stop_cleanly();
}

#[test]
fn sigterm_lets_a_running_answer_end_and_refuses_new_ones() {
    let mut daemon = start();
    let mut client = daemon.client();
    let mut late = daemon.raw();
    let mut params = generate("endless", "once");
    params.options.max_tokens = Some(30);
    let mut stream = client.stream::<Generate>(&params).unwrap();
    while !matches!(stream.next_event().unwrap(), Some(Event::Delta { .. })) {}
    let held = daemon.hold_worker();
    daemon.signal(Signal::TERM);
    eventually_is("the socket to go", || !daemon.socket().exists());
    let refused = late.call("generate", &json!({ "model": "endless", "prompt": "more" }));
    assert_eq!(refused["error"]["data"]["kind"], "shutting_down", "{refused}");
    assert!(refused["error"]["data"]["hint"].is_string());
    drop(held);
    let last = std::iter::from_fn(|| stream.next_event().unwrap()).last();
    let Some(Event::Done { reply }) = last else { panic!("{last:?}") };
    assert_eq!(reply.usage.completion_tokens, 30);
    assert!(daemon.await_end().success());
}

#[test]
fn signals_to_every_process_of_the_service_let_a_running_answer_end() {
    let mut daemon = start();
    let mut client = daemon.client();
    let mut params = generate("endless", "once");
    params.options.max_tokens = Some(30);
    let mut stream = client.stream::<Generate>(&params).unwrap();
    while !matches!(stream.next_event().unwrap(), Some(Event::Delta { .. })) {}
    for signal in [Signal::INT, Signal::TERM] {
        signal_process(daemon.worker_pid(), signal);
    }
    daemon.signal(Signal::TERM);
    let last = std::iter::from_fn(|| stream.next_event().unwrap()).last();
    let Some(Event::Done { reply }) = last else { panic!("{last:?}") };
    assert_eq!(reply.usage.completion_tokens, 30);
    assert!(daemon.await_end().success());
}

#[test]
fn a_second_sigterm_ends_everything_at_once() {
    let mut daemon = start();
    let mut client = daemon.client();
    let mut stream = client.stream::<Generate>(&generate("endless", "once")).unwrap();
    while !matches!(stream.next_event().unwrap(), Some(Event::Delta { .. })) {}
    let worker = daemon.worker_pid();
    daemon.signal(Signal::TERM);
    eventually_is("the socket to go", || !daemon.socket().exists());
    daemon.signal(Signal::TERM);
    let last = std::iter::from_fn(|| stream.next_event().unwrap()).last();
    let Some(Event::Error { error }) = last else { panic!("{last:?}") };
    assert_eq!(error.kind(), Some(ErrorKind::ShuttingDown), "{error:?}");
    assert!(daemon.await_end().success());
    eventually_is("the end of the worker", || !is_alive(worker));
}

#[test]
fn a_drain_that_takes_too_long_is_ended() {
    let mut daemon = TestDaemon::builder().config("drain_seconds = 0").start();
    daemon.endless("endless");
    let raw = daemon.raw();
    raw.send_call(1, "generate.stream", &json!({ "model": "endless", "prompt": "once" }));
    eventually_is("the request to run", || daemon.status().active_requests == 1);
    daemon.signal(Signal::TERM);
    assert!(daemon.await_end().success());
}

#[test]
fn a_second_daemon_on_the_same_socket_is_refused_with_a_hint() {
    let daemon = TestDaemon::start();
    let mut command = daemon.command(hearth_tests::hearthd_path());
    command.arg("--socket").arg(daemon.socket()).arg("--models").arg(daemon.dir().join("m"));
    let second = hearth_tests::run(&mut command, "");
    assert_eq!(second.code, Some(1));
    assert!(second.stderr.contains("another hearthd listens on"), "{second:?}");
    assert!(second.stderr.contains("hint: "), "{second:?}");
    daemon.status();
}
