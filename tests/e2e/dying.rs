//! Processes that die: the worker at any moment, the daemon without a word.

use hearth_protocol::{
    ErrorKind, Event, Generate, GenerateReply, LoadParams, ModelLoad, ModelParams, ModelUnload,
    Stream,
};
use hearth_tests::{
    TestDaemon, eventually_is, follow_generate, generate, is_alive, refused, signal_process,
};
use rustix::process::Signal;

#[track_caller]
fn await_text(stream: &mut Stream<'_, Generate>) {
    while !matches!(stream.next_event().unwrap(), Some(Event::Delta { .. })) {}
}

#[track_caller]
fn last(stream: &mut Stream<'_, Generate>) -> Event<GenerateReply> {
    std::iter::from_fn(|| stream.next_event().unwrap()).last().unwrap()
}

#[test]
fn killing_a_worker_is_an_error_with_a_hint_and_the_next_request_loads_again() {
    let daemon = TestDaemon::start();
    daemon.endless("endless");
    let mut client = daemon.client();
    let mut stream = client.stream::<Generate>(&generate("endless", "once")).unwrap();
    await_text(&mut stream);
    let first = daemon.worker_pid();
    signal_process(first, Signal::KILL);
    let Event::Error { error } = last(&mut stream) else {
        panic!("the stream did not end with an error")
    };
    assert_eq!(error.kind(), Some(ErrorKind::WorkerDied));
    assert!(error.message.contains("signal 9"), "{}", error.message);
    assert!(error.hint().is_some_and(|hint| hint.contains("again")), "{error:?}");
    let mut again = generate("endless", "once");
    again.options.max_tokens = Some(3);
    assert!(!follow_generate(&mut client, &again).text.is_empty());
    assert_ne!(daemon.worker_pid(), first);
}

#[test]
fn a_plugin_that_crashes_in_a_decode_costs_its_own_requests() {
    let daemon = TestDaemon::start();
    daemon.model("crashing", &[("crash_after", 3.into()), ("eos_one_in", 0.into())]);
    daemon.model("well", &[]);
    let mut client = daemon.client();
    let told = follow_generate(&mut client, &generate("crashing", "once"));
    assert_eq!(told.error().kind(), Some(ErrorKind::WorkerDied));
    assert!(told.error().message.contains("signal 6 (abort)"), "{:?}", told.error());
    follow_generate(&mut client, &generate("well", "once")).reply();
}

#[test]
fn a_plugin_that_fails_in_a_decode_is_an_error_and_loads_again() {
    let daemon = TestDaemon::start();
    daemon.model("failing", &[("fail_decode_after", 3.into()), ("eos_one_in", 0.into())]);
    let mut client = daemon.client();
    for _ in 0..2 {
        let told = follow_generate(&mut client, &generate("failing", "once"));
        assert_eq!(told.error().kind(), Some(ErrorKind::WorkerDied), "{:?}", told.error());
        assert!(told.error().hint().is_some());
    }
}

#[test]
fn a_model_that_cannot_be_opened_says_why_and_one_that_crashes_says_how() {
    let daemon = TestDaemon::start();
    daemon.model("failing", &[("fail_open", true.into())]);
    daemon.model("crashing", &[("crash_open", true.into())]);
    let mut client = daemon.client();
    let mut load = |name: &str| {
        let error = client.call::<ModelLoad>(&LoadParams {
            model: name.into(),
            draft: None,
            keep_alive: None,
            request: None,
        });
        hearth_tests::error_of(error)
    };
    assert_eq!(load("failing").kind(), Some(ErrorKind::LoadFailed));
    let crashed = load("crashing");
    assert_eq!(crashed.kind(), Some(ErrorKind::LoadFailed));
    assert!(crashed.message.contains("abort") && crashed.hint().is_some(), "{crashed:?}");
    eventually_is("no worker", || daemon.loaded().is_empty());
}

#[test]
fn a_decode_that_hangs_can_be_cancelled_and_its_model_unloaded() {
    let daemon = TestDaemon::start();
    daemon.model(
        "hanging",
        &[("hang_after", 2.into()), ("hang_hard", true.into()), ("eos_one_in", 0.into())],
    );
    let mut client = daemon.client();
    let mut params = generate("hanging", "once");
    params.request = Some("mine".into());
    let mut stream = client.stream::<Generate>(&params).unwrap();
    await_text(&mut stream);
    let worker = daemon.worker_pid();
    daemon
        .client()
        .call::<hearth_protocol::CancelMethod>(&hearth_protocol::CancelParams {
            request: "mine".into(),
        })
        .unwrap();
    let Event::Error { error } = last(&mut stream) else { panic!("no error") };
    assert_eq!(error.kind(), Some(ErrorKind::Cancelled));
    let params = ModelParams { model: "hanging".into() };
    assert!(daemon.client().call::<ModelUnload>(&params).unwrap().unloaded);
    eventually_is("the end of the worker", || !is_alive(worker));
}

