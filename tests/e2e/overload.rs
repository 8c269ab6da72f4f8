//! Clients that read nothing, that vanish, and that come by the thousand.

use hearth_protocol::{DaemonStatus, Empty, Event, Generate};
use hearth_tests::{
    TestDaemon, eventually, eventually_is, follow_generate, generate, peak_rss_bytes,
};
use serde_json::json;
use std::io::Write;
use std::os::unix::net::UnixStream;

const MIB: u64 = 1 << 20;

#[test]
fn a_client_that_never_reads_stalls_nobody_and_takes_no_memory() {
    let daemon = TestDaemon::builder().config("[engine]\ncontext = 15000").start();
    // It writes as fast as it can, until its context is full.
    daemon.model("writes", &[("eos_one_in", 0.into()), ("context_length", 15_000.into())]);
    let silent = daemon.raw();
    for id in 0..4 {
        silent.send_call(id, "generate.stream", &json!({ "model": "writes", "prompt": "once" }));
    }
    eventually_is("four streams", || daemon.status().active_requests == 4);

    let mut wanted = generate("writes", "another text");
    wanted.options.max_tokens = Some(200);
    let told = follow_generate(&mut daemon.client(), &wanted);
    assert_eq!(told.reply().usage.completion_tokens, 200);

    // The engine does not wait for it either.
    eventually_is("the worker to be idle", || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.worker_pid())).unwrap();
        let written = daemon.status();
        assert!(written.active_requests <= 4);
        stat.contains(") S ")
    });
    let peak = peak_rss_bytes(daemon.pid());
    assert!(peak < 60 * MIB, "the daemon had {} MiB resident", peak / MIB);
    drop(silent);
    daemon.await_idle();
}

#[test]
fn a_client_that_never_reads_its_replies_is_not_read_either() {
    let daemon = TestDaemon::start();
    let silent = daemon.raw();
    silent.stream().set_nonblocking(true).unwrap();
    // Each call is 60 bytes and each reply 50 kB: it soon stops taking more.
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "rpc.discover" }).to_string();
    let mut n_written = 0;
    eventually_is("the daemon to stop reading", || {
        for _ in 0..1000 {
            match std::io::Write::write(&mut silent.stream(), call.as_bytes()) {
                Ok(n) => n_written += n,
                Err(_) => return true,
            }
        }
        assert!(n_written < 64 << 20, "it reads on and on");
        false
    });
    daemon.status();
    let peak = peak_rss_bytes(daemon.pid());
    assert!(peak < 120 * MIB, "the daemon had {} MiB resident", peak / MIB);
}

#[test]
fn a_client_that_vanishes_ends_its_requests() {
    let daemon = TestDaemon::start();
    daemon.endless("endless");
    for n_streams in [1, 20] {
        let mut raw = daemon.raw();
        let params = json!({ "model": "endless", "prompt": "once" });
        for id in 0..n_streams {
            raw.send_call(id, "generate.stream", &params);
        }
        for id in 0..n_streams {
            raw.send_call(100 + id, "generate", &params);
        }
        while raw.recv()["params"]["result"]["type"] != "delta" {}
        assert!(daemon.status().active_requests > 0);
        drop(raw);
        daemon.await_idle();
    }
}

#[test]
fn a_client_that_vanishes_while_nothing_is_sent_to_it_ends_its_call() {
    let daemon = TestDaemon::start();
    daemon.endless("endless");
    let params = json!({ "model": "endless", "prompt": "once" });
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "generate", "params": params });
    let body = call.to_string();
    let length = body.len();
    let post = format!(
        "POST /rpc HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    for said in [body, post] {
        let raw = daemon.raw();
        raw.write(said);
        eventually_is("the call to run", || daemon.status().active_requests == 1);
        drop(raw);
        daemon.await_idle();
    }
}

