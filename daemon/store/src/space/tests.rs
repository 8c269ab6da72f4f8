//! Models that share blobs, and what is left when they go.

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::SystemTime;

use super::*;
use crate::import::{ImportMode, import};
use hearth_gguf::testing::Writer;

struct Fixture {
    dir: tempfile::TempDir,
    store: Store,
}

fn name(text: &str) -> ModelName {
    text.parse().unwrap()
}

fn age(path: &Path, age: Duration) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - age).unwrap();
}

impl Fixture {
    /// `base` and `alias` are the same, `other` is not, and `linked` lies elsewhere.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fixture = Self { store: Store::open(dir.path().join("models")), dir };
        fixture.import("base", ImportMode::Copy);
        fixture.import("other", ImportMode::Copy);
        fixture.import("linked", ImportMode::Link);
        fixture.store.copy(&name("base"), &name("alias")).unwrap();
        fixture
    }

    fn import(&self, model: &str, mode: ImportMode) {
        let path = self.dir.path().join(model);
        fs::write(&path, Writer::model().text("general.description", model).bytes()).unwrap();
        import(&self.store, &path, &name(model), mode, &mut |_| ControlFlow::Continue(())).unwrap();
    }

    fn weights(&self, model: &str) -> PathBuf {
        self.store.resolve(&name(model)).unwrap().model_path
    }

    fn put(&self, file_name: &str, bytes: &[u8], old: Duration) -> PathBuf {
        let path = self.store.blobs().dir().join(file_name);
        fs::write(&path, bytes).unwrap();
        age(&path, old);
        path
    }

    fn models(&self) -> Vec<String> {
        let list = self.store.list();
        let mut names: Vec<_> = list.models.iter().map(|model| model.name.to_string()).collect();
        names.sort();
        names
    }
}

#[test]
fn a_copy_is_the_same_model_and_needs_no_space() {
    let fixture = Fixture::new();
    let before = fixture.store.usage().unwrap().total;
    let (copied, id) = fixture.store.copy(&name("base"), &name("more:1")).unwrap();
    assert_eq!((copied, id), (name("more:1"), fixture.store.manifest(&name("base")).unwrap().id()));
    assert_eq!(fixture.weights("more:1"), fixture.weights("base"));
    assert_eq!(fixture.store.usage().unwrap().total, before);
    // A name that is there in another spelling is replaced, not doubled.
    assert_eq!(
        fixture.store.copy(&name("other"), &name("MORE:1")).unwrap().0.to_string(),
        "more:1"
    );
    assert_eq!(fixture.weights("more:1"), fixture.weights("other"));
    let error = fixture.store.copy(&name("none"), &name("x")).unwrap_err();
    assert_eq!(error.kind(), "model_not_found");
}

#[test]
fn a_manifest_is_not_written_without_its_blobs() {
    let fixture = Fixture::new();
    let manifest = fixture.store.manifest(&name("base")).unwrap();
    fs::remove_file(fixture.weights("base")).unwrap();
    assert_eq!(fixture.store.commit(&name("new"), &manifest).unwrap_err().kind(), "blob_missing");
    assert_eq!(fixture.store.copy(&name("base"), &name("new")).unwrap_err().kind(), "blob_missing");
    assert!(!fixture.models().contains(&"new:latest".to_owned()));
}

#[test]
fn the_last_model_takes_its_blobs_along() {
    let fixture = Fixture::new();
    let weights = fixture.weights("base");
    let deleted = fixture.store.delete(&name("BASE")).unwrap();
    assert_eq!((deleted.name.to_string().as_str(), deleted.freed), ("base:latest", 0));
    assert!(deleted.problem.is_none());
    assert!(weights.exists());

    let size = fs::metadata(&weights).unwrap().len();
    assert_eq!(fixture.store.delete(&name("alias")).unwrap().freed, size);
    assert!(!weights.exists());
    assert_eq!(fixture.models(), ["linked:latest", "other:latest"]);
    assert_eq!(fixture.store.delete(&name("alias")).unwrap_err().kind(), "model_not_found");
    // The folders of the name are gone, those of the others are not.
    let library = fixture.store.catalog().path(&name("base")).parent().unwrap().to_owned();
    assert!(!library.exists() && library.parent().unwrap().exists());
}

#[test]
fn of_a_linked_model_only_the_link_goes() {
    let fixture = Fixture::new();
    let link = fixture.weights("linked");
    let target = fs::read_link(&link).unwrap();
    assert_eq!(fixture.store.delete(&name("linked")).unwrap().freed, 0);
    assert!(!link.is_symlink() && target.exists());
}

#[test]
fn an_empty_store_is_left_with_nothing() {
    let fixture = Fixture::new();
    for model in ["base", "alias", "other", "linked"] {
        fixture.store.delete(&name(model)).unwrap();
    }
    assert_eq!(fixture.store.usage().unwrap().total, Amount::default());
    let manifests = fixture.store.dir().join("manifests");
    assert_eq!(fs::read_dir(manifests).unwrap().count(), 0);
}

