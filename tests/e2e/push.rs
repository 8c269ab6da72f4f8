//! Pushing to a real registry: the same bytes elsewhere, nothing sent twice, over a network that breaks.

use crate::pull::{MIB, blob_path, noise, pull, source};
use hearth_protocol::{
    CancelMethod, CancelParams, CopyParams, ErrorKind, ModelCopy, ModelPush, PushParams,
    TransferEvent, TransferState,
};
use hearth_tests::{Fault, FaultProxy, Passed, Registry, TestDaemon, TokenServer, refused};
use std::fs;

/// Three chunks and a bit.
const SIZE: usize = 48 * MIB + 5;
const CHUNK: usize = 16 * MIB;

fn push_params(model: &str, target: String) -> PushParams {
    PushParams { model: model.into(), target: Some(target), insecure: false, request: None }
}

/// A daemon that has a model of these weights, pulled under the name `mine`.
fn daemon_with(weights: &[u8], config: &str) -> TestDaemon {
    let registry = Registry::start();
    registry.push("library/m", &[("model", weights), ("license", b"as you like")]);
    let daemon = TestDaemon::builder().config(config).start();
    let params =
        hearth_protocol::PullParams { name: Some("mine".into()), ..source(registry.host()) };
    pull(&daemon, &params);
    daemon
}

/// Pulls what was pushed by another daemon, and expects the same.
#[track_caller]
fn is_whole_at(registry: &Registry, path: &str, weights: &[u8], id: &str) {
    let other = TestDaemon::start();
    let params = crate::pull::params(format!("http://{}/{path}", registry.host()));
    assert_eq!(pull(&other, &params).id, id);
    assert!(fs::read(blob_path(&other, weights)).unwrap() == weights, "the content is another");
}

fn uploads(proxy: &FaultProxy) -> Vec<Passed> {
    proxy.passed().into_iter().filter(|one| one.method == "PATCH").collect()
}

#[test]
fn what_was_pushed_is_the_same_elsewhere_and_is_not_sent_again() {
    // "me:secret" in base64.
    let tokens = TokenServer::start("Basic bWU6c2VjcmV0");
    let weights = noise(SIZE);
    let secrets = tempfile::tempdir().unwrap();
    let secret = secrets.path().join("secret");
    fs::write(&secret, "me:secret\n").unwrap();
    let config =
        format!("[pull]\ncredentials = {{ \"{}\" = \"{}\" }}", tokens.host(), secret.display());
    let daemon = daemon_with(&weights, &config);
    let registry = Registry::start().with_auth(&tokens.auth());
    let proxy = FaultProxy::start(registry.host(), |_, _| Fault::None);

    let mut client = daemon.client();
    let params = push_params("mine", format!("http://{}/team/m:1", proxy.host()));
    let mut stream = client.stream::<ModelPush>(&params).unwrap();
    let (mut last, mut reply): (Vec<hearth_protocol::TransferBlob>, _) = (Vec::new(), None);
    while let Some(event) = stream.next_event().unwrap() {
        match event {
            TransferEvent::Progress { blobs } => {
                for (before, now) in std::iter::zip(&last, &blobs) {
                    assert!(before.state != now.state || before.done_bytes <= now.done_bytes);
                    assert!(now.done_bytes <= now.size_bytes);
                }
                last = blobs;
            }
            TransferEvent::Done { reply: done } => reply = Some(done),
            TransferEvent::Accepted { .. } => {}
            TransferEvent::Error { error } => panic!("{error:?}"),
        }
    }
    assert_eq!(last.len(), 3);
    assert!(last.iter().all(|blob| blob.state == TransferState::Done), "{last:?}");
    let reply = reply.unwrap();
    assert_eq!((&*reply.name, reply.host), ("team/m:1", proxy.host()));
    assert_eq!(uploads(&proxy).iter().map(|one| one.n_asked).max(), Some(CHUNK));
    assert!(!daemon.log().contains("me:secret"), "a secret is in the log");

    let builder = TestDaemon::builder();
    let other = builder.config(&config).start();
    let params = crate::pull::params(format!("http://{}/team/m:1", registry.host()));
    assert_eq!(pull(&other, &params).id, reply.id);
    assert!(fs::read(blob_path(&other, &weights)).unwrap() == weights, "the content is another");

    let n_sent = uploads(&proxy).len();
    let params = push_params("mine", format!("http://{}/team/m:2", proxy.host()));
    client.call::<ModelPush>(&params).unwrap();
    assert_eq!(uploads(&proxy).len(), n_sent);

    // A blob that another repository of the registry has is not sent, where the daemon knows it.
    let name = format!("{}/team/m:1", proxy.host());
    client.call::<ModelCopy>(&CopyParams { from: "mine".into(), to: name, request: None }).unwrap();
    let params = push_params("mine", format!("http://{}/others/m", proxy.host()));
    client.call::<ModelPush>(&params).unwrap();
    assert_eq!(uploads(&proxy).len(), n_sent);

    let stranger = daemon_with(&noise(MIB), "");
    let params = push_params("mine", format!("http://{}/team/m:3", proxy.host()));
    let error = refused(stranger.client().call::<ModelPush>(&params), ErrorKind::Network);
    assert!(error.hint().is_some_and(|hint| hint.contains("credentials")), "{error:?}");
}