#[test]
fn a_client_that_vanishes_behind_more_calls_than_are_taken_at_once_ends_them_all() {
    let daemon = TestDaemon::start();
    daemon.endless("endless");
    let raw = daemon.raw();
    for id in 0..400 {
        raw.send_call(id, "generate", &json!({ "model": "endless", "prompt": "once" }));
    }
    eventually_is("many calls", || daemon.status().active_requests >= 256);
    drop(raw);
    daemon.await_idle();
}

#[test]
fn thousands_of_connections_one_after_another_leave_nothing_behind() {
    let daemon = TestDaemon::start();
    daemon.status();
    let n_files = || std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
    let before = n_files();
    for n in 0..3000 {
        let stream = UnixStream::connect(daemon.socket()).unwrap();
        if n % 3 == 0 {
            let _ = std::io::Write::write_all(&mut &stream, b"{");
        }
    }
    eventually_is("the connections to be closed", || n_files() <= before + 1);
    daemon.status();
}

#[test]
fn thousands_of_connections_at_once_are_served() {
    let daemon = TestDaemon::start();
    let connections: Vec<_> = (0..2000).map(|_| daemon.raw()).collect();
    for raw in &connections {
        raw.send_call(1, "daemon.status", &json!({}));
    }
    for mut raw in connections {
        assert_eq!(raw.recv()["result"]["pid"], daemon.pid());
    }
}

