//! Pulling from a real registry: whole, shared, resumed, repaired, with secrets, under other manifests, from a URL.

use hearth_protocol::{
    Client, ErrorKind, ModelListMethod, ModelPull, PullParams, Pulled, TransferEvent, TransferState,
};
use hearth_tests::{
    Fault, FaultProxy, Registry, TestDaemon, TokenServer, WebReply, WebServer, digest,
    reference_model, refused,
};
use serde_json::json;
use std::fs;
use std::io::Write;
use std::path::PathBuf;

pub(crate) const MIB: usize = 1 << 20;

/// Bytes that no part of looks like another.
pub(crate) fn noise(n_bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    std::iter::repeat_with(|| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32).to_le_bytes()
    })
    .flatten()
    .take(n_bytes)
    .collect()
}

pub(crate) fn params(source: String) -> PullParams {
    PullParams { source, name: None, request: None }
}

pub(crate) fn source(host: &str) -> PullParams {
    params(format!("http://{host}/library/m"))
}

pub(crate) fn pull(daemon: &TestDaemon, params: &PullParams) -> Pulled {
    daemon.client().call::<ModelPull>(params).unwrap()
}

pub(crate) fn blob_path(daemon: &TestDaemon, bytes: &[u8]) -> PathBuf {
    daemon.dir().join("models/blobs").join(digest(bytes).replace(':', "-"))
}

/// The files that are not blobs.
pub(crate) fn partials(daemon: &TestDaemon) -> usize {
    let entries = fs::read_dir(daemon.dir().join("models/blobs")).unwrap();
    entries
        .filter(|entry| entry.as_ref().unwrap().path().to_string_lossy().ends_with("-pull"))
        .count()
}

fn n_models(daemon: &TestDaemon) -> usize {
    daemon.client().call::<ModelListMethod>(&hearth_protocol::Empty {}).unwrap().models.len()
}

