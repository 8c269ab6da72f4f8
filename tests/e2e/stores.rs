//! Models in more folders than the daemon's own: found, shown, run, copied, pulled from, and never written to.

use crate::pull::{MIB, blob_path, noise, pull, source};
use hearth_protocol::{
    CopyParams, Empty, ErrorKind, ModelCopy, ModelDelete, ModelListMethod, ModelParams, ModelShow,
    ModelSummary, StoreUsageMethod, StoreVerify, VerifyParams,
};
use hearth_tests::{Registry, TestDaemon, refused};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A daemon with the models `own` and `both`, beside a folder `theirs` with `both` and `other`, and one that does not exist.
fn start() -> TestDaemon {
    let builder = TestDaemon::builder();
    let dir = builder.dir().display().to_string();
    let config = format!("more_models = [\"{dir}/theirs\", \"{dir}/gone\"]");
    let mut daemon = builder.config(&config).start();
    daemon.model("both", &[("seed", 1.into())]);
    daemon.model("other", &[("seed", 2.into())]);
    daemon.kill();
    fs::rename(daemon.dir().join("models"), daemon.dir().join("theirs")).unwrap();
    daemon.restart();
    daemon.model("own", &[("seed", 3.into())]);
    daemon.model("both", &[("seed", 4.into())]);
    daemon
}

fn list(daemon: &TestDaemon) -> hearth_protocol::ModelList {
    daemon.client().call::<ModelListMethod>(&Empty {}).unwrap()
}

fn weights(daemon: &TestDaemon, model: &str) -> PathBuf {
    daemon.client().call::<ModelShow>(&ModelParams { model: model.into() }).unwrap().path.into()
}

/// Every file in the other folder, and when anything about it changed.
fn theirs(daemon: &TestDaemon) -> Vec<(PathBuf, i64, i64)> {
    fn walk(path: &Path, files: &mut Vec<(PathBuf, i64, i64)>) {
        let metadata = fs::symlink_metadata(path).unwrap();
        files.push((path.into(), metadata.ctime(), metadata.ctime_nsec()));
        if metadata.is_dir() {
            fs::read_dir(path).unwrap().for_each(|entry| walk(&entry.unwrap().path(), files));
        }
    }
    let mut files = Vec::new();
    walk(&daemon.dir().join("theirs"), &mut files);
    files.sort();
    files
}

#[test]
fn models_are_found_in_order_and_ls_says_where() {
    let daemon = start();
    let before = theirs(&daemon);
    let all = list(&daemon);
    let at = |folder: &str| daemon.dir().join(folder).display().to_string();
    assert_eq!(all.stores, ["models", "theirs", "gone"].map(at));
    let places = |models: &[ModelSummary]| {
        let mut places: Vec<_> =
            models.iter().map(|model| (model.name.clone(), model.store.clone())).collect();
        places.sort();
        places
    };
    let expected = [("both", "models"), ("other", "theirs"), ("own", "models")];
    let expected = expected.map(|(name, folder)| (format!("{name}:latest"), at(folder)));
    assert_eq!(places(&all.models), expected);
    assert_eq!(places(&all.shadowed), [("both:latest".to_owned(), at("theirs"))]);
    assert_eq!(all.problems.len(), 1);
    assert!(all.problems[0].path.contains("/gone"), "{:?}", all.problems);

    let ran = daemon.ctl(["ls"]);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert!(lines[0].ends_with("STORE"), "{ran:?}");
    let line = lines.iter().find(|line| line.starts_with("other")).unwrap();
    assert!(line.ends_with(&at("theirs")), "{ran:?}");
    assert!(ran.stderr.contains("is hidden by") && ran.stderr.contains("/gone"), "{ran:?}");
    assert_eq!(daemon.ctl(["ls", "--json"]).json()["shadowed"].as_array().unwrap().len(), 1);
    assert!(daemon.ctl(["show", "other"]).ok().contains(&at("theirs")));

    daemon.ctl(["run", "other", "hello"]).ok();
    daemon.ctl(["stop", "other"]).ok();
    daemon.ctl(["prune"]).ok();
    assert!(weights(&daemon, "both").starts_with(daemon.dir().join("models")));
    let usage = daemon.client().call::<StoreUsageMethod>(&Empty {}).unwrap();
    let told: Vec<_> =
        usage.stores.iter().map(|store| (store.read_only, store.models.len())).collect();
    assert_eq!(told, [(false, 2), (true, 2), (true, 0)]);
    assert_eq!(usage.stores[2].problems.len(), 1);
    assert!(daemon.ctl(["du"]).ok().contains("theirs, only read\n"));
    assert_eq!(theirs(&daemon), before);
}

