//! GGUF files that are cut, spoilt, or lie: an error to whoever brought them, and nothing else.

use hearth_protocol::{Empty, Generate, ModelParams};
use hearth_protocol::{
    ErrorKind, ImportMode, ImportParams, ModelImport, ModelListMethod, ModelShow, RpcError,
};
use hearth_tests::{
    GgufText, TestDaemon, error_of, generate, peak_rss_bytes, reference_model, refused,
};
use std::fs;
use std::path::{Path, PathBuf};

const STRING: u32 = 8;
const ARRAY: u32 = 9;

#[track_caller]
fn import_error(daemon: &TestDaemon, path: &Path) -> RpcError {
    let path = path.to_str().unwrap().into();
    let params =
        ImportParams { path, name: Some("broken".into()), mode: ImportMode::Copy, request: None };
    error_of(daemon.client().call::<ModelImport>(&params))
}

/// An import that fails, names the file, and leaves nothing behind.
#[track_caller]
fn is_refused(daemon: &TestDaemon, what: &str, bytes: &[u8]) {
    let path = daemon.dir().join("broken.gguf");
    fs::write(&path, bytes).unwrap();
    let error = import_error(daemon, &path);
    assert_eq!(error.kind(), Some(ErrorKind::BadModel), "{what}: {error:?}");
    assert!(error.message.contains("broken.gguf"), "{what}: {error:?}");
    assert!(error.hint().is_some(), "{what}: {error:?}");
    assert_eq!(daemon.client().call::<ModelListMethod>(&Empty {}).unwrap().models, []);
    let blobs = daemon.dir().join("models/blobs");
    let n_left = fs::read_dir(blobs).map(Iterator::count).unwrap_or(0);
    assert_eq!(n_left, 0, "{what}: the import left files behind");
}

fn good_model(folder: &Path) -> Vec<u8> {
    fs::read(reference_model(folder, "good", &[])).unwrap()
}

#[test]
fn a_truncated_file_is_refused_wherever_it_was_cut() {
    let daemon = TestDaemon::start();
    let whole = good_model(daemon.dir());
    let cuts: Vec<usize> =
        (0..whole.len()).step_by(37).chain([3, 4, 8, 16, 23, 24, whole.len() - 1]).collect();
    for cut in cuts {
        is_refused(&daemon, &format!("cut at {cut} of {}", whole.len()), &whole[..cut]);
    }
    daemon.status();
}

#[test]
fn what_is_no_gguf_is_refused() {
    let daemon = TestDaemon::start();
    let random: Vec<u8> =
        (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for (what, bytes) in [
        ("text", b"# not a model\n".to_vec()),
        ("nothing", Vec::new()),
        ("random bytes", random),
        ("an archive", b"PK\x03\x04 safetensors".to_vec()),
        ("another version", GgufText(b"GGUF".to_vec()).u32(99).u64(0).u64(0).0),
        ("big endian", b"GGUF\0\0\0\x03".repeat(10)),
    ] {
        is_refused(&daemon, what, &bytes);
    }
}

#[test]
fn a_header_that_lies_is_refused_and_takes_no_memory() {
    let daemon = TestDaemon::start();
    let huge = 1 << 62;
    for (what, text) in [
        ("pairs without end", GgufText::header(1, huge)),
        ("as many pairs as can be", GgufText::header(1, u64::MAX)),
        ("tensors without end", GgufText::header(u64::MAX, 0)),
        ("a key without end", GgufText::header(1, 1).u64(huge)),
        ("a text without end", GgufText::header(1, 1).text("a").u32(STRING).u64(u64::MAX)),
        ("an array without end", GgufText::header(1, 1).text("a").u32(ARRAY).u32(STRING).u64(huge)),
        ("an array of arrays of arrays", {
            let start = GgufText::header(1, 1).text("a").u32(ARRAY);
            (0..10_000).fold(start, |text, _| text.u32(ARRAY).u64(1))
        }),
        ("a type there is not", GgufText::header(1, 1).text("a").u32(999).u64(0)),
        (
            "a tensor of dimensions without end",
            GgufText::header(1, 0).text("t").u32(u32::MAX).u64(1),
        ),
        ("a tensor larger than everything", {
            GgufText::header(1, 0)
                .text("t")
                .u32(4)
                .u64(huge)
                .u64(huge)
                .u64(huge)
                .u64(huge)
                .u32(0)
                .u64(0)
        }),
        (
            "a tensor beyond the file",
            GgufText::header(1, 0).text("t").u32(1).u64(32).u32(0).u64(huge),
        ),
    ] {
        let mut bytes = text.0;
        bytes.resize(bytes.len() + 4096, 0);
        is_refused(&daemon, what, &bytes);
    }
    let peak = peak_rss_bytes(daemon.pid());
    assert!(peak < 60 << 20, "the daemon had {} MiB resident", peak >> 20);
}

#[test]
fn every_single_byte_of_the_header_may_be_wrong() {
    let daemon = TestDaemon::start();
    let whole = good_model(daemon.dir());
    let path = daemon.dir().join("broken.gguf");
    for at in (0..whole.len().min(1200)).step_by(11) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xa5;
        fs::write(&path, &bytes).unwrap();
        let params = ImportParams {
            path: path.to_str().unwrap().into(),
            name: Some("perhaps".into()),
            mode: ImportMode::Copy,
            request: None,
        };
        // Some of it is only a name or a number that no check can know.
        if let Err(hearth_protocol::ClientError::Rpc(error)) =
            daemon.client().call::<ModelImport>(&params)
        {
            assert_eq!(error.kind(), Some(ErrorKind::BadModel), "byte {at}: {error:?}");
        }
    }
    daemon.status();
}

