//! An own store beside others: found, shadowed, damaged, gone, and not answering.

use std::fs;
use std::sync::mpsc::channel;
use std::time::Instant;

use super::*;
use crate::import::{ImportMode, import};
use hearth_gguf::testing::Writer;

fn name(text: &str) -> ModelName {
    text.parse().unwrap()
}

/// A folder for each store, under one.
struct Fixture {
    dir: tempfile::TempDir,
    stores: Stores,
}

impl Fixture {
    /// `own` has `a` and `both`; `first` has `both` and `b`; `second` has `B` and `c`.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (store, model) in [
            ("own", "a"),
            ("own", "both"),
            ("first", "both"),
            ("first", "b"),
            ("second", "B"),
            ("second", "c"),
        ] {
            put(dir.path(), store, model);
        }
        let at = |store: &str| dir.path().join(store);
        let own = Arc::new(Store::open(at("own")));
        let stores = Stores::new(own, ["first", "own", "second", "first"].map(at));
        Self { dir, stores }
    }

    fn store_of(&self, model: &str) -> Result<String, StoreError> {
        let (_, dir) = self.stores.find(&name(model))?;
        Ok(dir.strip_prefix(self.dir.path()).unwrap().display().to_string())
    }

    /// Every file of the other stores, and when it was written.
    fn others(&self) -> Vec<(PathBuf, std::time::SystemTime)> {
        fn walk(dir: &Path, files: &mut Vec<(PathBuf, std::time::SystemTime)>) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                files
                    .push((path.clone(), fs::symlink_metadata(&path).unwrap().modified().unwrap()));
                if path.is_dir() {
                    walk(&path, files);
                }
            }
        }
        let mut files = Vec::new();
        for store in ["first", "second"] {
            walk(&self.dir.path().join(store), &mut files);
        }
        files
    }
}

/// Imports a model with weights of its own.
fn put(dir: &Path, store: &str, model: &str) {
    let file = dir.join("file.gguf");
    let what = format!("{store} {model}");
    fs::write(&file, Writer::model().text("general.description", &what).bytes()).unwrap();
    let store = Store::open(dir.join(store));
    let mut go_on = |_| ControlFlow::Continue(());
    import(&store, &file, &name(model), ImportMode::Copy, &mut go_on).unwrap();
}

