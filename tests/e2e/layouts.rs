//! `ctl import` of an OCI layout: what `ctl export` wrote, and what others did.

use hearth_protocol::{ModelExport, ModelParams};
use hearth_tests::{Registry, TestDaemon, digest, reference_model, run};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Its id, and the digest of each of its blobs.
fn parts(daemon: &TestDaemon, model: &str) -> (String, Vec<String>) {
    let params = ModelParams { model: model.into() };
    let exported = daemon.client().call::<ModelExport>(&params).unwrap();
    (exported.id, exported.blobs.into_iter().map(|blob| blob.digest).collect())
}

#[test]
fn what_was_exported_comes_back_as_it_was() {
    let daemon = TestDaemon::start();
    daemon.model("m", &[("seed", 1.into())]);
    daemon.add_layers("m", &[("system", "Be brief."), ("license", "as you like")]);
    daemon.model("other", &[("seed", 2.into())]);
    let was = ["m", "other"].map(|model| parts(&daemon, model));
    daemon.ctl(["export", "m", "one/"]).ok();
    for model in ["m", "other"] {
        daemon.ctl(["export", model, "both/"]).ok();
        daemon.ctl(["rm", model]).ok();
    }

    let said = daemon.ctl(["import", "one"]).ok();
    assert_eq!(said, "`m:latest` imported: copied into the store\n");
    assert_eq!(parts(&daemon, "m"), was[0]);
    assert!(daemon.ctl(["show", "m"]).ok().contains("Be brief."));
    let said = daemon.ctl(["import", "one", "again"]).ok();
    assert_eq!(said, "`again:latest` imported: the store had its bytes already\n");
    daemon.ctl(["run", "again", "hello"]).ok();

    let ran = daemon.ctl(["import", "both"]);
    assert!(ran.code == Some(1), "{ran:?}");
    assert!(ran.stderr.contains("name one of `m:latest`, `other:latest`"), "{ran:?}");
    daemon.ctl(["import", "both", "other"]).ok();
    assert_eq!(parts(&daemon, "other"), was[1]);
}

#[test]
fn a_layout_may_stay_where_it_is() {
    let daemon = TestDaemon::start();
    daemon.model("m", &[]);
    daemon.ctl(["export", "m", "layout/"]).ok();
    daemon.ctl(["rm", "m"]).ok();
    let said = daemon.ctl(["import", "layout", "--link"]).ok();
    assert!(said.starts_with("`m:latest` imported: linked; "), "{said}");
    daemon.ctl(["run", "m", "hello"]).ok();
    fs::remove_dir_all(daemon.dir().join("layout")).unwrap();
    let ran = daemon.ctl(["show", "m"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("gone"), "{ran:?}");
}

#[test]
fn what_skopeo_brings_from_a_registry_is_a_model() {
    let daemon = TestDaemon::start();
    let registry = Registry::start();
    let weights = fs::read(reference_model(daemon.dir(), "m", &[])).unwrap();
    let layer = |bytes: &[u8], media_type: &str| {
        let mut layer = registry.push_blob("me/m", bytes);
        layer["mediaType"] = media_type.into();
        layer
    };
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": manifest_type,
        "config": layer(b"{}", "application/vnd.docker.ai.model.config.v0.1+json"),
        "layers": [layer(&weights, "application/vnd.docker.ai.gguf.v3")],
    });
    registry.push_manifest("me/m", manifest_type, &manifest);
    let mut skopeo = Command::new("skopeo");
    skopeo
        .args(["copy", "--quiet", "--src-tls-verify=false", "--insecure-policy"])
        .arg(format!("docker://{}/me/m:latest", registry.host()))
        .arg("oci:layout")
        .current_dir(daemon.dir());
    run(&mut skopeo, "").ok();

    let ran = daemon.ctl(["import", "layout"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("give a name"), "{ran:?}");
    daemon.ctl(["import", "layout", "packed"]).ok();
    assert!(parts(&daemon, "packed").1.contains(&digest(&weights)));
    daemon.ctl(["run", "packed", "hello"]).ok();
}

fn edit(file: &Path, edit: impl FnOnce(&mut Value)) {
    let mut json = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    edit(&mut json);
    fs::write(file, json.to_string()).unwrap();
}

#[test]
fn a_layout_that_is_none_leaves_no_model() {
    let daemon = TestDaemon::start();
    daemon.model("m", &[]);
    daemon.ctl(["export", "m", "layout/"]).ok();
    daemon.ctl(["rm", "m"]).ok();
    let layout = daemon.dir().join("layout");
    let (index, blobs) = (layout.join("index.json"), layout.join("blobs/sha256"));
    let good = fs::read(&index).unwrap();
    let refused = |why: &str| {
        let ran = daemon.ctl(["import", "layout", "m"]);
        assert!(ran.code == Some(1) && ran.stderr.contains(why), "{why}: {ran:?}");
        assert_eq!(daemon.ctl(["ls", "--json"]).json()["models"], json!([]));
    };
    for (digest, why) in [
        ("sha256:../../../../../../etc/passwd".to_owned(), "not a digest"),
        (digest(b"nothing"), "cannot open"),
        (json!({}).to_string(), "not a digest"),
    ] {
        edit(&index, |index| index["manifests"][0]["digest"] = digest.into());
        refused(why);
        fs::write(&index, &good).unwrap();
    }

    // A blob's size is not the manifest's, its bytes are not its digest's, and it would block for ever.
    let exported: Value = serde_json::from_slice(&good).unwrap();
    let manifest = exported["manifests"][0]["digest"].as_str().unwrap().replace("sha256:", "");
    let text = fs::read(blobs.join(&manifest)).unwrap();
    let mut other: Value = serde_json::from_slice(&text).unwrap();
    let weights = other["layers"][0]["digest"].as_str().unwrap().replace("sha256:", "");
    other["layers"][0]["size"] = u64::MAX.into();
    let other = other.to_string();
    fs::write(blobs.join(digest(other.as_bytes()).replace("sha256:", "")), &other).unwrap();
    edit(&index, |index| index["manifests"][0]["digest"] = digest(other.as_bytes()).into());
    refused("bytes, but its manifest says 18446744073709551615");
    fs::write(&index, &good).unwrap();

    fs::write(blobs.join(&weights), "GGUF").unwrap();
    refused("must have");
    fs::remove_file(blobs.join(&weights)).unwrap();
    run(daemon.command("mkfifo").arg(blobs.join(&weights)), "").ok();
    refused("not a regular file");
    fs::remove_file(layout.join("oci-layout")).unwrap();
    refused("ctl create");
}
