//! What gets stuck, and must not hold up the rest: clients at the end, processes that stand still, loads that fail or
//! take for ever.

use hearth_protocol::{ErrorKind, Event, Generate, ImportMode, KeepAlive, RpcError};
use hearth_tests::{
    TestDaemon, chat, eventually_is, follow, follow_generate, generate, is_alive, signal_process,
};
use rustix::process::Signal;
use serde_json::{Value, json};

#[test]
fn a_client_that_never_reads_does_not_keep_the_daemon_from_stopping() {
    let mut daemon = TestDaemon::builder().config("drain_seconds = 0").start();
    daemon.endless("endless");
    let silent = daemon.raw();
    silent.send_call(1, "generate.stream", &json!({ "model": "endless", "prompt": "once" }));
    // More than the socket's buffers hold.
    for id in 10..60 {
        silent.send_call(id, "rpc.discover", &json!({}));
    }
    eventually_is("the stream", || daemon.status().active_requests > 0);
    daemon.signal(Signal::TERM);
    assert!(daemon.await_end().success());
}

#[test]
fn a_load_that_takes_for_ever_does_not_keep_the_daemon_from_stopping() {
    let mut daemon = TestDaemon::builder().config("drain_seconds = 0").start();
    daemon.model("late", &[("open_ms", 600_000.into())]);
    let mut raw = daemon.raw();
    raw.send_call(1, "model.load", &json!({ "model": "late" }));
    eventually_is("the load", || daemon.loaded().len() == 1);
    let worker = daemon.worker_pid();
    daemon.signal(Signal::TERM);
    let reply = raw.recv();
    assert_eq!(reply["error"]["data"]["kind"], "shutting_down", "{reply}");
    assert!(daemon.await_end().success());
    eventually_is("the worker to be gone", || !is_alive(worker));
}

#[test]
fn every_request_of_a_dead_worker_gets_one_error_also_those_that_waited() {
    let daemon = TestDaemon::builder().config("[engine]\nparallel = 2").start();
    daemon.endless("endless");
    let mut raw = daemon.raw();
    for id in 0..6 {
        let params = json!({ "model": "endless", "prompt": format!("{id}") });
        raw.send_call(id, "generate.stream", &params);
    }
    while raw.recv()["params"]["result"]["type"] != "delta" {}
    eventually_is("six requests", || daemon.status().active_requests == 6);
    signal_process(daemon.worker_pid(), Signal::KILL);
    let mut n_ends = 0;
    while n_ends < 6 {
        let message = raw.recv();
        let event = &message["params"]["result"];
        assert_ne!(event["type"], "done", "{message}");
        if event["type"] == "error" {
            assert_eq!(event["error"]["data"]["kind"], "worker_died", "{message}");
            n_ends += 1;
        }
    }
    daemon.await_idle();
    raw.half_close();
    assert_eq!(raw.rest(), Vec::<Value>::new());
}

#[test]
fn everybody_who_waits_for_a_load_gets_its_error() {
    let daemon = TestDaemon::start();
    daemon.model("fails", &[("fail_open", true.into()), ("open_ms", 300.into())]);
    let errors: Vec<RpcError> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..5)
            .map(|_| scope.spawn(|| follow(&mut daemon.client(), &chat("fails", "hi")).error()))
            .collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    for error in errors {
        assert_eq!(error.kind(), Some(ErrorKind::LoadFailed), "{error:?}");
        assert!(error.message.contains("the model asks for opening to fail"), "{error:?}");
        assert!(error.hint().is_some(), "{error:?}");
    }
}

#[test]
fn a_worker_that_stands_still_can_be_unloaded() {
    let daemon = TestDaemon::start();
    daemon.endless("endless");
    let mut client = daemon.client();
    let mut stream = client.stream::<Generate>(&generate("endless", "once")).unwrap();
    while !matches!(stream.next_event().unwrap(), Some(Event::Delta { .. })) {}
    let worker = daemon.worker_pid();
    signal_process(worker, Signal::STOP);
    daemon.ctl(["stop", "endless"]).ok();
    let last = std::iter::from_fn(|| stream.next_event().unwrap()).last();
    let Some(Event::Error { error }) = last else { panic!("{last:?}") };
    assert_eq!(error.kind(), Some(ErrorKind::WorkerDied));
    eventually_is("the worker to be gone", || !is_alive(worker));
}

/// Hangs in its fifth decode, every time it is loaded.
fn hanging(daemon: &TestDaemon) {
    let settings = [("hang_after", 5.into()), ("hang_hard", true.into()), ("eos_one_in", 0.into())];
    daemon.model("hanging", &settings);
}

