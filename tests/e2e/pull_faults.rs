//! Pulling over a network that breaks, from servers that lie.

use crate::pull::{MIB, blob_path, noise, params, partials, pull, source};
use hearth_protocol::{ErrorKind, ModelPull};
use hearth_tests::{Fault, FaultProxy, Registry, TestDaemon, WebRequest, refused};
use std::fs;

/// Four parts, so that there is a first, a last and some between.
const SIZE: usize = 100 * MIB + 1;

fn is_part(request: &WebRequest) -> bool {
    request.message.headers.contains_key("range")
}

/// Pulls a model of which the first parts asked for suffer, and expects it whole.
#[track_caller]
fn survives(faults: &'static [Fault], config: &str) -> FaultProxy {
    let registry = Registry::start();
    let weights = noise(SIZE);
    registry.push("library/m", &[("model", &weights)]);
    let proxy = FaultProxy::start(registry.host(), |request, n| {
        if is_part(request) { faults.get(n).copied().unwrap_or(Fault::None) } else { Fault::None }
    });
    let daemon = TestDaemon::builder().config(config).start();
    pull(&daemon, &source(&proxy.host()));
    assert!(fs::read(blob_path(&daemon, &weights)).unwrap() == weights, "the content is another");
    assert_eq!(partials(&daemon), 0);
    proxy
}

#[test]
fn connections_that_are_reset_or_end_early() {
    survives(&[Fault::Reset, Fault::Truncate, Fault::Reset, Fault::Reset, Fault::Truncate], "");
}

#[test]
fn connections_that_bring_nothing_any_more() {
    let stalls = &[Fault::StallAfter(3 * MIB + 5), Fault::StallAfter(0), Fault::StallAfter(MIB)];
    let proxy = survives(stalls, "[pull]\nstall_seconds = 1");
    // Whole pieces of a part that stalled are not asked for again.
    assert!(proxy.n_blob_bytes() < SIZE + 4 * MIB + 5 * MIB, "{}", proxy.n_blob_bytes());
}

#[test]
fn servers_that_are_busy() {
    survives(&[Fault::Status(429), Fault::Status(503), Fault::Status(500), Fault::Status(502)], "");
}

#[test]
fn ranges_that_are_others_than_asked_for() {
    survives(&[Fault::WrongRange, Fault::WrongRange, Fault::WrongRange], "");
}

#[test]
fn servers_without_ranges_are_read_once() {
    let all = &[Fault::NoRanges; 64];
    let proxy = survives(all, "");
    let n_whole =
        proxy.passed().into_iter().filter(|one| one.range.is_none() && one.n_bytes == SIZE);
    assert_eq!(n_whole.count(), 1, "{:?}", proxy.passed());
}

#[test]
fn wrong_bytes_are_never_a_blob_and_the_next_pull_begins_anew() {
    let registry = Registry::start();
    let weights = noise(3 * MIB);
    registry.push("library/m", &[("model", &weights)]);
    let wrong = hearth_tests::digest(&weights);
    let proxy = FaultProxy::start(registry.host(), move |request, n| {
        if request.path.ends_with(&wrong) && n == 0 { Fault::WrongByte } else { Fault::None }
    });
    let daemon = TestDaemon::start();
    let error =
        refused(daemon.client().call::<ModelPull>(&source(&proxy.host())), ErrorKind::Network);
    assert!(error.message.contains("digest") && error.hint().is_some(), "{error:?}");
    assert!(!blob_path(&daemon, &weights).exists());
    assert!(!daemon.dir().join("models/manifests").join(proxy.host()).exists());
    pull(&daemon, &source(&proxy.host()));
    assert_eq!(fs::read(blob_path(&daemon, &weights)).unwrap(), weights);
}

#[test]
fn a_fault_that_stays_ends_the_pull_and_what_came_is_kept() {
    let registry = Registry::start();
    let weights = noise(40 * MIB);
    registry.push("library/m", &[("model", &weights)]);
    let proxy = FaultProxy::start(registry.host(), |request, n| match (is_part(request), n) {
        (false, _) => Fault::None,
        (true, 0) => Fault::Truncate,
        (true, _) => Fault::Status(503),
    });
    let daemon = TestDaemon::start();
    let error =
        refused(daemon.client().call::<ModelPull>(&source(&proxy.host())), ErrorKind::Network);
    assert!(error.message.contains("503"), "{error:?}");
    assert_eq!(partials(&daemon), 1);
    assert!(!blob_path(&daemon, &weights).exists());
    daemon.status();
}

#[test]
fn a_hostile_registry_is_an_error() {
    let registry = Registry::start();
    registry.push("library/m", &[("model", &noise(MIB))]);
    let daemon = TestDaemon::start();
    for scheme in ["file", "ftp", "gopher"] {
        let proxy = FaultProxy::start(registry.host(), move |_, _| Fault::RedirectTo(scheme));
        let error = daemon.client().call::<ModelPull>(&source(&proxy.host()));
        let error = refused(error, ErrorKind::Network);
        assert!(error.message.contains(scheme), "{error:?}");
    }
    let huge = serde_json::json!({
        "schemaVersion": 2,
        "config": { "mediaType": "application/vnd.docker.container.image.v1+json", "digest": hearth_tests::digest(b"c"), "size": 1 },
        "layers": [{ "mediaType": "application/vnd.ollama.image.model", "digest": hearth_tests::digest(b"m"), "size": u64::MAX }],
    });
    for body in [huge.to_string(), "[".repeat(100_000), "x".repeat(5 << 20)] {
        let server = hearth_tests::WebServer::start(move |_, stream| {
            use std::io::Write;
            let reply = hearth_tests::WebReply::new(200, body.clone());
            let _ = stream.write_all(reply.head(body.len()).as_bytes());
            let _ = stream.write_all(body.as_bytes());
        });
        let params = params(format!("http://{}/library/m", server.host()));
        let error = daemon.client().call::<ModelPull>(&params);
        assert!(hearth_tests::error_of(error).kind() != Some(ErrorKind::Internal));
    }
    daemon.status();
}