/// Pushes a model of which the first chunks suffer, and expects it whole.
#[track_caller]
fn survives(faults: &'static [Fault], config: &str) -> FaultProxy {
    let weights = noise(SIZE);
    let daemon = daemon_with(&weights, config);
    let registry = Registry::start();
    let n_before = std::sync::atomic::AtomicUsize::new(0);
    let proxy = FaultProxy::start(registry.host(), move |request, _| {
        if request.method != "PATCH" || request.message.body.len() < MIB {
            return Fault::None;
        }
        let n = n_before.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        faults.get(n).copied().unwrap_or(Fault::None)
    });
    let params = push_params("mine", format!("http://{}/team/m", proxy.host()));
    let pushed = daemon.client().call::<ModelPush>(&params).unwrap();
    is_whole_at(&registry, "team/m", &weights, &pushed.id);
    proxy
}

#[test]
fn a_connection_that_is_reset_costs_one_chunk() {
    let proxy = survives(&[Fault::None, Fault::Drop, Fault::Drop, Fault::None, Fault::Drop], "");
    let n_sent = proxy.n_sent_bytes();
    assert!((SIZE + 3 * CHUNK..SIZE + 3 * CHUNK + MIB).contains(&n_sent), "{n_sent}");
    let passed = proxy.passed();
    let asks_how_far = |one: &&Passed| one.method == "GET" && one.path.contains("/uploads/");
    assert_eq!(passed.iter().filter(asks_how_far).count(), 3);
}

#[test]
fn an_upload_that_the_registry_has_lost_is_begun_again() {
    survives(&[Fault::None, Fault::Cut, Fault::None, Fault::Lose], "");
}

#[test]
fn registries_that_are_busy_or_say_nothing() {
    survives(
        &[Fault::Status(429), Fault::Status(503), Fault::None, Fault::Hang],
        "[pull]\nstall_seconds = 1",
    );
}

