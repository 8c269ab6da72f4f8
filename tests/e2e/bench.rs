//! `model.bench`: what it measures, what it tries, and what of that is kept.

use hearth_protocol::{
    BenchParams, BenchReply, FlashAttention, KvType, ModelBench, ModelParams, ModelShow,
    ProgressEvent, Tuning,
};
use hearth_tests::TestDaemon;
use serde_json::json;
use std::path::PathBuf;

/// Its answers do not end by themselves.
fn start() -> TestDaemon {
    let daemon = TestDaemon::start();
    daemon.model("tiny", &[("eos_one_in", 0.into())]);
    daemon
}

fn params(tune: bool) -> BenchParams {
    BenchParams { model: "tiny".into(), tune, request: None }
}

/// The reply, and the stages that were told before.
fn bench(daemon: &TestDaemon, tune: bool) -> (BenchReply, Vec<String>) {
    let mut client = daemon.client();
    let mut stages: Vec<(String, f32)> = Vec::new();
    let mut events = client.stream::<ModelBench>(&params(tune)).unwrap();
    while let Some(event) = events.next_event().unwrap() {
        match event {
            ProgressEvent::Accepted { .. } => {}
            ProgressEvent::Progress { stage, fraction } => match stages.last_mut() {
                Some((last, so_far)) if *last == stage => {
                    assert!(*so_far <= fraction && fraction <= 1.0, "{stage}: {fraction}");
                    *so_far = fraction;
                }
                _ => stages.push((stage, fraction)),
            },
            ProgressEvent::Done { reply } => {
                return (reply, stages.into_iter().map(|(stage, _)| stage).collect());
            }
            ProgressEvent::Error { error } => panic!("{error}"),
        }
    }
    panic!("the stream ended without a reply");
}

fn kept(daemon: &TestDaemon) -> PathBuf {
    daemon.dir().join("state/tuned.json")
}

/// Puts an entry for the model into the file that a daemon reads when it starts.
fn keep(daemon: &TestDaemon, machine: &str, settings: Tuning) {
    let shown =
        daemon.client().call::<ModelShow>(&ModelParams { model: "tiny".into() }).unwrap().path;
    let (_, digest) = shown.rsplit_once("sha256-").unwrap();
    let entries = json!({ digest: { "machine": machine, "settings": settings } });
    std::fs::create_dir_all(kept(daemon).parent().unwrap()).unwrap();
    std::fs::write(kept(daemon), entries.to_string()).unwrap();
}

#[test]
fn a_model_is_measured_and_nothing_else_changes() {
    let daemon = start();
    let (reply, stages) = bench(&daemon, false);
    let figures = reply.figures;
    for figure in [figures.prompt_per_s, figures.stream_per_s, figures.streams_per_s] {
        assert!(figure.is_finite() && figure > 0.0, "{figures:?}");
    }
    assert!(figures.first_token_ms > 0.0, "{figures:?}");
    assert!(reply.prompt_tokens > 1000, "a byte is a token: {}", reply.prompt_tokens);
    assert_eq!((reply.threads, reply.settings), (1, Tuning::default()));
    assert!(reply.trials.is_empty());
    assert!(stages.ends_with(&["warming up".into(), "measuring".into()]), "{stages:?}");
    assert!(!kept(&daemon).exists());
    let pid = daemon.worker_pid();
    bench(&daemon, false);
    assert_eq!(daemon.worker_pid(), pid);
}

#[test]
fn what_is_tried_is_told_and_what_is_better_is_kept() {
    let mut daemon = start();
    let (reply, stages) = bench(&daemon, true);
    assert!(reply.trials.len() >= 2, "{reply:?}");
    let best = reply.trials.iter().rfind(|trial| trial.better);
    assert_eq!(reply.settings, best.map_or_else(Tuning::default, |trial| trial.settings));
    assert_eq!(reply.gain > 1.0, best.is_some());
    let n_tried = stages.iter().filter(|stage| stage.starts_with("trying ")).count();
    assert_eq!(n_tried, reply.trials.len(), "{stages:?}");
    for trial in &reply.trials {
        assert!(trial.lowest <= trial.ratio && trial.ratio <= trial.highest, "{trial:?}");
    }
    assert_eq!(bench(&daemon, false).0.settings, reply.settings);
    daemon.kill();
    daemon.restart();
    assert_eq!(bench(&daemon, false).0.settings, reply.settings);
}

#[test]
fn what_was_kept_is_used_on_the_same_machine_and_on_no_other() {
    let mut daemon = start();
    let machine = bench(&daemon, false).0.machine;
    let settings = Tuning {
        threads: Some(3),
        spin: Some(77),
        batch: Some(64),
        kv_type: Some(KvType::Q8_0),
        flash_attention: Some(FlashAttention::On),
    };
    keep(&daemon, &machine, settings);
    daemon.kill();
    daemon.restart();
    let reply = bench(&daemon, false).0;
    assert_eq!((reply.settings, reply.threads), (settings, 3));
    let running = daemon.loaded().remove(0);
    assert_eq!(
        (running.kv_type, running.flash_attention),
        (KvType::Q8_0, settings.flash_attention)
    );
    let environment = std::fs::read(format!("/proc/{}/environ", daemon.worker_pid())).unwrap();
    let is_spin = |variable: &[u8]| variable == b"GOMP_SPINCOUNT=77";
    assert!(environment.split(|byte| *byte == 0).any(is_spin));
    keep(&daemon, "another machine", settings);
    daemon.kill();
    daemon.restart();
    assert_eq!(bench(&daemon, false).0.settings, Tuning::default());
}

#[test]
fn whoever_leaves_in_the_middle_leaves_the_model_as_it_was() {
    let daemon = start();
    let mut client = daemon.client();
    let mut events = client.stream::<ModelBench>(&params(true)).unwrap();
    loop {
        match events.next_event().unwrap() {
            Some(ProgressEvent::Progress { stage, .. }) if stage.starts_with("trying") => break,
            Some(_) => {}
            None => panic!("nothing was tried"),
        }
    }
    drop(client);
    assert_eq!(bench(&daemon, false).0.settings, Tuning::default());
    assert!(!kept(&daemon).exists());
}
