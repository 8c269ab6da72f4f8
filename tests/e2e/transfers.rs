//! What a person sees of a pull and a push at a terminal, and how a limit holds them back.

use crate::pull::{MIB, noise, params, pull, source};
use hearth_protocol::ModelPull;
use hearth_tests::{
    Fault, FaultProxy, Registry, Terminal, TestDaemon, WebServer, ctl_path, eventually_is,
};
use std::io::Write;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const COLUMNS: u16 = 60;
const ROWS: NonZero<u16> = NonZero::new(50).unwrap();

/// Runs `ctl` at a terminal to its end, and gives the rows of each picture that it drew.
#[track_caller]
fn pictures(daemon: &TestDaemon, args: &[&str]) -> Vec<Vec<String>> {
    let mut command = daemon.command(ctl_path());
    command.args(args).env("TERM", "xterm-256color");
    let mut terminal = Terminal::start(&mut command, COLUMNS);
    assert!(terminal.await_end().success());
    eventually_is("the last of the output", || {
        terminal.text().contains(" kB") || terminal.text().contains(" MB")
    });
    let bytes = terminal.bytes();
    let mut parser = vt100::Parser::new(ROWS, NonZero::new(COLUMNS).unwrap(), 0);
    let mut pictures = Vec::new();
    // What is drawn ends with erasing what is below.
    for picture in String::from_utf8_lossy(&bytes).split_inclusive("\x1b[J") {
        parser.process(picture.as_bytes());
        let rows = parser.screen().rows(0, COLUMNS).map(|row| row.trim_end().to_owned());
        if picture.ends_with("\x1b[J") {
            pictures.push(rows.filter(|row| !row.is_empty()).collect());
        }
    }
    pictures
}

/// Expects one row for each of three layers, none too wide, and no bar that goes back.
#[track_caller]
fn are_true(pictures: &[Vec<String>]) {
    assert!(pictures.len() > 1, "{pictures:?}");
    let mut last = [0; 3];
    for rows in pictures {
        assert_eq!(rows.len(), 3, "{rows:?}");
        for (row, last) in rows.iter().zip(&mut last) {
            assert!(row.chars().count() < usize::from(COLUMNS), "{row}");
            let percent = row.split(" %").next().filter(|_| row.contains(" %"));
            let percent = percent.and_then(|text| text.rsplit(' ').next()?.parse::<u32>().ok());
            let full = row.chars().filter(|c| *c == '█').count();
            let now = percent.unwrap_or(0);
            assert!(now >= *last, "{row} after {last} %");
            // 24 cells.
            assert!((now * 24 / 100).abs_diff(u32::try_from(full).unwrap()) <= 1, "{row}");
            *last = now;
        }
    }
    assert_eq!(last, [100; 3]);
}

#[test]
fn bars_at_a_terminal_never_go_back() {
    let registry = Registry::start();
    registry.push("library/m", &[("model", &noise(70 * MIB)), ("license", &noise(MIB))]);
    // Connections that break, so that there is something to go back from.
    let proxy = FaultProxy::start(registry.host(), |request, n| {
        let is_part = request.message.headers.contains_key("range");
        if is_part && n < 3 { Fault::Reset } else { Fault::None }
    });
    let daemon = TestDaemon::start();
    let from = format!("http://{}/library/m", proxy.host());
    are_true(&pictures(&daemon, &["pull", &from, "mine"]));
    let n_before = AtomicUsize::new(0);
    let proxy = FaultProxy::start(registry.host(), move |request, _| {
        let is_chunk = request.method == "PATCH" && request.message.body.len() > MIB;
        let n = if is_chunk { n_before.fetch_add(1, Ordering::Relaxed) } else { 0 };
        if matches!(n, 2 | 4) { Fault::Cut } else { Fault::None }
    });
    let to = format!("http://{}/other/m", proxy.host());
    are_true(&pictures(&daemon, &["push", "mine", &to]));
}

/// What is read of the limited download cannot be all of it before the other, which began later, is done.
#[test]
fn a_limit_holds_back_what_the_server_can_send() {
    let registry = Registry::start();
    let weights = noise(64 * MIB);
    registry.push("library/m", &[("model", &weights)]);
    let sent = Arc::new(AtomicUsize::new(0));
    let (count, body) = (Arc::clone(&sent), weights.clone());
    let server = WebServer::start(move |_, stream| {
        let reply = hearth_tests::WebReply::new(200, "");
        let _ = stream.write_all(reply.head(body.len()).as_bytes());
        for piece in body.chunks(64 << 10) {
            if stream.write_all(piece).is_err() {
                return;
            }
            count.fetch_add(piece.len(), Ordering::Relaxed);
        }
    });
    let limited = TestDaemon::builder().config("[pull]\nbytes_per_second = 1000").start();
    let mut client = limited.client();
    let url = params(format!("http://{}/m.gguf", server.host()));
    let _stream = client.stream::<ModelPull>(&url).unwrap();
    eventually_is("the first bytes", || sent.load(Ordering::Relaxed) > 0);
    pull(&TestDaemon::start(), &source(registry.host()));
    assert!(sent.load(Ordering::Relaxed) < weights.len());
}