#[test]
fn a_low_limit_of_open_files_is_raised_as_far_as_it_goes() {
    let limits = ["sh", "-c", r#"ulimit -Sn 64 && ulimit -Hn 4000 && exec "$0" "$@""#];
    let daemon = TestDaemon::builder().wrapped(&limits).start();
    let connections: Vec<_> = (0..500).map(|_| daemon.raw()).collect();
    for raw in &connections {
        raw.send_call(1, "daemon.status", &json!({}));
    }
    for mut raw in connections {
        assert_eq!(raw.recv()["result"]["pid"], daemon.pid());
    }
}

#[test]
fn more_connections_than_may_be_wait_their_turn() {
    // With one or two, a quarter is none, and all are one user's.
    let daemon = TestDaemon::builder().config("max_connections = 2").start();
    // Connecting works at once; being answered has to wait.
    let mut connections: Vec<_> = (0..8).map(|_| daemon.raw()).collect();
    for raw in &connections {
        raw.send_call(1, "daemon.status", &json!({}));
    }
    for mut raw in connections.drain(..) {
        assert_eq!(raw.recv()["result"]["pid"], daemon.pid());
    }
}

#[test]
fn one_stream_too_many_on_a_connection_is_refused_and_the_others_go_on() {
    let daemon = TestDaemon::start();
    daemon.model("late", &[("open_ms", 600_000.into())]);
    let mut raw = daemon.raw();
    let params = json!({ "model": "late", "prompt": "x" });
    let calls = (0..1025).map(|id| {
        let call =
            json!({ "jsonrpc": "2.0", "id": id, "method": "generate.stream", "params": params });
        call.to_string()
    });
    let calls: String = calls.collect();
    let mut stream = raw.stream().try_clone().unwrap();
    let refused = std::thread::scope(|scope| {
        scope.spawn(move || stream.write_all(calls.as_bytes()).unwrap());
        loop {
            let message = raw.recv();
            if !message["error"].is_null() {
                break message;
            }
        }
    });
    assert_eq!(refused["error"]["data"]["kind"], "overloaded", "{refused}");
    assert!(refused["error"]["data"]["hint"].is_string(), "{refused}");
    eventually_is("all the others", || daemon.status().active_requests == 1024);
}

#[test]
fn one_user_may_have_three_quarters_of_the_connections() {
    let daemon = TestDaemon::builder().config("max_connections = 8").start();
    let status = json!({ "jsonrpc": "2.0", "id": 1, "method": "daemon.status" }).to_string();
    // A refused connection may be closed before anything is written to it.
    let connect = || {
        let mut raw = daemon.raw();
        let _ = raw.stream().write_all(status.as_bytes());
        let reply = raw.recv();
        (raw, reply)
    };
    // Connections that were closed a moment ago still count.
    let served = || {
        eventually("a connection", || {
            let (raw, reply) = connect();
            reply["result"]["pid"].is_number().then_some(raw)
        })
    };
    let mut connections: Vec<_> = (0..6).map(|_| served()).collect();
    let (_, refused) = connect();
    assert_eq!(refused["error"]["data"]["kind"], "overloaded", "{refused}");
    assert!(refused["error"]["data"]["hint"].is_string(), "{refused}");
    connections.pop();
    served();
}

#[test]
fn what_is_held_of_one_users_requests_is_bounded_however_many_connections_they_come_on() {
    let daemon = TestDaemon::builder().config("max_request_bytes = 1048576").start();
    daemon.model("late", &[("open_ms", 600_000.into())]);
    let prompt = "x".repeat(1_000_000);
    let call = |method: &str| {
        let params = json!({ "model": "late", "prompt": prompt });
        json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string()
    };
    // Streams and calls that wait for a load, and requests that never end.
    let running = daemon.raw();
    for method in ["generate.stream", "generate.stream", "generate.stream", "generate"] {
        running.write(call(method));
    }
    eventually_is("four requests", || daemon.status().active_requests == 4);
    let halves: Vec<_> = (0..20)
        .map(|_| {
            let half = daemon.raw();
            let _ = half.stream().write_all(&call("generate").as_bytes()[..1_000_000]);
            half
        })
        .collect();
    let mut refused = 0;
    for half in halves {
        half.half_close();
        let mut half = half;
        let kind = half.recv()["error"]["data"]["kind"].clone();
        refused += u32::from(kind == "overloaded");
        assert!(kind == "overloaded" || kind == "parse_error", "{kind}");
    }
    assert!(refused >= 16, "{refused} of 20 were refused");
    // What has ended counts no more.
    drop(running);
    daemon.await_idle();
    let again = daemon.raw();
    for _ in 0..7 {
        again.write(call("generate.stream"));
    }
    eventually_is("seven requests", || daemon.status().active_requests == 7);
}

#[test]
fn more_requests_than_may_wait_are_refused_as_overload() {
    let daemon = TestDaemon::builder().config("[engine]\nparallel = 1\nqueue = 2").start();
    daemon.endless("endless");
    let mut raw = daemon.raw();
    let params = json!({ "model": "endless", "prompt": "once" });
    raw.subscribe("generate.stream", &params);
    while raw.recv()["params"]["result"]["type"] != "delta" {}
    for id in 10..13 {
        raw.send_call(id, "generate.stream", &params);
    }
    let end = loop {
        let message = raw.recv();
        if message["params"]["result"]["type"] == "error" {
            break message["params"]["result"]["error"].clone();
        }
    };
    assert_eq!(end["data"]["kind"], "overloaded", "{end}");
    assert!(end["data"]["hint"].is_string(), "{end}");
}

#[test]
fn who_waits_is_told_the_place_in_the_queue() {
    let daemon = TestDaemon::builder().config("[engine]\nparallel = 1").start();
    daemon.endless("endless");
    let (mut first, mut second) = (daemon.client(), daemon.client());
    let mut params = generate("endless", "once");
    let mut running = first.stream::<Generate>(&params).unwrap();
    while !matches!(running.next_event().unwrap(), Some(Event::Delta { .. })) {}
    params.options.max_tokens = Some(1);
    let mut waiting = second.stream::<Generate>(&params).unwrap();
    let mut queued = || {
        let event = waiting.next_event().unwrap().expect("it ended");
        matches!(event, Event::Queued { place: 1, .. })
    };
    while !queued() {}
    // Whoever leaves makes room.
    drop(first);
    let last = std::iter::from_fn(|| waiting.next_event().unwrap()).last();
    let Some(Event::Done { reply }) = last else { panic!("{last:?}") };
    assert!(reply.timings.queue_us > 0);
    daemon.client().call::<DaemonStatus>(&Empty {}).unwrap();
}
