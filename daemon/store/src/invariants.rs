//! What holds of a store at every moment, and random lists of changes after each of which it is looked at.
//!
//! Some changes are killed in the middle: by a process of their own, as in `space/crashes.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use hearth_gguf::testing::Writer;
use proptest::prelude::*;

use crate::adopt::Piece;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::import::{ImportMode, import};
use crate::name::ModelName;
use crate::space::crashes::make_old;
use crate::step::{Fault, run};
use crate::store::Store;

const CHILD: &str = "HEARTH_TEST_CHANGE";
const NAMES: [&str; 4] = ["a", "A:v2", "b", "host/space/c:1"];
const N_FILES: usize = 3;

impl Store {
    /// Panics if the store is not as it must be when nobody writes to it.
    #[track_caller]
    pub(crate) fn verify_invariants(&self) {
        let list = self.list();
        assert!(list.problems.is_empty(), "{:?}", list.problems);
        let verified = self.verify(&[], &mut |_, _| ControlFlow::Continue(())).unwrap();
        assert!(verified.faults.is_empty(), "{:?}", verified.faults);
        assert_eq!(verified.n_models, list.models.len());
        for entry in &list.models {
            assert_eq!(self.resolve(&entry.name).unwrap().id, entry.id);
        }

        let (mut n_files, mut bytes, mut n_unfinished) = (0, 0, 0);
        for file in self.blobs().files().unwrap() {
            n_files += 1;
            bytes += file.bytes();
            match file.digest {
                Some(digest) => {
                    assert_eq!(Digest::of(&fs::read(&file.path).unwrap()), digest, "{file:?}");
                }
                None => n_unfinished += 1,
            }
        }
        let usage = self.usage().unwrap();
        assert_eq!((usage.total.n_files, usage.total.bytes), (n_files, bytes));
        assert_eq!(usage.unfinished.n_files, n_unfinished);
        for model in &usage.models {
            assert_eq!(model.size, model.own + model.shared + model.linked, "{model:?}");
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Import { file: usize, name: usize, is_link: bool },
    Adopt { file: usize, name: usize },
    Copy { from: usize, to: usize },
    Delete { name: usize },
    Prune,
}

#[derive(Debug, Clone, Copy)]
struct Op {
    change: Change,
    /// The step at which its process is killed.
    kill: Option<u32>,
}

/// What each name means: the number of the file.
type Models = BTreeMap<ModelName, usize>;

fn name(idx: usize) -> ModelName {
    NAMES[idx].parse().unwrap()
}

fn content(file: usize) -> Vec<u8> {
    Writer::model().text("general.description", &format!("file {file}")).bytes()
}

impl Change {
    fn make(self, dir: &Path) -> Result<(), StoreError> {
        let store = Store::open(dir.join("models"));
        match self {
            Self::Import { file, name: idx, is_link } => {
                let how = if is_link { ImportMode::Link } else { ImportMode::Copy };
                let mut go_on = |_| ControlFlow::Continue(());
                import(&store, &dir.join(file.to_string()), &name(idx), how, &mut go_on).map(drop)
            }
            Self::Adopt { file, name: idx } => {
                let bytes = content(file);
                let size = u64::try_from(bytes.len()).unwrap();
                let piece = Piece { digest: store.blobs().write(&bytes)?, size, is_license: false };
                store.adopt(&name(idx), &[piece]).map(drop)
            }
            Self::Copy { from, to } => store.copy(&name(from), &name(to)).map(drop),
            Self::Delete { name: idx } => store.delete(&name(idx)).map(drop),
            Self::Prune => store.prune(false).map(drop),
        }
    }

    /// The models after it; `None` if it is an error.
    fn expected(self, models: &Models) -> Option<Models> {
        let mut models = models.clone();
        match self {
            Self::Import { file, name: idx, .. } | Self::Adopt { file, name: idx } => {
                models.insert(name(idx), file);
            }
            Self::Copy { from, to } => {
                let file = *models.get(&name(from))?;
                models.insert(name(to), file);
            }
            Self::Delete { name: idx } => {
                models.remove(&name(idx))?;
            }
            Self::Prune => {}
        }
        Some(models)
    }

    /// For a child's environment.
    fn numbers(self) -> [usize; 4] {
        match self {
            Self::Import { file, name, is_link } => [0, file, name, is_link.into()],
            Self::Adopt { file, name } => [1, file, name, 0],
            Self::Copy { from, to } => [2, from, to, 0],
            Self::Delete { name } => [3, name, 0, 0],
            Self::Prune => [4, 0, 0, 0],
        }
    }

    fn of_numbers(numbers: [usize; 4]) -> Self {
        match numbers {
            [0, file, name, is_link] => Self::Import { file, name, is_link: is_link == 1 },
            [1, file, name, _] => Self::Adopt { file, name },
            [2, from, to, _] => Self::Copy { from, to },
            [3, name, ..] => Self::Delete { name },
            _ => Self::Prune,
        }
    }
}

fn models(store: &Store) -> Models {
    let digests: Vec<_> = (0..N_FILES).map(|file| Digest::of(&content(file))).collect();
    let file_of = |digest| digests.iter().position(|each| *each == digest).unwrap();
    let entries = store.list().models.into_iter();
    entries
        .map(|entry| {
            (entry.name.clone(), file_of(store.resolve(&entry.name).unwrap().model_digest))
        })
        .collect()
}

/// Whether the change was killed.
fn make_killed(change: Change, kill: u32, dir: &Path) -> bool {
    let numbers = change.numbers().map(|number| number.to_string()).join(" ");
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "invariants::they_hold_whatever_is_done", "--nocapture"])
        .env(CHILD, format!("{kill} {numbers} {}", dir.display()))
        .output()
        .unwrap();
    assert!(child.status.signal() == Some(9) || child.status.success(), "{child:?}");
    !child.status.success()
}