#[test]
fn a_push_goes_on_where_a_killed_one_was() {
    let weights = noise(SIZE);
    // What becomes of the killed daemon's note, and at least how much is sent again then: the chunk that hung, the same twice, or
    // all.
    for (fate, n_again) in [
        ("kept", SIZE - 2 * CHUNK),
        ("denied at first", SIZE - CHUNK),
        ("torn", SIZE),
        ("a lie", SIZE),
    ] {
        let mut daemon = daemon_with(&weights, "");
        let registry = Registry::start();
        let n_chunks = std::sync::atomic::AtomicUsize::new(0);
        let (hangs, hung) = std::sync::mpsc::channel();
        let proxy = FaultProxy::start(registry.host(), move |request, _| {
            let is_chunk = request.method == "PATCH" && request.message.body.len() > MIB;
            let n = is_chunk.then(|| n_chunks.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
            match n {
                Some(2) => {
                    hangs.send(()).unwrap();
                    Fault::Hang
                }
                Some(3) if fate == "denied at first" => Fault::Status(401),
                _ => Fault::None,
            }
        });
        let params = push_params("mine", format!("http://{}/team/m", proxy.host()));
        let mut client = daemon.client();
        let _pushing = client.stream::<ModelPush>(&params).unwrap();
        hung.recv().unwrap();
        daemon.kill();
        let notes = daemon.dir().join("state/uploads");
        // Of the smaller blobs there may be notes too.
        let is_far = format!("\"n_bytes\":{}", 2 * CHUNK);
        let mut notes = fs::read_dir(notes).unwrap().map(|note| note.unwrap().path());
        let note = notes.find(|note| fs::read_to_string(note).unwrap().contains(&is_far)).unwrap();
        let text = fs::read_to_string(&note).unwrap();
        match fate {
            "torn" => fs::write(&note, "{").unwrap(),
            "a lie" => fs::write(&note, text.replace("/uploads/", "/uploads/0")).unwrap(),
            _ => {}
        }
        let n_before = proxy.n_sent_bytes();
        daemon.restart();
        let pushed = daemon.client().call::<ModelPush>(&params).unwrap();
        is_whole_at(&registry, "team/m", &weights, &pushed.id);
        let n_sent = proxy.n_sent_bytes() - n_before;
        assert!((n_again..n_again + MIB).contains(&n_sent), "{fate}: {n_sent}");
        assert!(!note.exists(), "the note of an upload that has ended is still there");
    }
}

#[test]
fn a_push_can_be_cancelled() {
    let daemon = daemon_with(&noise(MIB), "");
    let registry = Registry::start();
    let proxy = FaultProxy::start(registry.host(), |request, _| {
        if request.method == "PATCH" { Fault::Hang } else { Fault::None }
    });
    let target = format!("http://{}/team/m", proxy.host());
    let params = PushParams { request: Some("p".into()), ..push_params("mine", target) };
    let mut client = daemon.client();
    let mut stream = client.stream::<ModelPush>(&params).unwrap();
    let error = loop {
        match stream.next_event().unwrap().unwrap() {
            TransferEvent::Progress { blobs }
                if blobs.iter().any(|blob| blob.state == TransferState::Sending) =>
            {
                let params = CancelParams { request: "p".into() };
                daemon.client().call::<CancelMethod>(&params).unwrap();
            }
            TransferEvent::Error { error } => break error,
            TransferEvent::Done { reply } => panic!("{reply:?}"),
            _ => {}
        }
    };
    assert_eq!(error.kind(), Some(ErrorKind::Cancelled));
    daemon.await_idle();
}

#[test]
fn what_cannot_be_pushed_is_an_error_with_a_hint() {
    let daemon = daemon_with(&noise(MIB), "");
    let registry = Registry::start();
    let mut client = daemon.client();
    let mut call = |model: &str, target: String, kind| {
        let error = refused(client.call::<ModelPush>(&push_params(model, target)), kind);
        assert!(error.hint().is_some(), "{error:?}");
    };
    let http = format!("http://{}/team/m", registry.host());
    call("none", http, ErrorKind::ModelNotFound);
    call("mine", "http://h/x.gguf".into(), ErrorKind::InvalidParams);
    // TLS is never given up by itself.
    call("mine", format!("{}/team/m", registry.host()), ErrorKind::Network);
}

#[test]
fn ctl_push_says_where_it_is_and_json_gives_every_event() {
    let daemon = daemon_with(&noise(MIB), "");
    let registry = Registry::start();
    let target = format!("{}/team/m", registry.host());
    let ran = daemon.ctl(["push", "mine", &target, "--insecure"]);
    assert!(ran.stderr.contains("model ") && ran.stderr.contains("100 %"), "{ran:?}");
    assert_eq!(ran.ok(), format!("`team/m:latest` is at `{}`, 1.0 MB\n", registry.host()));
    daemon.ctl(["cp", "mine", &format!("{target}:own")]).ok();
    let events = daemon.ctl(["push", &format!("{target}:own"), "--insecure", "--json"]).ok();
    let events: Vec<serde_json::Value> =
        events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events[0]["type"], "accepted");
    assert_eq!(events.last().unwrap()["reply"]["name"], "team/m:own");
    let failed = daemon.ctl(["push", "none", &target]);
    assert_eq!(failed.code, Some(1));
    assert!(failed.stderr.contains("error: "), "{failed:?}");
}