#[test]
fn a_decode_that_hangs_is_ended_and_the_next_request_loads_the_model_again() {
    let daemon = TestDaemon::builder().config("[engine]\nstall_seconds = 2").start();
    hanging(&daemon);
    let mut client = daemon.client();
    let mut brief = generate("hanging", "a");
    brief.options.max_tokens = Some(1);
    follow_generate(&mut client, &brief).reply();
    let worker = daemon.worker_pid();
    let told = follow_generate(&mut client, &generate("hanging", "a"));
    let error = told.error();
    assert_eq!(error.kind(), Some(ErrorKind::WorkerDied), "{error:?}");
    assert!(error.message.contains("stopped responding"), "{error:?}");
    assert!(error.hint().is_some_and(|hint| hint.contains("engine.stall_seconds")), "{error:?}");
    eventually_is("the worker to be gone", || !is_alive(worker));
    follow_generate(&mut client, &brief).reply();
    assert_ne!(daemon.worker_pid(), worker);
}

#[test]
fn a_worker_that_stands_still_is_ended_also_after_everybody_gave_up() {
    let daemon = TestDaemon::builder().config("[engine]\nstall_seconds = 2").start();
    daemon.endless("endless");
    let mut client = daemon.client();
    let mut stream = client.stream::<Generate>(&generate("endless", "once")).unwrap();
    while !matches!(stream.next_event().unwrap(), Some(Event::Delta { .. })) {}
    let worker = daemon.worker_pid();
    signal_process(worker, Signal::STOP);
    drop(client);
    daemon.await_idle();
    eventually_is("the worker to be gone", || !is_alive(worker));
}

#[test]
fn a_worker_that_stands_still_is_ended() {
    let daemon = TestDaemon::builder().config("[engine]\nstall_seconds = 2").start();
    daemon.endless("endless");
    let mut client = daemon.client();
    let mut stream = client.stream::<Generate>(&generate("endless", "once")).unwrap();
    while !matches!(stream.next_event().unwrap(), Some(Event::Delta { .. })) {}
    signal_process(daemon.worker_pid(), Signal::STOP);
    let last = std::iter::from_fn(|| stream.next_event().unwrap()).last();
    let Some(Event::Error { error }) = last else { panic!("{last:?}") };
    assert!(error.message.contains("stopped responding"), "{error:?}");
}

#[test]
fn work_that_takes_longer_than_a_step_may_and_a_worker_that_rests_are_left_alone() {
    let daemon = TestDaemon::builder().config("[engine]\nstall_seconds = 4").start();
    daemon.model("resting", &[]);
    // All of its text is held back to the end: nothing but steps shows that it is alive.
    let script = "x".repeat(19);
    daemon.model(
        "long",
        &[("script", script.as_str().into()), ("slow_us_per_decode", 300_000.into())],
    );
    let mut client = daemon.client();
    follow_generate(&mut client, &generate("resting", "once")).reply();
    let worker = daemon.worker_pid();
    let mut params = chat("long", "hi");
    params.options.stop = vec![format!("{script}y")];
    let told = follow(&mut client, &params);
    assert_eq!(told.text, script);
    let resting = daemon.loaded().into_iter().find(|model| model.name == "resting:latest");
    assert_eq!(resting.unwrap().pid, worker);
}

#[test]
fn a_model_at_work_is_not_unloaded_however_short_its_time() {
    let daemon = TestDaemon::start();
    daemon.endless("endless");
    let mut params = generate("endless", "once");
    params.keep_alive = Some(KeepAlive(0.001));
    params.options.max_tokens = Some(20);
    assert_eq!(follow_generate(&mut daemon.client(), &params).text.len(), 20);
    eventually_is("the model to be unloaded", || daemon.loaded().is_empty());
}

#[test]
fn two_names_of_one_model_share_a_worker() {
    let daemon = TestDaemon::start();
    daemon.model("one", &[]);
    daemon.import(&daemon.dir().join("one.gguf"), "two", ImportMode::Copy);
    for name in ["one", "two"] {
        daemon.client().call::<Generate>(&generate(name, "x")).unwrap();
    }
    assert_eq!(daemon.loaded().len(), 1);
}

#[test]
fn another_model_is_served_while_one_loads_one_crashes_and_one_hangs() {
    let daemon = TestDaemon::builder().config("max_loaded_models = 9").start();
    daemon.model("late", &[("open_ms", 600_000.into())]);
    daemon.model("hangs", &[("hang_after", 0.into()), ("hang_hard", true.into())]);
    daemon.model("crashes", &[("crash_open", true.into())]);
    daemon.model("well", &[("script", "I am well.".into())]);
    let raw = daemon.raw();
    for (id, model) in [(1, "late"), (2, "hangs")] {
        raw.send_call(id, "generate", &json!({ "model": model, "prompt": "x" }));
    }
    eventually_is("both to be started", || daemon.loaded().len() == 2);
    for _ in 0..3 {
        follow(&mut daemon.client(), &chat("crashes", "hi")).error();
        assert_eq!(follow(&mut daemon.client(), &chat("well", "hi")).text, "I am well.");
    }
}
