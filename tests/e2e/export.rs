//! Models written out of the store: by `ctl export`, and by `GET /blobs/DIGEST`, which is what it uses.

use hearth_protocol::{Blob, ClientError, ErrorKind, ModelExport, ModelParams, ModelShow};
use hearth_tests::{Ran, Registry, TestDaemon, digest, run};
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

fn start() -> TestDaemon {
    let daemon = TestDaemon::start();
    daemon.model("m", &[("seed", 1.into())]);
    daemon.add_layers("m", &[("system", "Be brief."), ("license", "as you like")]);
    daemon
}

fn weights(daemon: &TestDaemon, model: &str) -> Vec<u8> {
    let shown = daemon.client().call::<ModelShow>(&ModelParams { model: model.into() }).unwrap();
    fs::read(shown.path).unwrap()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn entries(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_gguf_file_is_the_weights_byte_for_byte() {
    let daemon = start();
    let file = daemon.dir().join("out.gguf");
    fs::write(&file, "what was there").unwrap();
    let text = daemon.ctl(["export", "m", "out.gguf"]).ok();
    assert!(text.starts_with("`m:latest` is in `out.gguf`, "), "{text}");
    assert!(fs::read(&file).unwrap() == weights(&daemon, "m"));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o600, 0o600);
    daemon.ctl(["import", "out.gguf", "again"]).ok();
    daemon.ctl(["run", "again", "hello"]).ok();

    let mut command = daemon.command("sh");
    let ctl = hearth_tests::ctl_path();
    command.arg("-c").arg(format!("{} export m - > piped", ctl.display()));
    run(&mut command, "").ok();
    assert!(fs::read(daemon.dir().join("piped")).unwrap() == weights(&daemon, "m"));

    let reply = daemon.ctl(["export", "m", "bare", "--format", "gguf", "--json"]).json();
    assert_eq!(reply["size_bytes"], fs::metadata(daemon.dir().join("bare")).unwrap().len());
    for (args, code) in [
        (["export", "m", "what"], 2),
        (["export", "m", "no/x.gguf"], 1),
        (["export", "n", "x/"], 1),
    ] {
        assert_eq!(daemon.ctl(args).code, Some(code), "{args:?}");
    }
}

#[test]
fn a_file_that_cannot_be_written_is_named_and_not_left_there() {
    let daemon = start();
    let mut command = daemon.command("sh");
    // No file may grow, and the signal that says so is ignored.
    let full = r#"trap "" XFSZ; ulimit -f 0; exec "$0" export m out/m.gguf"#;
    fs::create_dir(daemon.dir().join("out")).unwrap();
    let ran = run(command.args(["-c", full]).arg(hearth_tests::ctl_path()), "");
    let message = "error: cannot write `out/m.gguf`: File too large";
    assert!(ran.code == Some(1) && ran.stderr.starts_with(message), "{ran:?}");
    assert!(ran.stderr.contains("hint: "), "{ran:?}");
    assert_eq!(entries(&daemon.dir().join("out")), [""; 0]);

    let ran = daemon.ctl(["export", "m", "no/m.gguf"]);
    assert_eq!(
        ran.stderr.lines().next(),
        Some("error: cannot write `no/m.gguf`: No such file or directory (os error 2)")
    );
}

#[test]
fn a_folder_with_other_files_is_left_as_it_is() {
    let daemon = start();
    let dir = daemon.dir().join("home");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("letter"), "").unwrap();
    let ran = daemon.ctl(["export", "m", "home"]);
    assert!(ran.stderr.starts_with("error: `home` is no OCI layout: it has `letter`"), "{ran:?}");
    assert_eq!(entries(&dir), ["letter"]);
}

