//! `model.quantize` and `ctl quantize`, with a plugin whose one type copies the file.

use hearth_protocol::{
    CreateFile, CreateParams, ErrorKind, ModelCreate, ModelParams, ModelQuantize, ModelShow,
    ProgressEvent, QuantizeParams, Quantized, RpcError,
};
use hearth_reference::Value;
use hearth_tests::{TestDaemon, eventually_is, reference_model, refused, signal_process};
use rustix::process::Signal;
use std::fs;
use std::path::PathBuf;

fn params(to: &str) -> QuantizeParams {
    QuantizeParams {
        model: "base".into(),
        type_name: "copy".into(),
        to: Some(to.into()),
        imatrix: None,
        requantize: false,
        request: Some("mine".into()),
    }
}

fn start(settings: &[(&str, Value)]) -> TestDaemon {
    let daemon = TestDaemon::start();
    daemon.model("base", settings);
    daemon
}

/// Files of the store that are no blobs.
fn unfinished(daemon: &TestDaemon) -> Vec<PathBuf> {
    let files = fs::read_dir(daemon.dir().join("models/blobs")).unwrap();
    let is_blob = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.len() == "sha256-".len() + 64
    };
    files.map(|entry| entry.unwrap().path()).filter(|path| !is_blob(path)).collect()
}

/// The processes that quantize for this daemon.
fn quantizers(daemon: &TestDaemon) -> Vec<u32> {
    // A child is its thread's.
    let threads = fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap();
    let children = |thread: std::io::Result<fs::DirEntry>| {
        fs::read_to_string(thread.unwrap().path().join("children")).unwrap_or_default()
    };
    let children: Vec<String> = threads.map(children).collect();
    let pids = children.iter().flat_map(|pids| pids.split_whitespace());
    let pids = pids.map(|pid| pid.parse::<u32>().unwrap());
    let name = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    pids.filter(|pid| name(pid).trim() == "hearthd-quant").collect()
}

#[test]
fn a_quantized_model_is_a_new_one_that_runs() {
    let daemon = start(&[("quantize_ms", 50.into())]);
    let mut client = daemon.client();
    let mut stream = client.stream::<ModelQuantize>(&params("small")).unwrap();
    let (mut told, mut end) = (Vec::new(), None);
    while let Some(event) = stream.next_event().unwrap() {
        match event {
            ProgressEvent::Accepted { request } => assert_eq!(request, "mine"),
            ProgressEvent::Progress { stage, fraction } => told.push((stage, fraction)),
            ProgressEvent::Done { reply } => end = Some(reply),
            ProgressEvent::Error { error } => panic!("{error:?}"),
        }
    }
    let Quantized { name, quantization, size_bytes, from_size_bytes, .. } = end.unwrap();
    assert_eq!((name.as_str(), quantization.as_str()), ("small:latest", "COPY"));
    assert!(size_bytes > 0 && from_size_bytes > 0);
    let quantizing: Vec<f32> =
        told.iter().filter(|(stage, _)| stage == "quantizing").map(|(_, at)| *at).collect();
    assert!(quantizing.is_sorted() && quantizing.last() == Some(&1.0), "{told:?}");
    daemon.ctl(["run", "small", "hello"]).ok();
    assert_eq!(unfinished(&daemon), [""; 0].map(PathBuf::from));

    let said = daemon.ctl(["quantize", "base", "Copy"]).ok();
    assert!(said.starts_with("`base:copy` is here in COPY: "), "{said}");
    let json = daemon.ctl(["quantize", "base", "COPY", "third", "--json"]).json();
    assert_eq!(json["name"], "third:latest");
}

#[test]
fn what_cannot_be_is_refused_with_what_to_do() {
    let daemon = start(&[]);
    let mut client = daemon.client();
    let mut refuse = |change: &dyn Fn(&mut QuantizeParams), kind| -> RpcError {
        let mut params = params("small");
        change(&mut params);
        refused(client.call::<ModelQuantize>(&params), kind)
    };
    let error = refuse(&|params| params.type_name = "cpy".into(), ErrorKind::InvalidParams);
    assert_eq!(error.hint(), Some("did you mean `COPY`? the types are COPY"));
    refuse(&|params| params.model = "none".into(), ErrorKind::ModelNotFound);
    refuse(&|params| params.imatrix = Some("here.gguf".into()), ErrorKind::InvalidParams);
    let matrix = |params: &mut QuantizeParams| params.imatrix = Some("/dev/null".into());
    let error = refuse(&matrix, ErrorKind::InvalidParams);
    assert!(error.message.contains("importance matrix"), "{error:?}");
    assert_eq!(unfinished(&daemon), [""; 0].map(PathBuf::from));
    assert!(daemon.ctl(["show", "small"]).code != Some(0));
}

