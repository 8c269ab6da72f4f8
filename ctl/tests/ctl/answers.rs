//! `ctl run`, and `ctl chat` without a terminal: what is sent, what is printed, and how each ending ends.

use crate::support::{Call, FakeDaemon, Ran};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::io::Read as _;
use std::process::Child;
use std::sync::mpsc;

fn delta(text: &str) -> Value {
    json!({ "type": "delta", "text": text })
}

fn accepted(call: &Call) -> Value {
    json!({ "type": "accepted", "request": call.params["request"] })
}

fn done(call: &Call, text: &str, finish: &str) -> Value {
    json!({ "type": "done", "reply": {
        "request": call.params["request"],
        "message": { "role": "assistant", "content": text },
        "finish": finish,
        "usage": { "prompt_tokens": 12, "cached_tokens": 0, "completion_tokens": 3 },
        "timings": { "load_us": 0, "queue_us": 0, "prefill_us": 40_000, "decode_us": 50_000 }
    }})
}

fn hello(call: &Call) {
    call.stream(&[
        accepted(call),
        json!({ "type": "loading", "fraction": 0.5 }),
        json!({ "type": "queued", "place": 1 }),
        json!({ "type": "prefill", "done": 4, "total": 12 }),
        json!({ "type": "reasoning", "text": "hm" }),
        delta("Hel"),
        json!({ "type": "weather", "sun": true }),
        delta("lo \u{1b}[31m!"),
        done(call, "Hello \u{1b}[31m!", "end"),
    ]);
}

fn messages(daemon: &FakeDaemon) -> Value {
    daemon.calls().last().unwrap().1["messages"].clone()
}

#[test]
fn an_answer_is_printed_as_it_is_and_reasoning_is_not() {
    let daemon = FakeDaemon::start(hello);
    // Into a pipe goes exactly what the model wrote.
    daemon.ctl(&["run", "m", "say", "hello"]).is(0, "Hello \u{1b}[31m!\n", "");
    let (method, mut params) = daemon.calls().remove(0);
    assert!(params["request"].take().as_str().unwrap().starts_with("ctl-"));
    assert_eq!(method, "chat.send.stream");
    assert_eq!(
        params,
        json!({
            "model": "m", "messages": [{ "role": "user", "content": "say hello" }],
            "tool_choice": "auto", "options": {}, "request": null
        })
    );
}

#[test]
fn options_are_sent() {
    let daemon = FakeDaemon::start(hello);
    let args = "run m hi --system brief --temperature -0.5 --seed 7 --max-tokens 9 --no-think --keep-alive 0";
    let args: Vec<&str> = args.split(' ').collect();
    assert_eq!(daemon.ctl(&args).code, Some(0));
    let params = daemon.calls().remove(0).1;
    assert_eq!(params["messages"][0], json!({ "role": "system", "content": "brief" }));
    assert_eq!(params["options"], json!({ "temperature": -0.5, "seed": 7, "max_tokens": 9 }));
    assert_eq!((&params["think"], &params["keep_alive"]), (&json!(false), &json!(0.0)));
}

#[test]
fn switches_are_sent_and_the_other_answers_printed() {
    let daemon = FakeDaemon::start(|call| {
        let mut end = done(call, "one", "end");
        let other =
            json!({ "message": { "role": "assistant", "content": "two" }, "finish": "end" });
        end["reply"]["others"] = json!([other]);
        end["reply"]["usage"]["dropped_messages"] = 4.into();
        let of_the_other = json!({ "type": "delta", "candidate": 1, "text": "two" });
        call.stream(&[accepted(call), of_the_other, delta("one"), end]);
    });
    let args = "run m hi --candidates 2 --truncate --shift --deterministic";
    let args: Vec<&str> = args.split(' ').collect();
    daemon.ctl(&args).is(0, "one\n---\ntwo\n", "[the oldest 4 messages were left out]\n");
    let options = &daemon.calls()[0].1["options"];
    let switches =
        json!({ "candidates": 2, "truncate": true, "shift": true, "deterministic": true });
    assert_eq!(options, &switches);
}