#[test]
fn unloading_in_the_middle_of_an_answer_ends_it_with_an_error() {
    let daemon = TestDaemon::start();
    daemon.endless("endless");
    let mut client = daemon.client();
    let mut stream = client.stream::<Generate>(&generate("endless", "once")).unwrap();
    await_text(&mut stream);
    daemon.ctl(["stop", "endless"]).ok();
    let Event::Error { error } = last(&mut stream) else { panic!("no error") };
    assert_eq!(error.kind(), Some(ErrorKind::WorkerDied));
    assert!(error.message.contains("unloaded"), "{error:?}");
    refused(
        daemon.client().call::<ModelUnload>(&ModelParams { model: "nobody".into() }),
        ErrorKind::ModelNotFound,
    );
}

#[test]
fn killing_the_daemon_ends_its_workers_and_leaves_the_socket_free() {
    let mut daemon = TestDaemon::start();
    daemon.endless("endless");
    let mut client = daemon.client();
    let mut stream = client.stream::<Generate>(&generate("endless", "once")).unwrap();
    await_text(&mut stream);
    let worker = daemon.worker_pid();
    daemon.kill();
    eventually_is("the end of the worker", || !is_alive(worker));
    assert!(daemon.socket().exists(), "a daemon that was killed cannot have removed its socket");
    daemon.restart();
    assert_eq!(daemon.ctl(["ls", "--json"]).json()["models"][0]["name"], "endless:latest");
}

#[test]
fn killing_the_daemon_ends_a_worker_that_hangs() {
    let mut daemon = TestDaemon::start();
    daemon.model(
        "hanging",
        &[("hang_after", 2.into()), ("hang_hard", true.into()), ("eos_one_in", 0.into())],
    );
    let mut client = daemon.client();
    let mut stream = client.stream::<Generate>(&generate("hanging", "once")).unwrap();
    await_text(&mut stream);
    let worker = daemon.worker_pid();
    daemon.kill();
    eventually_is("the end of the worker", || !is_alive(worker));
}

#[test]
fn a_model_nobody_uses_is_unloaded_after_its_time_and_loaded_again_when_asked_for() {
    let daemon = TestDaemon::builder().config("keep_alive = \"0.2\"").start();
    daemon.model("brief", &[]);
    follow_generate(&mut daemon.client(), &generate("brief", "once")).reply();
    eventually_is("the model to go", || daemon.loaded().is_empty());
    follow_generate(&mut daemon.client(), &generate("brief", "once")).reply();
}

#[test]
fn one_model_too_many_unloads_the_one_used_longest_ago() {
    let daemon = TestDaemon::builder().config("max_loaded_models = 2").start();
    let mut client = daemon.client();
    for name in ["one", "two", "three"] {
        daemon.model(name, &[("seed", u64::from(name.as_bytes()[1]).into())]);
        follow_generate(&mut client, &generate(name, "once")).reply();
    }
    let names: Vec<String> = daemon.loaded().into_iter().map(|model| model.name).collect();
    assert_eq!(names, ["three:latest", "two:latest"]);
}

#[test]
fn one_model_too_many_waits_where_all_are_at_work() {
    let daemon = TestDaemon::builder().config("max_loaded_models = 1").start();
    daemon.endless("busy");
    daemon.model("next", &[]);
    let waiting = std::thread::scope(|scope| {
        let mut client = daemon.client();
        let mut answer = client.stream::<Generate>(&generate("busy", "on and on")).unwrap();
        await_text(&mut answer);
        let waiting =
            scope.spawn(|| follow_generate(&mut daemon.client(), &generate("next", "once")));
        eventually_is("somebody to wait", || daemon.log().contains("Waiting for a place"));
        assert_eq!(daemon.loaded()[0].name, "busy:latest");
        drop(answer);
        drop(client);
        waiting.join().unwrap()
    });
    waiting.reply();
    let names: Vec<String> = daemon.loaded().into_iter().map(|model| model.name).collect();
    assert_eq!(names, ["next:latest"]);
}
