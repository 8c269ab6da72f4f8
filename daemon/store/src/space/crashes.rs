//! Every change to a store, killed at every step, and with the disk full from every step on.
//!
//! The kill is a real one: the test starts itself again as a process that makes one change and kills
//! itself in the middle. Only what a power failure does to unsynced writes cannot be seen this way.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::*;
use crate::adopt::Piece;
use crate::create::Recipe;
use crate::import::{ImportMode, import};
use crate::new_blob::NewBlob;
use crate::partial::{Partial, PartialKey};
use crate::step::{Fault, run};
use hearth_gguf::testing::{Writer, split};

const CHILD: &str = "HEARTH_TEST_CRASH";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    ImportFirst,
    ImportCopy,
    ImportLink,
    Create,
    CreateUploaded,
    Replace,
    Alias,
    Delete,
    DeleteShared,
    Prune,
    Pull,
    PullOn,
    PullParts,
    Reweigh,
}

use Change::{
    Alias, Create, CreateUploaded, Delete, DeleteShared, ImportCopy, ImportFirst, ImportLink,
    Prune, Pull, PullOn, PullParts, Replace, Reweigh,
};
const CHANGES: [Change; 14] = [
    ImportFirst,
    ImportCopy,
    ImportLink,
    Create,
    CreateUploaded,
    Replace,
    Alias,
    Delete,
    DeleteShared,
    Prune,
    Pull,
    PullOn,
    PullParts,
    Reweigh,
];

fn name(text: &str) -> ModelName {
    text.parse().unwrap()
}

fn bring(dir: &Path, file: &str, model: &str, mode: ImportMode) -> Result<(), StoreError> {
    let store = Store::open(dir.join("models"));
    import(&store, &dir.join(file), &name(model), mode, &mut |_| ControlFlow::Continue(()))
        .map(drop)
}

fn create(store: &Store, recipe: Recipe) -> Result<(), StoreError> {
    let params = [("seed".to_owned(), 7.into())].into_iter().collect();
    let (system, licenses) = (Some("Be brief.".to_owned()), vec!["licence".to_owned()]);
    store.create(&name("target"), &Recipe { params, system, licenses, ..recipe }).map(drop)
}

/// A file of several pieces, as they come from elsewhere.
fn content() -> Vec<u8> {
    Writer::model().text("general.description", &"long".repeat(700_000)).bytes()
}

/// What a pull does to a store: each file by its pieces, unless it is there, and then the name.
fn pull(dir: &Path, files: &[Vec<u8>]) -> Result<(), StoreError> {
    let store = Store::open(dir.join("models"));
    let has = |piece: &Piece| {
        let go_on = &mut |_| ControlFlow::Continue(());
        store.blobs().verify(&piece.digest, piece.size, go_on).is_ok()
    };
    let piece = |file: &Vec<u8>| {
        let size = u64::try_from(file.len()).unwrap();
        Piece { digest: Digest::of(file), size, is_license: false }
    };
    let mut pieces: Vec<Piece> = files.iter().map(piece).collect();
    let digests: Vec<Digest> = pieces.iter().map(|piece| piece.digest).collect();
    if let Some(joined) = store.joined(&digests).filter(has) {
        pieces = vec![joined];
    } else {
        for (file, piece) in std::iter::zip(files, &pieces) {
            if !has(piece) {
                fetch(&store, file, u64::MAX)?.publish(&store, Some(piece.digest))?;
            }
        }
    }
    let (_, manifest) = store.adopt(&name("target"), &pieces)?;
    store.set_origin(&manifest.id(), "https://registry.example/m")
}

/// Stores so many of the pieces that are missing.
fn fetch(store: &Store, file: &[u8], mut n_pieces: u64) -> Result<Partial, StoreError> {
    let key = PartialKey::Content(Digest::of(file));
    let partial = Partial::open(store, key, u64::try_from(file.len()).unwrap())?;
    partial.recover(&mut |_| ControlFlow::Continue(()))?;
    for piece in 0..partial.n_pieces() {
        if n_pieces > 0 && !partial.missing(piece..piece + 1).is_empty() {
            let bytes = partial.bytes_of(piece..piece + 1);
            let at = |n: u64| usize::try_from(n).unwrap();
            partial.put(piece, &file[at(bytes.start)..at(bytes.end)])?;
            n_pieces -= 1;
        }
    }
    Ok(partial)
}

impl Change {
    /// The store before the change.
    fn prepare(self, dir: &Path) {
        for file in ["a", "b", "c"] {
            let bytes = Writer::model().text("general.description", file).bytes();
            fs::write(dir.join(file), bytes).unwrap();
        }
        if self == ImportFirst {
            return;
        }
        bring(dir, "a", "base", ImportMode::Copy).unwrap();
        bring(dir, "b", "target", ImportMode::Copy).unwrap();
        let store = Store::open(dir.join("models"));
        if self == PullOn {
            fetch(&store, &content(), 2).unwrap();
        }
        if self == DeleteShared {
            store.copy(&name("target"), &name("twin")).unwrap();
        }
        if self == Prune {
            for file_name in [Digest::of(b"lost").file_name(), "sha256-1-import".to_owned()] {
                let path = store.blobs().dir().join(file_name);
                fs::write(path, "lost").unwrap();
            }
            make_old(&store);
        }
    }