#[test]
fn stdin_follows_the_prompt() {
    let daemon = FakeDaemon::start(hello);
    assert_eq!(daemon.ctl_with_stdin(&["run", "m", "sum up"], "a\nb\n").code, Some(0));
    assert_eq!(messages(&daemon), json!([{ "role": "user", "content": "sum up\n\na\nb" }]));
    assert_eq!(daemon.ctl_with_stdin(&["run", "m"], "all of it").code, Some(0));
    assert_eq!(messages(&daemon), json!([{ "role": "user", "content": "all of it" }]));
    assert_eq!(daemon.ctl_with_stdin(&["chat", "m"], "one\ntwo\n").code, Some(0));
    assert_eq!(messages(&daemon), json!([{ "role": "user", "content": "one\ntwo" }]));
}

#[test]
fn json_prints_every_event_as_it_came() {
    let daemon = FakeDaemon::start(hello);
    let ran = daemon.ctl(&["run", "--json", "m", "hi"]);
    let events: Vec<Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(
        kinds,
        [
            "accepted",
            "loading",
            "queued",
            "prefill",
            "reasoning",
            "delta",
            "weather",
            "delta",
            "done"
        ]
    );
    assert_eq!(events[6], json!({ "type": "weather", "sun": true }));
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
}

#[test]
fn an_answer_of_one_token_is_cut_after_one() {
    let daemon = FakeDaemon::start(|call| {
        let mut end = done(call, "a", "max_tokens");
        end["reply"]["usage"]["completion_tokens"] = 1.into();
        call.stream(&[delta("a"), end]);
    });
    daemon.ctl(&["run", "m", "hi"]).is(0, "a\n", "[cut after 1 token, the limit set]\n");
}

#[test]
fn a_cut_answer_says_so_and_verbose_counts() {
    let daemon = FakeDaemon::start(|call| {
        call.stream(&[delta("a b c\n"), done(call, "a b c\n", "max_tokens")]);
    });
    daemon.ctl(&["run", "m", "hi", "-v"]).is(
        0,
        "a b c\n",
        "\
[cut after 3 tokens, the limit set]
3 tokens in 0.05 s · 40.0 tokens/s · prompt 12 tokens in 0.04 s
",
    );
}

#[test]
fn an_error_in_the_middle() {
    let error = json!({
        "code": -32004, "message": "the worker died",
        "data": { "kind": "worker_died", "hint": "ask again, it is loaded anew" }
    });
    let daemon = FakeDaemon::start(move |call| {
        call.stream(&[delta("Half"), json!({ "type": "error", "error": error })]);
    });
    let words = "error: the worker died\nhint: ask again, it is loaded anew\n";
    daemon.ctl(&["run", "m", "hi"]).is(1, "Half\n", words);
    let ran = daemon.ctl(&["run", "m", "hi", "--json"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), words));
    assert_eq!(ran.stdout.lines().count(), 2);
}

#[test]
fn a_connection_that_breaks_in_the_middle() {
    let daemon = FakeDaemon::start(|call| {
        call.stream(&[delta("Half")]);
        call.hang_up();
    });
    daemon.ctl(&["run", "m", "hi"]).is(
        1,
        "Half\n",
        "\
error: the daemon went away in the middle of the answer
hint: it was stopped or it crashed; its log says which
",
    );
}

#[test]
fn a_broken_event_is_an_error_and_not_lost_text() {
    let daemon = FakeDaemon::start(|call| match call.method.as_str() {
        "daemon.status" => call.reply(&json!({ "version": "0.2.0" })),
        _ => call.stream(&[
            delta("a"),
            json!({ "type": "delta", "txt": "b" }),
            done(call, "ab", "end"),
        ]),
    });
    let ran = daemon.ctl(&["run", "m", "hi"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), "a\n"));
    assert!(
        ran.stderr.contains("missing field `text`\nhint: ctl is version 0.1.0"),
        "{}",
        ran.stderr
    );
}

