//! `ctl verify --repair`: what is damaged comes again from where it came.

use crate::pull::{MIB, blob_path, noise, params, pull, source};
use hearth_protocol::PullParams;
use hearth_tests::{Registry, TestDaemon, WebReply, WebServer, digest, reference_model};
use std::fs;
use std::io::Write;
use std::path::Path;

fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn blobs_of_a_registry_come_back_also_where_the_tag_has_moved() {
    let registry = Registry::start();
    let (weights, license) = (noise(3 * MIB), noise(MIB));
    registry.push("library/m", &[("model", &weights), ("license", &license)]);
    let daemon = TestDaemon::start();
    let named = PullParams { name: Some("mine".into()), ..source(registry.host()) };
    let pulled = pull(&daemon, &named);
    daemon.ctl(["cp", "mine", "twin"]).ok();
    registry.push("library/m", &[("model", b"another")]);
    damage(&blob_path(&daemon, &weights));
    fs::remove_file(blob_path(&daemon, &license)).unwrap();

    let found = daemon.ctl(["verify"]);
    assert_eq!(found.code, Some(1));
    assert!(found.stderr.contains("--repair"), "{found:?}");
    let repaired = daemon.ctl(["verify", "--repair"]).ok();
    assert!(repaired.contains("2 files repaired"), "{repaired}");
    assert!(fs::read(blob_path(&daemon, &weights)).unwrap() == weights, "the content is another");
    assert_eq!(fs::read(blob_path(&daemon, &license)).unwrap(), license);
    let shown = daemon.ctl(["ls", "--json"]).json();
    assert!(shown["models"].as_array().unwrap().iter().all(|model| model["id"] == *pulled.id));
    daemon.ctl(["verify"]).ok();
}

#[test]
fn a_file_behind_a_url_comes_back_unless_it_is_another_now() {
    let daemon = TestDaemon::start();
    let first = fs::read(reference_model(daemon.dir(), "first", &[])).unwrap();
    let other =
        fs::read(reference_model(daemon.dir(), "other", &[("script", "x".into())])).unwrap();
    let served = std::sync::Arc::new(std::sync::Mutex::new(first.clone()));
    let serves = std::sync::Arc::clone(&served);
    let server = WebServer::start(move |_, stream| {
        let body = serves.lock().unwrap().clone();
        let mut reply = WebReply::new(200, body);
        reply.message.headers.insert("etag".into(), digest(&reply.message.body));
        let _ = stream.write_all(reply.head(reply.message.body.len()).as_bytes());
        let _ = stream.write_all(&reply.message.body);
    });
    pull(&daemon, &params(format!("http://{}/m.gguf", server.host())));
    damage(&blob_path(&daemon, &first));
    daemon.ctl(["verify", "--repair"]).ok();
    assert_eq!(fs::read(blob_path(&daemon, &first)).unwrap(), first);

    *served.lock().unwrap() = other;
    damage(&blob_path(&daemon, &first));
    let failed = daemon.ctl(["verify", "--repair"]);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.stdout.contains("its content has digest"), "{failed:?}");
}

#[test]
fn what_came_from_this_machine_says_that_it_cannot_be_repaired() {
    // Nobody is asked outside of this machine.
    let daemon = TestDaemon::builder().env("HTTPS_PROXY", "http://127.0.0.1:1").start();
    daemon.model("local", &[]);
    let weights = fs::read(daemon.dir().join("local.gguf")).unwrap();
    damage(&blob_path(&daemon, &weights));
    let failed = daemon.ctl(["verify", "--repair", "local"]);
    assert_eq!(failed.code, Some(1));
    assert!(failed.stdout.contains("cannot be repaired"), "{failed:?}");
}