    fn make(self, dir: &Path) -> Result<(), StoreError> {
        let store = Store::open(dir.join("models"));
        match self {
            ImportFirst | ImportCopy => bring(dir, "c", "new", ImportMode::Copy),
            ImportLink => bring(dir, "c", "new", ImportMode::Link),
            Create => {
                let base = Some(store.manifest(&name("base"))?);
                create(&store, Recipe { base, ..Recipe::default() })
            }
            CreateUploaded => {
                let mut blob = NewBlob::create(&store)?;
                for piece in fs::read(dir.join("c")).unwrap().chunks(100) {
                    blob.append(piece)?;
                }
                let files = vec![blob.publish(None)?];
                create(&store, Recipe { files, ..Recipe::default() })
            }
            Replace => bring(dir, "c", "target", ImportMode::Copy),
            Alias => store.copy(&name("base"), &name("target")).map(drop),
            Delete | DeleteShared => store.delete(&name("target")).map(drop),
            Prune => store.prune(false).map(drop),
            Pull | PullOn => pull(dir, &[content()]),
            PullParts => pull(dir, &split(&Writer::model().bytes(), 2)),
            Reweigh => {
                let staged = store.stage()?;
                fs::copy(dir.join("c"), staged.path()).unwrap();
                let base = store.manifest(&name("base"))?;
                let go_on = &mut |_, _| ControlFlow::Continue(());
                store.reweigh(&base, staged, &name("target"), go_on).map(drop)
            }
        }
    }
}

/// Lets every file look as if nobody had touched it for long.
pub(crate) fn make_old(store: &Store) {
    for file in store.blobs().files().unwrap() {
        // 1970, also for links themselves.
        let long_ago = Timespec { tv_sec: 0, tv_nsec: 0 };
        let times = Timestamps { last_access: long_ago, last_modification: long_ago };
        utimensat(CWD, &file.path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

/// By name.
type Models = BTreeMap<String, Digest>;

/// All models with their ids, each of them whole.
fn models(dir: &Path) -> Models {
    let store = Store::open(dir.join("models"));
    store.verify_invariants();
    store.list().models.into_iter().map(|model| (model.name.to_string(), model.id)).collect()
}

/// Makes a change with a fault at each of its steps in turn. Then the store is as it was before, if
/// that was not said to be done, or as it was to be; making the change again makes it so; and what
/// was left lying about can be pruned.
fn each_step(change: Change, mut is_done: impl FnMut(&Path, u32) -> bool) {
    let dir = tempfile::tempdir().unwrap();
    change.prepare(dir.path());
    let before = models(dir.path());
    let (made, n_steps) = run(Fault::None, || change.make(dir.path()));
    made.unwrap();
    let after = models(dir.path());
    assert!(n_steps >= 3, "{change:?} has {n_steps} steps");
    for n_step in 0..n_steps {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        change.prepare(dir);
        let is_done = is_done(dir, n_step);

        let found = models(dir);
        let what = format!("{change:?} with a fault at step {n_step} of {n_steps}");
        assert!(found == after || found == before && !is_done, "{what}: {found:?}");
        if let Err(error) = change.make(dir) {
            assert!(found == after && error.kind() == "model_not_found", "{what}: {error}");
        }
        assert_eq!(models(dir), after, "{what}");
        let store = Store::open(dir.join("models"));
        make_old(&store);
        store.prune(false).unwrap();
        let usage = store.usage().unwrap();
        assert_eq!((usage.unreferenced, usage.unfinished), Default::default(), "{what}");
        assert_eq!(models(dir), after, "{what}");
    }
}

#[test]
fn a_store_survives_a_kill_at_every_step() {
    if let Ok(text) = std::env::var(CHILD) {
        let [change, n_step, dir] = text.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!() };
        let change = CHANGES[change.parse::<usize>().unwrap()];
        let (_, n_steps) =
            run(Fault::Kill(n_step.parse().unwrap()), || change.make(Path::new(dir)));
        panic!("it had only {n_steps} steps");
    }
    for (idx, change) in CHANGES.into_iter().enumerate() {
        each_step(change, |dir, n_step| {
            let test = "space::crashes::a_store_survives_a_kill_at_every_step";
            let child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", test, "--nocapture"])
                .env(CHILD, format!("{idx} {n_step} {}", dir.display()))
                .output()
                .unwrap();
            assert_eq!(child.status.signal(), Some(9), "{change:?} {n_step}: {child:?}");
            false
        });
    }
}

#[test]
fn a_store_survives_a_full_disk_at_every_step() {
    for change in CHANGES {
        each_step(change, |dir, n_step| {
            let (made, _) = run(Fault::Full(n_step), || change.make(dir));
            if let Err(error) = &made {
                assert!(error.hint().unwrap().contains("free some space"), "{error}");
            }
            made.is_ok()
        });
    }
}

#[test]
fn what_gives_space_back_needs_none() {
    for change in [Delete, DeleteShared, Prune] {
        let dir = tempfile::tempdir().unwrap();
        change.prepare(dir.path());
        run(Fault::Full(0), || change.make(dir.path())).0.unwrap();
    }
}