fn go_on(_: u64, _: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn a_name_means_what_the_first_store_says() {
    let fixture = Fixture::new();
    let stores = &fixture.stores;
    assert_eq!(stores.dirs().count(), 3, "each folder once");
    for (model, store) in [("a", "own"), ("BOTH", "own"), ("B", "first"), ("c", "second")] {
        assert_eq!(fixture.store_of(model).unwrap(), store, "{model}");
        let weights = stores.resolve(&name(model)).unwrap().model_path;
        assert!(weights.starts_with(fixture.dir.path().join(store)), "{model}: {weights:?}");
        assert_eq!(stores.show(&name(model)).unwrap().store, fixture.dir.path().join(store));
    }
    let names = |models: &[ModelEntry]| {
        let mut names: Vec<_> = models
            .iter()
            .map(|model| {
                let store = model.store.file_name().unwrap().to_str().unwrap();
                format!("{store} {}", model.name)
            })
            .collect();
        names.sort();
        names
    };
    let all = stores.list();
    assert!(all.problems.is_empty(), "{:?}", all.problems);
    assert_eq!(
        names(&all.models),
        ["first b:latest", "own a:latest", "own both:latest", "second c:latest"]
    );
    assert_eq!(names(&all.shadowed), ["first both:latest", "second B:latest"]);
    assert!(all.models.is_sorted_by_key(|model| std::cmp::Reverse(model.modified)));

    match stores.resolve(&name("bohd")).unwrap_err() {
        StoreError::ModelNotFound { nearest, .. } => assert_eq!(nearest.unwrap(), "both:latest"),
        other => panic!("{other}"),
    }
}

#[test]
fn what_is_found_in_another_store_is_brought_over_whole() {
    let fixture = Fixture::new();
    let (stores, before) = (&fixture.stores, fixture.others());
    let mut told = Vec::new();
    let copied = stores.copy(&name("c"), &name("mine"), &mut |done, total| {
        told.push((done, total));
        ControlFlow::Continue(())
    });
    assert_eq!(copied.unwrap().1, stores.manifest(&name("c")).unwrap().id());
    assert!(told.is_sorted() && told.iter().all(|(done, total)| done <= total), "{told:?}");
    let size = stores.manifest(&name("c")).unwrap().size();
    assert_eq!(told.last(), Some(&(size, size)));

    fs::remove_dir_all(fixture.dir.path().join("second")).unwrap();
    let model = stores.resolve(&name("mine")).unwrap();
    assert!(model.model_path.starts_with(fixture.dir.path().join("own")));
    assert!(stores.own.verify(&[], &mut go_on).unwrap().faults.is_empty());
    stores.copy(&name("b"), &name("b"), &mut go_on).unwrap();
    assert_eq!(fixture.store_of("b").unwrap(), "own");
    let first = fixture.dir.path().join("first");
    let of_first = |(path, _): &&(PathBuf, _)| path.starts_with(&first);
    put(fixture.dir.path(), "second", "c");
    let after = fixture.others();
    assert!(before.iter().filter(of_first).eq(after.iter().filter(of_first)));

    let cancelled = stores.copy(&name("c"), &name("d"), &mut |_, _| ControlFlow::Break(()));
    assert_eq!(cancelled.unwrap_err().kind(), "cancelled");
    assert!(fixture.store_of("d").is_err());
}

#[test]
fn a_blob_with_wrong_content_is_not_taken() {
    let fixture = Fixture::new();
    let stores = &fixture.stores;
    let weights = |model: &str| {
        let model = stores.resolve(&name(model)).unwrap();
        (model.model_digest, fs::metadata(&model.model_path).unwrap().len(), model.model_path)
    };
    let (digest, size, path) = weights("b");
    let take = || stores.take(&digest, size, &mut |_| ControlFlow::Continue(())).unwrap();
    let right = fs::read(&path).unwrap();
    let mut wrong = right.clone();
    *wrong.last_mut().unwrap() ^= 1;
    fs::write(&path, wrong).unwrap();
    assert!(!take());
    let error = stores.copy(&name("b"), &name("x"), &mut go_on).unwrap_err();
    assert_eq!(error.kind(), "blob_missing");
    // The next store has it right.
    fs::write(fixture.dir.path().join("second/blobs").join(digest.file_name()), right).unwrap();
    assert!(take());
    assert!(stores.own.blobs().check(&digest, size).is_ok());
    assert_eq!(stores.own.usage().unwrap().unfinished.n_files, 0);
}

#[test]
fn only_what_is_our_own_can_be_removed() {
    let fixture = Fixture::new();
    let (stores, before) = (&fixture.stores, fixture.others());
    let error = stores.delete(&name("C")).unwrap_err();
    assert_eq!(error.kind(), "not_ours");
    assert!(error.to_string().contains("second") && error.hint().is_some(), "{error}");
    assert_eq!(stores.delete(&name("none")).unwrap_err().kind(), "model_not_found");
    stores.delete(&name("both")).unwrap();
    assert_eq!(fixture.store_of("both").unwrap(), "first");
    assert_eq!(stores.delete(&name("both")).unwrap_err().kind(), "not_ours");
    assert_eq!(fixture.others(), before);
}

#[test]
fn a_store_that_is_gone_or_damaged_hides_no_other() {
    let fixture = Fixture::new();
    let stores = &fixture.stores;
    let first = fixture.dir.path().join("first");
    fs::rename(&first, fixture.dir.path().join("away")).unwrap();
    assert_eq!(fixture.store_of("c").unwrap(), "second");
    assert_eq!(fixture.store_of("b").unwrap(), "second");
    let all = stores.list();
    assert_eq!(all.models.len(), 4);
    assert_eq!(all.problems.len(), 1);
    assert_eq!(all.problems[0].path, first);
    let error = fixture.store_of("lost").unwrap_err();
    assert_eq!(error.kind(), "model_not_found");
    assert!(error.hint().unwrap().contains("first/manifests"), "{:?}", error.hint());

    fs::rename(fixture.dir.path().join("away"), &first).unwrap();
    let manifest = first.join("manifests").join(name("b").path());
    fs::write(&manifest, "{").unwrap();
    let all = stores.list();
    assert_eq!((all.models.len(), &all.problems[0].path), (4, &manifest));
    // It is the model of that name all the same.
    assert_eq!(stores.resolve(&name("b")).unwrap_err().kind(), "bad_manifest");
    assert_eq!(fixture.store_of("c").unwrap(), "second");
}

#[test]
fn every_store_is_verified_and_none_is_changed() {
    let fixture = Fixture::new();
    let (stores, before) = (&fixture.stores, fixture.others());
    let mut told = Vec::new();
    let verified = stores.verify(&[], &mut |done, total| {
        told.push((done, total));
        ControlFlow::Continue(())
    });
    let verified = verified.unwrap();
    assert_eq!((verified.n_models, verified.faults.len()), (6, 0));
    let total = told[0].1;
    assert!(told.is_sorted() && told.iter().all(|each| each.1 == total), "{told:?}");
    assert_eq!(told.last().unwrap().0, total);
    assert_eq!(fixture.others(), before);

    let weights = stores.resolve(&name("c")).unwrap().model_path;
    fs::write(&weights, "damaged").unwrap();
    let faults = |names: &[&str]| {
        let names: Vec<_> = names.iter().map(|text| name(text)).collect();
        stores.verify(&names, &mut go_on).unwrap().faults
    };
    assert_eq!(faults(&["a", "b"]).len(), 0);
    assert_eq!(faults(&["a", "C"])[0].model, Some(name("c")));
    fs::remove_dir_all(fixture.dir.path().join("first")).unwrap();
    assert_eq!(faults(&[]).len(), 2);
    assert_eq!(stores.verify(&[name("lost")], &mut go_on).unwrap_err().kind(), "model_not_found");
}

#[test]
fn a_store_that_does_not_answer_is_given_up_until_it_does() {
    let mut fixture = Fixture::new();
    fixture.stores.others[0].patience = Duration::from_millis(20);
    let stores = &fixture.stores;
    let (wake, asleep) = channel::<()>();
    let stuck = stores.others[0].ask(move |_| {
        let _ = asleep.recv();
        Ok(())
    });
    assert_eq!(stuck.unwrap_err().kind(), "no_answer");
    // Nobody waits for it a second time.
    let asked = stores.others[0].ask(|_| -> Result<(), _> { unreachable!("it is asked again") });
    assert_eq!(asked.unwrap_err().kind(), "no_answer");
    let all = stores.list();
    assert_eq!((all.models.len(), all.shadowed.len()), (4, 0));
    assert_eq!(all.problems[0].error.kind(), "no_answer");
    assert_eq!(fixture.store_of("B").unwrap(), "second");
    drop(wake);
    let deadline = Instant::now() + Duration::from_secs(60);
    while stores.others[0].late().strong_count() > 0 {
        assert!(Instant::now() < deadline, "it came back");
        std::thread::yield_now();
    }
    fixture.stores.others[0].patience = PATIENCE;
    assert_eq!(fixture.store_of("b").unwrap(), "first");
}