#[test]
fn a_layout_has_everything_and_takes_more_models() {
    let daemon = start();
    daemon.model("other", &[("seed", 2.into())]);
    for model in ["m", "other", "m"] {
        daemon.ctl(["export", model, "layout/"]).ok();
    }
    let dir = daemon.dir().join("layout");
    assert_eq!(entries(&dir), ["blobs", "index.json", "oci-layout"]);
    assert_eq!(json(&dir.join("oci-layout"))["imageLayoutVersion"], "1.0.0");
    let index = json(&dir.join("index.json"));
    let manifests = index["manifests"].as_array().unwrap();
    let names: Vec<_> = manifests
        .iter()
        .map(|one| one["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["other:latest", "m:latest"]);
    let blobs = dir.join("blobs/sha256");
    for name in entries(&blobs) {
        assert_eq!(digest(&fs::read(blobs.join(&name)).unwrap()), format!("sha256:{name}"));
    }
    let params = ModelParams { model: "m".into() };
    let exported = daemon.client().call::<ModelExport>(&params).unwrap();
    let file = manifests[1]["digest"].as_str().unwrap().trim_start_matches("sha256:");
    let manifest = fs::read_to_string(blobs.join(file)).unwrap();
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    assert_eq!(
        manifest,
        exported.manifest.replace(docker, manifests[1]["mediaType"].as_str().unwrap())
    );
    for blob in &exported.blobs {
        let file = blobs.join(blob.digest.trim_start_matches("sha256:"));
        assert_eq!(fs::metadata(file).unwrap().len(), blob.size_bytes);
    }

    fs::write(dir.join("index.json"), "[]").unwrap();
    let ran = daemon.ctl(["export", "m", "layout"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("index"), "{ran:?}");
}

#[test]
fn skopeo_pushes_a_layout_and_a_pull_brings_the_same_model_back() {
    let daemon = start();
    let registry = Registry::start();
    daemon.ctl(["export", "m", "layout/"]).ok();
    let ran: Ran = run(
        Command::new("skopeo")
            .args(["copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false"])
            .args(["--insecure-policy", "oci:layout"])
            .arg(format!("docker://{}/library/m:latest", registry.host()))
            .current_dir(daemon.dir()),
        "",
    );
    ran.ok();
    let parts = |model: &str| {
        let params = ModelParams { model: model.into() };
        let exported = daemon.client().call::<ModelExport>(&params).unwrap();
        (exported.weights, exported.blobs)
    };
    let pushed = parts("m");
    daemon.ctl(["rm", "m"]).ok();
    daemon.ctl(["pull", &format!("http://{}/library/m", registry.host()), "back"]).ok();
    assert_eq!(parts("back"), pushed);
    assert!(daemon.ctl(["show", "back"]).ok().contains("Be brief."));
}

#[test]
fn a_damaged_blob_is_not_exported() {
    let daemon = start();
    let shown = daemon.client().call::<ModelShow>(&ModelParams { model: "m".into() }).unwrap();
    let mut bytes = fs::read(&shown.path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&shown.path, bytes).unwrap();
    fs::create_dir(daemon.dir().join("out")).unwrap();
    let ran = daemon.ctl(["export", "m", "out/m.gguf"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("damaged"), "{ran:?}");
    assert_eq!(entries(&daemon.dir().join("out")), [""; 0]);
}

#[test]
fn blobs_are_served_by_their_digests_and_nothing_else() {
    let daemon = start();
    let params = ModelParams { model: "m".into() };
    let exported = daemon.client().call::<ModelExport>(&params).unwrap();
    for blob in &exported.blobs {
        let mut reader = Blob::open(&daemon.socket(), &blob.digest).unwrap();
        assert_eq!(reader.n_left(), blob.size_bytes);
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        assert_eq!(digest(&bytes), blob.digest);
    }
    let refused = |digest: &str| match Blob::open(&daemon.socket(), digest).unwrap_err() {
        ClientError::Rpc(error) => error.kind(),
        other => panic!("{other}"),
    };
    assert_eq!(refused(&digest(b"none")), Some(ErrorKind::BadModel));
    for bad in ["sha256-zz", "..", "sha256:12"] {
        assert_eq!(refused(bad), Some(ErrorKind::InvalidParams), "{bad}");
    }
    for bad in ["", "../manifests", "sha256:../../hearth.toml"] {
        assert_eq!(refused(bad), Some(ErrorKind::InvalidRequest), "{bad}");
    }
}

#[test]
fn a_reader_that_stops_holds_nobody() {
    let daemon = TestDaemon::start();
    let file = hearth_tests::reference_model(daemon.dir(), "big", &[]);
    fs::File::options().write(true).open(&file).unwrap().set_len(64 << 20).unwrap();
    daemon.import(&file, "big", hearth_protocol::ImportMode::Copy);
    let params = ModelParams { model: "big".into() };
    let weights = daemon.client().call::<ModelExport>(&params).unwrap().weights.unwrap();
    let mut readers: Vec<_> =
        (0..20).map(|_| Blob::open(&daemon.socket(), &weights).unwrap()).collect();
    let mut first = [0; 4];
    for reader in &mut readers {
        reader.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"GGUF");
    }
    assert!(daemon.status().rss_bytes < 256 << 20, "{:?}", daemon.status());
    daemon.ctl(["export", "big", "whole.gguf"]).ok();
    drop(readers);
    daemon.stop_cleanly();
}