#[test]
fn files_that_are_not_there_or_no_files_are_refused() {
    let daemon = TestDaemon::start();
    let missing = import_error(&daemon, &daemon.dir().join("none.gguf"));
    assert!(missing.message.contains("none.gguf"), "{missing:?}");
    assert_eq!(missing.kind(), Some(ErrorKind::FileUnreadable), "{missing:?}");
    for path in [daemon.dir().to_path_buf(), "/dev/zero".into(), PathBuf::from("/proc/self/mem")] {
        let error = import_error(&daemon, &path);
        assert!(error.kind().is_some() && error.kind() != Some(ErrorKind::Internal), "{error:?}");
    }
    let fifo = daemon.dir().join("fifo");
    hearth_tests::run(daemon.command("mkfifo").arg(&fifo), "").ok();
    // Opening it would wait for a writer for ever.
    assert_eq!(import_error(&daemon, &fifo).kind(), Some(ErrorKind::InvalidParams));

    let params = ImportParams {
        path: "good.gguf".into(),
        name: Some("a".into()),
        mode: ImportMode::Copy,
        request: None,
    };
    let error = refused(daemon.client().call::<ModelImport>(&params), ErrorKind::InvalidParams);
    assert!(error.message.contains("absolute"), "{error:?}");
}

fn blob(daemon: &TestDaemon, model: &str) -> PathBuf {
    daemon.client().call::<ModelShow>(&ModelParams { model: model.into() }).unwrap().path.into()
}

#[test]
fn a_model_spoilt_after_its_import_is_an_error_of_its_load() {
    let daemon = TestDaemon::start();
    daemon.model("spoilt", &[("seed", 1.into())]);
    daemon.model("good", &[("seed", 2.into())]);
    let blob = blob(&daemon, "spoilt");
    let whole = fs::read(&blob).unwrap();
    for n_left in [0, 3, 100, whole.len() / 2] {
        fs::write(&blob, &whole[..n_left]).unwrap();
        let error = refused(
            daemon.client().call::<Generate>(&generate("spoilt", "a")),
            ErrorKind::BadModel,
        );
        assert!(!error.message.is_empty());
        daemon.client().call::<Generate>(&generate("good", "a")).unwrap();
    }
    fs::remove_file(&blob).unwrap();
    error_of(daemon.client().call::<Generate>(&generate("spoilt", "a")));
    fs::write(&blob, &whole).unwrap();
    daemon.client().call::<Generate>(&generate("spoilt", "a")).unwrap();
}

#[test]
fn a_manifest_that_is_no_json_is_a_problem_of_its_own() {
    let daemon = TestDaemon::start();
    daemon.model("one", &[("seed", 1.into())]);
    daemon.model("two", &[("seed", 2.into())]);
    let manifest = daemon.dir().join("models/manifests/registry.ollama.ai/library/one/latest");
    fs::write(&manifest, "{nonsense").unwrap();
    let list = daemon.client().call::<ModelListMethod>(&Empty {}).unwrap();
    assert_eq!(list.models.len(), 1);
    assert_eq!(list.models[0].name, "two:latest");
    assert_eq!(list.problems.len(), 1);
    assert!(list.problems[0].path.ends_with("one/latest"), "{:?}", list.problems);
    error_of(daemon.client().call::<Generate>(&generate("one", "a")));
    daemon.client().call::<Generate>(&generate("two", "a")).unwrap();
}