#[test]
fn a_crash_costs_that_request_and_leaves_nothing() {
    let daemon = start(&[("crash_quantize", true.into())]);
    let error =
        refused(daemon.client().call::<ModelQuantize>(&params("small")), ErrorKind::WorkerDied);
    assert!(error.message.contains("signal 6"), "{error:?}");
    assert!(error.hint().is_some());
    assert_eq!(unfinished(&daemon), [""; 0].map(PathBuf::from));
    daemon.ctl(["run", "base", "hello"]).ok();
}

#[test]
fn cancelling_ends_the_process_and_leaves_nothing() {
    let daemon = start(&[("quantize_ms", 600_000.into())]);
    let mut client = daemon.client();
    let mut stream = client.stream::<ModelQuantize>(&params("small")).unwrap();
    while !matches!(stream.next_event().unwrap(), Some(ProgressEvent::Progress { .. })) {}
    assert_eq!((quantizers(&daemon).len(), unfinished(&daemon).len()), (1, 1));
    daemon.ctl(["rpc", "cancel", r#"{"request": "mine"}"#]).ok();
    let last = std::iter::from_fn(|| stream.next_event().unwrap()).last();
    let Some(ProgressEvent::Error { error }) = last else { panic!("{last:?}") };
    assert_eq!(error.kind(), Some(ErrorKind::Cancelled));
    eventually_is("no process left", || quantizers(&daemon).is_empty());
    assert_eq!(unfinished(&daemon), [""; 0].map(PathBuf::from));
}

#[test]
fn the_process_ends_with_its_daemon() {
    let mut daemon = start(&[("quantize_ms", 600_000.into())]);
    let mut client = daemon.client();
    let mut stream = client.stream::<ModelQuantize>(&params("small")).unwrap();
    while !matches!(stream.next_event().unwrap(), Some(ProgressEvent::Progress { .. })) {}
    let [pid] = quantizers(&daemon)[..] else { panic!() };
    signal_process(daemon.pid(), Signal::KILL);
    daemon.await_end();
    let stat = format!("/proc/{pid}/comm");
    eventually_is("the process's end", || !fs::exists(&stat).unwrap_or(false));
}

#[test]
fn a_model_is_quantized_while_it_is_created() {
    let daemon = start(&[]);
    let params = CreateParams {
        model: "made".into(),
        from: Some("base".into()),
        system: Some("Be brief.".into()),
        quantize: Some("copy".into()),
        ..CreateParams::default()
    };
    let mut client = daemon.client();
    let mut stream = client.stream::<ModelCreate>(&params).unwrap();
    let mut stages = Vec::new();
    while let Some(event) = stream.next_event().unwrap() {
        match event {
            ProgressEvent::Progress { stage, .. } => stages.push(stage),
            ProgressEvent::Error { error } => panic!("{error}"),
            _ => {}
        }
    }
    assert!(stages.iter().any(|stage| stage == "hashing"), "{stages:?}");
    let params = ModelParams { model: "made".into() };
    let shown = daemon.client().call::<ModelShow>(&params).unwrap();
    assert_eq!(shown.system.as_deref(), Some("Be brief."));
    assert_eq!(unfinished(&daemon), Vec::<PathBuf>::new());
}

#[test]
fn what_was_only_there_to_be_quantized_is_not_kept() {
    let daemon = TestDaemon::start();
    let raw = reference_model(daemon.dir(), "raw", &[]);
    let create = |type_name: &str| {
        daemon.client().call::<ModelCreate>(&CreateParams {
            model: "made".into(),
            files: vec![CreateFile::Path(raw.display().to_string())],
            quantize: Some(type_name.into()),
            ..CreateParams::default()
        })
    };
    refused(create("no such type"), ErrorKind::InvalidParams);
    let blobs = || fs::read_dir(daemon.dir().join("models/blobs")).unwrap().count();
    assert_eq!(blobs(), 0);
    create("copy").unwrap();
    // The weights and the config.
    assert_eq!(blobs(), 2);
    daemon.ctl(["run", "made", "hello"]).ok();
}