#[test]
fn a_daemon_with_one_folder_says_nothing_of_it() {
    let daemon = TestDaemon::start();
    daemon.model("own", &[]);
    assert!(!daemon.ctl(["ls"]).ok().contains("STORE"));
    assert_eq!(list(&daemon).stores.len(), 1);
}

#[test]
fn what_is_not_ours_is_not_removed() {
    let daemon = start();
    let before = theirs(&daemon);
    let delete =
        |model: &str| daemon.client().call::<ModelDelete>(&ModelParams { model: model.into() });
    let error = refused(delete("other"), ErrorKind::Unsupported);
    assert!(error.message.contains("theirs") && error.hint().is_some(), "{error:?}");
    let ran = daemon.ctl(["rm", "both"]);
    assert!(ran.stdout.contains("removed") && ran.stderr.contains("theirs"), "{ran:?}");
    assert!(weights(&daemon, "both").starts_with(daemon.dir().join("theirs")));
    refused(delete("both"), ErrorKind::Unsupported);
    assert_eq!(theirs(&daemon), before);
}

#[test]
fn a_copy_is_whole_without_the_folder_it_came_from() {
    let daemon = start();
    let before = theirs(&daemon);
    let id = |model: &str| {
        let models = list(&daemon).models;
        models.into_iter().find(|one| one.name == format!("{model}:latest")).unwrap().id
    };
    daemon.ctl(["cp", "other", "mine"]).ok();
    assert_eq!(id("mine"), id("other"));
    assert_eq!(theirs(&daemon), before);
    fs::rename(daemon.dir().join("theirs"), daemon.dir().join("away")).unwrap();
    daemon.ctl(["run", "mine", "hello"]).ok();
    let params = VerifyParams { models: vec!["mine".into()], repair: false, request: None };
    assert!(daemon.client().call::<StoreVerify>(&params).unwrap().faults.is_empty());
    // Of what is not there it is said that it may be elsewhere.
    let params = CopyParams { from: "other".into(), to: "x".into(), request: None };
    let error = refused(daemon.client().call::<ModelCopy>(&params), ErrorKind::ModelNotFound);
    assert!(error.hint().unwrap().contains("/theirs/"), "{error:?}");
}

#[test]
fn every_folder_is_verified_and_none_is_repaired() {
    let daemon = start();
    fs::create_dir_all(daemon.dir().join("gone/manifests")).unwrap();
    daemon.ctl(["verify"]).ok();
    let damaged = weights(&daemon, "other");
    fs::write(&damaged, "damaged").unwrap();
    let before = theirs(&daemon);
    let ran = daemon.ctl(["verify"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stdout.contains("`other:latest`: "), "{ran:?}");
    assert!(daemon.ctl(["verify", "own", "both"]).ok().contains("of 2 models read"));
    assert_eq!(theirs(&daemon), before);
}

#[test]
fn what_another_folder_has_is_not_fetched_again() {
    let registry = Registry::start();
    let weights = noise(5 * MIB + 3);
    registry.push("library/m", &[("model", &weights)]);
    let builder = TestDaemon::builder();
    let theirs = builder.dir().join("theirs");
    let config = format!("more_models = [\"{}\"]", theirs.display());
    let mut daemon = builder.config(&config).start();
    pull(&daemon, &source(registry.host()));
    daemon.kill();
    fs::rename(daemon.dir().join("models"), &theirs).unwrap();
    daemon.restart();

    fs::remove_file(registry.blob_path(&weights)).unwrap();
    pull(&daemon, &source(registry.host()));
    assert!(fs::read(blob_path(&daemon, &weights)).unwrap() == weights);
    assert_eq!(list(&daemon).shadowed.len(), 1);
}