fn change_from(text: &str) {
    let words: Vec<&str> = text.splitn(6, ' ').collect();
    let numbers: Vec<usize> = words[..5].iter().map(|word| word.parse().unwrap()).collect();
    let change = Change::of_numbers(numbers[1..].try_into().unwrap());
    let kill = Fault::Kill(numbers[0].try_into().unwrap());
    // It may be an error, or have fewer steps.
    let _ = run(kill, || change.make(Path::new(words[5])));
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let (file, name) = (0..N_FILES, 0..NAMES.len());
    let change = prop_oneof![
        3 => (file.clone(), name.clone(), any::<bool>())
            .prop_map(|(file, name, is_link)| Change::Import { file, name, is_link }),
        1 => (file, name.clone()).prop_map(|(file, name)| Change::Adopt { file, name }),
        2 => (name.clone(), name.clone()).prop_map(|(from, to)| Change::Copy { from, to }),
        2 => name.prop_map(|name| Change::Delete { name }),
        1 => Just(Change::Prune),
    ];
    let kill = prop::option::weighted(0.2, 0_u32..20);
    prop::collection::vec((change, kill).prop_map(|(change, kill)| Op { change, kill }), 1..25)
}

#[test]
fn they_hold_whatever_is_done() {
    if let Ok(text) = std::env::var(CHILD) {
        return change_from(&text);
    }
    let mut config = ProptestConfig::with_cases(24);
    config.failure_persistence = None;
    proptest!(config, |(ops in ops())| {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        for file in 0..N_FILES {
            fs::write(dir.join(file.to_string()), content(file)).unwrap();
        }
        let store = Store::open(dir.join("models"));
        let mut known = Models::new();
        for Op { change, kill } in ops {
            if matches!(change, Change::Prune) && store.blobs().dir().exists() {
                make_old(&store);
            }
            let expected = change.expected(&known);
            if kill.is_some_and(|step| make_killed(change, step, dir)) {
                let found = models(&store);
                prop_assert!(found == known || Some(&found) == expected.as_ref(), "{found:?}");
                known = found;
            } else {
                if kill.is_none() {
                    prop_assert_eq!(change.make(dir).is_ok(), expected.is_some());
                }
                known = expected.unwrap_or(known);
                prop_assert_eq!(&models(&store), &known);
            }
            if matches!(change, Change::Prune) && kill.is_none() {
                let usage = store.usage().unwrap();
                prop_assert_eq!((usage.unreferenced, usage.unfinished), Default::default());
            }
            store.verify_invariants();
        }
    });
}