#[test]
fn where_a_manifest_cannot_be_read_no_blob_is_deleted() {
    let fixture = Fixture::new();
    let lost = fixture.put(&Digest::of(b"lost").file_name(), b"lost", BLOB_AGE * 2);
    let unreadable = fixture.store.catalog().path(&name("alias"));
    fs::write(&unreadable, "{").unwrap();
    let weights = fixture.weights("other");
    let deleted = fixture.store.delete(&name("other")).unwrap();
    assert_eq!((deleted.freed, &deleted.problem.unwrap().path), (0, &unreadable));
    assert!(weights.exists());
    let pruned = fixture.store.prune(false).unwrap();
    assert_eq!((pruned.removed.len(), &pruned.problem.unwrap().path), (0, &unreadable));
    assert!(lost.exists());

    // A link into a disk that is not there now may be a manifest too.
    fs::remove_file(&unreadable).unwrap();
    std::os::unix::fs::symlink("/none/manifest", &unreadable).unwrap();
    assert_eq!(fixture.store.prune(false).unwrap().problem.unwrap().path, unreadable);
    fs::remove_file(&unreadable).unwrap();

    // To remove the unreadable one itself is the way out.
    fs::write(&unreadable, "{").unwrap();
    assert!(fixture.store.delete(&name("alias")).unwrap().problem.is_none());
    assert_eq!(fixture.store.prune(false).unwrap().removed.len(), 1);
    assert!(!lost.exists() && fixture.weights("base").exists());
}

#[test]
fn usage_tells_what_is_shared_and_what_is_not() {
    let fixture = Fixture::new();
    fixture.put(&Digest::of(b"lost").file_name(), b"lost", BLOB_AGE * 2);
    fixture.put("sha256-abc-partial-0", b"part", Duration::ZERO);
    fixture.put("README", b"not ours", Duration::ZERO);
    let usage = fixture.store.usage().unwrap();
    assert!(usage.problems.is_empty());
    let weights = |model| fs::metadata(fixture.weights(model)).unwrap().len();
    let config = fixture.store.manifest(&name("base")).unwrap().config().size;
    let of = |model: &str| usage.models.iter().find(|usage| usage.name == name(model)).unwrap();
    for (model, own, shared, linked) in [
        ("base", 0, weights("base") + config, 0),
        ("alias", 0, weights("base") + config, 0),
        ("other", weights("other"), config, 0),
        ("linked", 0, config, weights("linked")),
    ] {
        let usage = of(model);
        assert_eq!((usage.own, usage.shared, usage.linked), (own, shared, linked), "{model}");
        assert_eq!(usage.size, own + shared + linked);
    }
    assert_eq!(usage.models[0].name, name("other"));
    assert_eq!(usage.unreferenced, Amount { n_files: 1, bytes: 4 });
    assert_eq!(usage.unfinished, Amount { n_files: 1, bytes: 4 });
    let bytes = weights("base") + weights("other") + config + 8;
    assert_eq!(usage.total, Amount { n_files: 6, bytes });
}

#[test]
fn only_what_is_old_and_idle_is_pruned() {
    let fixture = Fixture::new();
    let lost = fixture.put(&Digest::of(b"lost").file_name(), b"lost", BLOB_AGE * 2);
    let young = fixture.put(&Digest::of(b"young").file_name(), b"young", BLOB_AGE / 2);
    let [left, ollamas, today, live] =
        [("-import", 2), ("-partial-3", 2), ("-partial", 0), ("-pull", 2)]
            .map(|(end, n)| fixture.put(&format!("sha256-1{end}"), b"12", UNFINISHED_AGE * n));
    let other = fixture.put("notes.txt", b"not ours", UNFINISHED_AGE * 9);
    age(&fixture.weights("other"), UNFINISHED_AGE * 9);
    let writer = File::open(&live).unwrap();
    writer.lock().unwrap();

    let expected = [(&lost, 4, false), (&left, 2, true), (&ollamas, 2, true)];
    for dry_run in [true, false] {
        let mut pruned = fixture.store.prune(dry_run).unwrap();
        pruned.removed.sort_by_key(|removed| (removed.is_unfinished, removed.path.clone()));
        let mut removed: Vec<_> =
            pruned.removed.iter().map(|r| (&r.path, r.bytes, r.is_unfinished)).collect();
        removed.sort_by_key(|(path, ..)| expected.iter().position(|(other, ..)| other == path));
        assert_eq!(removed, expected);
        assert_eq!(pruned.spared, Amount { n_files: 3, bytes: 9 });
        assert!(expected.iter().all(|(path, ..)| path.exists() == dry_run));
    }
    assert!([young, today, live, other].iter().all(|path| path.exists()));
    assert!(fixture.store.prune(false).unwrap().removed.is_empty());
    assert_eq!(fixture.models().len(), 4);

    let absent = Store::open(fixture.dir.path().join("none"));
    assert!(absent.prune(false).unwrap().removed.is_empty());
    assert!(!absent.dir().exists());
}

/// Names come and go over the same blobs from many threads, each with the store opened anew.
#[test]
fn nobody_deletes_what_another_has_just_named() {
    const N_THREADS: usize = 4;
    const N_ROUNDS: usize = 30;
    let fixture = Fixture::new();
    let dir = fixture.store.dir();
    let source = fixture.dir.path().join("base");
    for model in ["base", "alias"] {
        fixture.store.delete(&name(model)).unwrap();
    }
    std::thread::scope(|scope| {
        for thread in 0..N_THREADS {
            let source = &source;
            scope.spawn(move || {
                let store = Store::open(dir);
                let ours = name(&format!("thread{thread}"));
                for _ in 0..N_ROUNDS {
                    let imported = import(&store, source, &ours, ImportMode::Copy, &mut |_| {
                        ControlFlow::Continue(())
                    });
                    match imported {
                        // It has its name, so its weights stay until it is deleted.
                        Ok(_) => {
                            store.resolve(&ours).unwrap();
                            store.delete(&ours).unwrap();
                        }
                        // Another deleted its last name before this one was written.
                        Err(error) => assert_eq!(error.kind(), "blob_missing"),
                    }
                }
            });
        }
    });
    assert_eq!(fixture.models(), ["linked:latest", "other:latest"]);
}