/// Reads events until this many bytes of all blobs are here, and gives how many it were.
fn await_bytes(client: &mut Client, params: &PullParams, n_bytes: u64) -> u64 {
    let mut stream = client.stream::<ModelPull>(params).unwrap();
    loop {
        match stream.next_event().unwrap().unwrap() {
            TransferEvent::Progress { blobs } => {
                let n_done = blobs.iter().map(|blob| blob.done_bytes).sum();
                if n_done >= n_bytes {
                    return n_done;
                }
            }
            TransferEvent::Accepted { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_model_of_several_layers_arrives_with_its_own_manifest() {
    let registry = Registry::start();
    let weights = noise(3 * MIB + 17);
    let layers: [(&str, &[u8]); 3] =
        [("model", &weights), ("license", b"as you like"), ("params", b"{}")];
    let manifest = registry.push("library/m", &layers);
    let daemon = TestDaemon::start();
    let pulled = pull(&daemon, &source(registry.host()));
    assert_eq!(pulled.name, format!("{}/library/m:latest", registry.host()));
    assert_eq!(format!("sha256:{}", pulled.id), digest(manifest.as_bytes()));
    for (_, bytes) in layers {
        assert_eq!(fs::read(blob_path(&daemon, bytes)).unwrap(), bytes);
    }
    let on_disk =
        daemon.dir().join("models/manifests").join(registry.host()).join("library/m/latest");
    assert_eq!(fs::read_to_string(on_disk).unwrap(), manifest);
    assert_eq!(partials(&daemon), 0);
    let named = PullParams { name: Some("mine".into()), ..source(registry.host()) };
    assert_eq!(pull(&daemon, &named).name, "mine:latest");
}

#[test]
fn what_is_not_there_is_an_error_with_a_hint() {
    let registry = Registry::start();
    let daemon = TestDaemon::start();
    let mut client = daemon.client();
    let mut call = |source: String, kind| {
        let error = refused(client.call::<ModelPull>(&params(source)), kind);
        assert!(error.hint().is_some(), "{error:?}");
        error.message
    };
    let message =
        call(format!("http://{}/library/none", registry.host()), ErrorKind::ModelNotFound);
    assert!(message.contains("library/none"), "{message}");
    call("../etc/passwd".into(), ErrorKind::InvalidParams);
    // TLS is never given up by itself.
    call(format!("{}/library/m", registry.host()), ErrorKind::Network);
    assert_eq!(n_models(&daemon), 0);
}

#[test]
fn progress_tells_the_truth_and_a_second_pull_shares_the_first() {
    let registry = Registry::start();
    let weights = noise(70 * MIB);
    registry.push("library/m", &[("model", &weights)]);
    let proxy = FaultProxy::start(registry.host(), |_, _| Fault::None);
    let daemon = TestDaemon::start();
    let others: Vec<_> = (0..2)
        .map(|_| {
            let (mut client, params) = (daemon.client(), source(&proxy.host()));
            std::thread::spawn(move || client.call::<ModelPull>(&params).unwrap())
        })
        .collect();
    let mut client = daemon.client();
    let mut stream = client.stream::<ModelPull>(&source(&proxy.host())).unwrap();
    let (mut last, mut reply) = (Vec::new(), None);
    while let Some(event) = stream.next_event().unwrap() {
        match event {
            TransferEvent::Progress { blobs } => {
                for (before, now) in std::iter::zip(&last, &blobs) {
                    let (before, now): (&hearth_protocol::TransferBlob, _) = (before, now);
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
    assert!(
        last.iter()
            .all(|blob| blob.state == TransferState::Done && blob.done_bytes == blob.size_bytes)
    );
    for other in others {
        assert_eq!(Some(other.join().unwrap()), reply);
    }
    let ranges: Vec<_> = proxy.passed().into_iter().filter_map(|one| one.range).collect();
    assert_eq!(ranges, [format!("bytes=0-{}", weights.len() - 1)]);
    assert_eq!(fs::read(blob_path(&daemon, &weights)).unwrap(), weights);
}

#[test]
fn after_kill_9_no_whole_piece_is_fetched_again() {
    let registry = Registry::start();
    let weights = noise(70 * MIB + 5);
    registry.push("library/m", &[("model", &weights)]);
    let stalling = stalling(&registry);
    let mut daemon = TestDaemon::start();
    let mut client = daemon.client();
    let done = await_bytes(&mut client, &source(&stalling.host()), 9 * MIB as u64);
    daemon.kill();
    assert!(!blob_path(&daemon, &weights).exists());
    daemon.restart();
    assert_eq!(n_models(&daemon), 0);
    goes_on_from(&daemon, &registry, &weights, done);
}

#[test]
fn the_last_one_to_go_ends_the_pull_and_keeps_what_came() {
    let registry = Registry::start();
    let weights = noise(70 * MIB);
    registry.push("library/m", &[("model", &weights)]);
    let stalling = stalling(&registry);
    let daemon = TestDaemon::start();
    let done = await_bytes(&mut daemon.client(), &source(&stalling.host()), 9 * MIB as u64);
    daemon.await_idle();
    assert_eq!(partials(&daemon), 1);
    goes_on_from(&daemon, &registry, &weights, done);
}

/// A proxy whose parts stop in their tenth MiB.
fn stalling(registry: &Registry) -> FaultProxy {
    FaultProxy::start(registry.host(), |request, _| {
        let is_part = request.message.headers.contains_key("range");
        if is_part { Fault::StallAfter(10 * MIB - 5) } else { Fault::None }
    })
}

/// Pulls what is missing, and nothing of the bytes that were there.
#[track_caller]
fn goes_on_from(daemon: &TestDaemon, registry: &Registry, weights: &[u8], n_done: u64) {
    let proxy = FaultProxy::start(registry.host(), |_, _| Fault::None);
    pull(daemon, &source(&proxy.host()));
    assert!(fs::read(blob_path(daemon, weights)).unwrap() == weights, "the content is another");
    let n_came = proxy.n_blob_bytes() as u64;
    // The config's few bytes are among those that were there.
    assert!(
        n_came <= weights.len() as u64 + 1000 - n_done,
        "{n_came} came again, {n_done} were here"
    );
}

#[test]
fn pulling_again_repairs_what_is_damaged_and_fetches_nothing_else() {
    let registry = Registry::start();
    let (weights, license) = (noise(2 * MIB), noise(MIB));
    registry.push("library/m", &[("model", &weights), ("license", &license)]);
    let proxy = FaultProxy::start(registry.host(), |_, _| Fault::None);
    let daemon = TestDaemon::start();
    pull(&daemon, &source(&proxy.host()));
    let path = blob_path(&daemon, &weights);
    let mut damaged = weights.clone();
    damaged[MIB] ^= 1;
    fs::write(&path, &damaged).unwrap();
    let before = proxy.n_blob_bytes();
    pull(&daemon, &source(&proxy.host()));
    assert_eq!(fs::read(&path).unwrap(), weights);
    assert_eq!(proxy.n_blob_bytes() - before, weights.len());
}

#[test]
fn a_secret_goes_to_the_host_it_is_for_and_to_no_other() {
    // "me:secret" in base64.
    let tokens = TokenServer::start("Basic bWU6c2VjcmV0");
    let registry = Registry::start();
    let weights = noise(40 * MIB);
    registry.push("library/m", &[("model", &weights)]);
    let registry = registry.with_auth(&tokens.auth());
    let proxy = FaultProxy::start(registry.host(), |_, _| Fault::None);

    let stranger = TestDaemon::start();
    let error = stranger.client().call::<ModelPull>(&source(&proxy.host()));
    let error = refused(error, ErrorKind::Network);
    assert!(error.hint().is_some_and(|hint| hint.contains("credentials")), "{error:?}");

    let builder = TestDaemon::builder();
    let secret = builder.dir().join("secret");
    fs::write(&secret, "me:secret\n").unwrap();
    let config =
        |host: &str| format!("[pull]\ncredentials = {{ \"{host}\" = \"{}\" }}", secret.display());
    let config = config(&tokens.host());
    let daemon = builder.config(&config).start();
    pull(&daemon, &source(&proxy.host()));
    assert_eq!(fs::read(blob_path(&daemon, &weights)).unwrap(), weights);
    assert!(!daemon.log().contains("me:secret"), "a secret is in the log");
    for passed in proxy.passed() {
        let shown = passed.authorization.unwrap_or_default();
        assert!(shown.is_empty() || shown.starts_with("Bearer ey"), "{shown}");
    }

    // What is for the registry is not shown to whom the registry names.
    let builder = TestDaemon::builder();
    let secret = builder.dir().join("secret");
    fs::write(&secret, "me:secret\n").unwrap();
    let config =
        format!("[pull]\ncredentials = {{ \"{}\" = \"{}\" }}", proxy.host(), secret.display());
    let daemon = builder.config(&config).start();
    let n_before = tokens.shown().len();
    refused(daemon.client().call::<ModelPull>(&source(&proxy.host())), ErrorKind::Network);
    assert!(tokens.shown()[n_before..].iter().all(Option::is_none));
}

#[test]
fn what_other_tools_push_becomes_a_model_that_runs() {
    let registry = Registry::start();
    let daemon = TestDaemon::start();
    let gguf = fs::read(reference_model(daemon.dir(), "tiny", &[])).unwrap();
    let mut config = registry.push_blob("org/team/tiny", b"{\"config\":{}}");
    config["mediaType"] = "application/vnd.docker.ai.model.config.v0.1+json".into();
    let mut weights = registry.push_blob("org/team/tiny", &gguf);
    weights["mediaType"] = "application/vnd.docker.ai.gguf.v3".into();
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [weights] });
    registry.push_manifest("org/team/tiny", media_type, &manifest);
    let pulled = pull(&daemon, &params(format!("http://{}/org/team/tiny", registry.host())));
    assert_eq!(pulled.name, format!("{}/org-team/tiny:latest", registry.host()));
    daemon.ctl(["run", &pulled.name, "hello", "--max-tokens", "3"]).ok();
}

#[test]
fn a_file_behind_a_url_becomes_a_model_that_runs() {
    let daemon = TestDaemon::start();
    let gguf = fs::read(reference_model(daemon.dir(), "tiny", &[])).unwrap();
    let content = gguf.clone();
    let server = WebServer::start(move |request, stream| {
        let mut reply = WebReply::new(200, content.clone());
        reply.message.headers.insert("etag".into(), "\"1\"".into());
        if request.path != "/files/My%20Tiny.gguf" {
            reply = WebReply::new(404, "");
        }
        let _ = stream.write_all(reply.head(reply.message.body.len()).as_bytes());
        let _ = stream.write_all(&reply.message.body);
    });
    let pulled = pull(&daemon, &params(format!("http://{}/files/My%20Tiny.gguf", server.host())));
    assert_eq!(pulled.name, "my-20tiny:latest");
    assert_eq!(fs::read(blob_path(&daemon, &gguf)).unwrap(), gguf);
    daemon.ctl(["run", "my-20tiny", "hello", "--max-tokens", "3"]).ok();
    assert_eq!(partials(&daemon), 0);
}

#[test]
fn a_mirror_is_asked_first_and_the_registry_where_it_fails() {
    let registry = Registry::start();
    let weights = noise(MIB);
    registry.push("library/m", &[("model", &weights)]);
    let mirror = FaultProxy::start(registry.host(), |request, _| {
        if request.path.contains("/blobs/") { Fault::Status(503) } else { Fault::None }
    });
    let config =
        format!("[pull]\nmirrors = {{ \"{}\" = [\"http://{}\"] }}", registry.host(), mirror.host());
    let daemon = TestDaemon::builder().config(&config).start();
    pull(&daemon, &source(registry.host()));
    assert_eq!(fs::read(blob_path(&daemon, &weights)).unwrap(), weights);
    assert!(mirror.passed().iter().any(|one| one.path.contains("/manifests/")));
}

#[test]
fn a_proxy_of_the_environment_is_used_and_may_be_excepted() {
    let registry = Registry::start();
    registry.push("library/m", &[("model", &noise(MIB))]);
    let host = registry.host().to_owned();
    let seen = std::sync::Arc::new(std::sync::Mutex::new(0));
    let count = std::sync::Arc::clone(&seen);
    let proxy = WebServer::start(move |mut request, stream| {
        *count.lock().unwrap() += 1;
        let at = request.path.find("/v2/").unwrap();
        request.path = request.path[at..].to_owned();
        let reply = hearth_tests::web_ask(&host, &request);
        let _ = stream.write_all(reply.head(reply.message.body.len()).as_bytes());
        let _ = stream.write_all(&reply.message.body);
    });
    let through = format!("http://{}", proxy.host());
    let daemon = TestDaemon::builder().env("HTTP_PROXY", &through).start();
    pull(&daemon, &params("http://registry.example/library/m".into()));
    let n_seen = *seen.lock().unwrap();
    assert!(n_seen >= 3, "{n_seen}");
    let excepting =
        TestDaemon::builder().env("HTTP_PROXY", &through).env("NO_PROXY", "127.0.0.1").start();
    pull(&excepting, &source(registry.host()));
    assert_eq!(*seen.lock().unwrap(), n_seen);
}

#[test]
fn ctl_pull_says_what_came_and_json_gives_every_event() {
    let registry = Registry::start();
    registry.push("library/m", &[("model", &noise(MIB)), ("license", b"x")]);
    let daemon = TestDaemon::start();
    let source = format!("http://{}/library/m", registry.host());
    let ran = daemon.ctl(["pull", &source, "mine"]);
    assert!(ran.stderr.contains("model ") && ran.stderr.contains("100 %"), "{ran:?}");
    assert!(ran.ok().starts_with("`mine:latest` pulled, 1.0 MB"));
    let events = daemon.ctl(["pull", &source, "mine", "--json"]).ok();
    let events: Vec<serde_json::Value> =
        events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events[0]["type"], "accepted");
    assert_eq!(events.last().unwrap()["reply"]["name"], "mine:latest");
    let failed = daemon.ctl(["pull", &format!("http://{}/library/none", registry.host())]);
    assert_eq!(failed.code, Some(1));
    assert!(failed.stderr.contains("error: ") && failed.stderr.contains("hint: "), "{failed:?}");
    let file = reference_model(daemon.dir(), "local", &[]);
    daemon.ctl(["pull", file.to_str().unwrap(), "local"]).ok();
    assert_eq!(n_models(&daemon), 2);
}