#[test]
fn chat_takes_the_only_model_and_asks_which_of_several() {
    fn choosing(loaded: &'static [&str], stored: &'static [&str]) -> FakeDaemon {
        let running = |name: &&str| {
            json!({
                "name": name, "id": "", "state": "ready", "backend": "cpu", "pid": 1, "description": "",
                "context": 1, "active_requests": 0, "rss_bytes": 1, "expires_s": null
            })
        };
        let summary = |name: &&str| {
            json!({
                "name": name, "id": "", "size_bytes": 1, "modified_s": 1, "family": "",
                "parameter_size": "", "quantization": ""
            })
        };
        let loaded: Vec<Value> = loaded.iter().map(running).collect();
        let stored: Vec<Value> = stored.iter().map(summary).collect();
        FakeDaemon::start(move |call| match call.method.as_str() {
            "model.ps" => call.reply(&json!({ "models": loaded })),
            "model.list" => call.reply(&json!({ "models": stored, "problems": [] })),
            _ => hello(call),
        })
    }
    for (daemon, model) in [(choosing(&["b"], &["a", "b", "c"]), "b"), (choosing(&[], &["a"]), "a")]
    {
        assert_eq!(daemon.ctl_with_stdin(&["chat"], "hi").code, Some(0));
        assert_eq!(daemon.calls().last().unwrap().1["model"], model);
    }
    choosing(&[], &["a", "b", "c"]).ctl_with_stdin(&["chat"], "hi").is(
        2,
        "",
        "\
error: which model? The store has `a`, `b` and `c`
hint: name one, such as `a`
",
    );
    choosing(&[], &[]).ctl_with_stdin(&["chat"], "hi").is(
        1,
        "",
        "error: no models in the store\nhint: `ctl pull smollm2:135m` fetches a small one, `ctl import FILE.gguf NAME` brings in a file\n",
    );
}

/// Starts `ctl` and waits until it has printed `text`.
fn spawn_until(daemon: &FakeDaemon, args: &[&str], text: &str) -> Child {
    let mut child = daemon.command(args).spawn().unwrap();
    drop(child.stdin.take());
    let mut printed = vec![0; text.len()];
    child.stdout.as_mut().unwrap().read_exact(&mut printed).unwrap();
    assert_eq!(printed, text.as_bytes());
    child
}

fn press_ctrl_c(child: &Child) {
    kill_process(Pid::from_child(child), Signal::INT).unwrap();
}

#[test]
fn ctrl_c_cancels_and_keeps_what_came() {
    let daemon = FakeDaemon::start(|call| match call.method.as_str() {
        "cancel" => {
            call.reply(&json!({ "cancelled": true }));
            let error =
                json!({ "code": -32007, "message": "cancelled", "data": { "kind": "cancelled" } });
            call.event_of("chat.send", &delta(" upon"));
            call.event_of("chat.send", &json!({ "type": "error", "error": error }));
        }
        _ => call.stream(&[accepted(call), delta("Once")]),
    });
    let child = spawn_until(&daemon, &["run", "m", "hi"], "Once");
    press_ctrl_c(&child);
    Ran::from(child.wait_with_output().unwrap()).is(130, " upon\n", "");
    let calls = daemon.calls();
    assert_eq!(calls[1].0, "cancel");
    assert_eq!(calls[1].1["request"], calls[0].1["request"]);
}

#[test]
fn a_second_ctrl_c_leaves_a_daemon_that_hangs() {
    let (sender, cancels) = mpsc::channel();
    let daemon = FakeDaemon::start(move |call| match call.method.as_str() {
        "cancel" => sender.send(()).unwrap(),
        _ => call.stream(&[accepted(call), delta("Once")]),
    });
    let child = spawn_until(&daemon, &["run", "m", "hi"], "Once");
    press_ctrl_c(&child);
    cancels.recv().unwrap();
    press_ctrl_c(&child);
    Ran::from(child.wait_with_output().unwrap()).is(130, "\n", "");
}

#[test]
fn ctrl_c_ends_a_plain_call() {
    let (sender, called) = mpsc::channel();
    let daemon = FakeDaemon::start(move |_| sender.send(()).unwrap());
    let child = daemon.command(&["ls"]).spawn().unwrap();
    called.recv().unwrap();
    press_ctrl_c(&child);
    Ran::from(child.wait_with_output().unwrap()).is(130, "", "");
}
