//! Reading every byte of models again, to know that it is what was stored.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;

use crate::digest::Digest;
use crate::error::StoreError;
use crate::manifest::Layer;
use crate::name::ModelName;
use crate::store::Store;

#[derive(Debug, Default)]
pub struct Verified {
    pub n_models: usize,
    pub n_blobs: usize,
    /// What was read.
    pub bytes: u64,
    pub faults: Vec<Fault>,
}

/// Something wrong with a model. A blob that several models have is wrong in each.
#[derive(Debug)]
pub struct Fault {
    /// `None` where what should be a manifest cannot be read.
    pub model: Option<ModelName>,
    /// `None` if it is the manifest.
    pub blob: Option<Layer>,
    pub path: PathBuf,
    pub message: String,
    pub hint: Option<String>,
}

impl Fault {
    fn new(model: Option<&ModelName>, path: PathBuf, error: &StoreError) -> Self {
        let (message, hint) = (error.to_string(), error.hint());
        Self { model: model.cloned(), blob: None, path, message, hint }
    }
}

/// The bytes read so far, and those there are to read.
type Progress<'p> = &'p mut dyn FnMut(u64, u64) -> ControlFlow<()>;

impl Store {
    /// Hashes every blob of these models once; of all models, if none is named. Takes no lock: of a
    /// model that is deleted meanwhile, blobs may be found missing.
    pub fn verify(
        &self,
        names: &[ModelName],
        progress: Progress<'_>,
    ) -> Result<Verified, StoreError> {
        let mut faults = Vec::new();
        let mut manifests = Vec::new();
        if names.is_empty() {
            let problems;
            (manifests, problems) = self.catalog().manifests();
            faults.extend(
                problems.into_iter().map(|problem| Fault::new(None, problem.path, &problem.error)),
            );
        }
        for name in names {
            let name = self.catalog().find(name)?;
            match self.catalog().read(&name) {
                Ok((manifest, _)) => manifests.push((name, manifest)),
                Err(error @ StoreError::ModelNotFound { .. }) => return Err(error),
                Err(error) => {
                    faults.push(Fault::new(Some(&name), self.catalog().path(&name), &error));
                }
            }
        }
        manifests.sort_by(|(a, _), (b, _)| a.cmp(b));

        let blobs = manifests.iter().flat_map(|(_, manifest)| manifest.blobs());
        let mut blobs: BTreeMap<(Digest, u64), Option<StoreError>> = blobs
            .map(|blob| (blob.digest, blob.size))
            .map(|(digest, size)| ((digest, size), self.blobs().check(&digest, size).err()))
            .collect();
        let sound = blobs.iter().filter(|(_, error)| error.is_none());
        let total = sound.map(|((_, size), _)| size).sum();
        let mut done = 0;
        for ((digest, size), error) in &mut blobs {
            if error.is_some() {
                continue;
            }
            // One that grows meanwhile is read to its end, but counts as what it was.
            let mut told = |n_read: u64| progress(done + n_read.min(*size), total);
            match self.blobs().verify(digest, *size, &mut told) {
                Err(cancelled @ StoreError::Cancelled { .. }) => return Err(cancelled),
                result => *error = result.err(),
            }
            done += size;
        }

        for (name, manifest) in &manifests {
            for ((digest, size), error) in &blobs {
                let is_part = |blob: &Layer| (blob.digest, blob.size) == (*digest, *size);
                if let Some(error) = error
                    && let Some(blob) = manifest.blobs().find(|blob| is_part(blob))
                {
                    let fault = Fault::new(Some(name), self.blobs().path(digest), error);
                    faults.push(Fault { blob: Some(blob.clone()), ..fault });
                }
            }
        }
        Ok(Verified { n_models: manifests.len(), n_blobs: blobs.len(), bytes: done, faults })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::{ImportMode, import};
    use hearth_gguf::testing::Writer;
    use std::fs;

    struct Fixture {
        dir: tempfile::TempDir,
        store: Store,
    }

    impl Fixture {
        /// `one` and `two` share their weights, `three` has its own, `linked` lies elsewhere.
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(dir.path().join("models"));
            for (file, name, mode) in [
                ("a", "one", ImportMode::Copy),
                ("b", "three", ImportMode::Copy),
                ("c", "linked", ImportMode::Link),
            ] {
                let path = dir.path().join(file);
                fs::write(&path, Writer::model().text("general.description", file).bytes())
                    .unwrap();
                let mut go_on = |_| ControlFlow::Continue(());
                import(&store, &path, &name.parse().unwrap(), mode, &mut go_on).unwrap();
            }
            store.copy(&"one".parse().unwrap(), &"two".parse().unwrap()).unwrap();
            Self { dir, store }
        }

        fn weights(&self, name: &str) -> PathBuf {
            self.store.resolve(&name.parse().unwrap()).unwrap().model_path
        }

        fn faults(&self, names: &[&str]) -> Vec<(String, String)> {
            let names: Vec<ModelName> = names.iter().map(|name| name.parse().unwrap()).collect();
            let verified =
                self.store.verify(&names, &mut |_, _| ControlFlow::Continue(())).unwrap();
            let fault = |fault: Fault| {
                assert!(fault.hint.is_some(), "{fault:?}");
                (fault.model.map(|name| name.to_string()).unwrap_or_default(), fault.message)
            };
            verified.faults.into_iter().map(fault).collect()
        }
    }

    #[test]
    fn what_is_whole_is_read_once_and_counted_truly() {
        let fixture = Fixture::new();
        let mut told = Vec::new();
        let verified = fixture.store.verify(&[], &mut |done, total| {
            told.push((done, total));
            ControlFlow::Continue(())
        });
        let verified = verified.unwrap();
        assert!(verified.faults.is_empty(), "{:?}", verified.faults);
        // Three files of weights and one config, which all have in common.
        assert_eq!((verified.n_models, verified.n_blobs), (4, 4));
        assert!(told.is_sorted(), "{told:?}");
        let total = told.first().unwrap().1;
        assert!(told.iter().all(|(_, each)| *each == total), "{told:?}");
        assert_eq!(told.last().unwrap().0, total);
        assert_eq!(verified.bytes, total);
    }

    #[test]
    fn each_fault_is_told_of_each_model_that_has_it() {
        let fixture = Fixture::new();
        let shared = fixture.weights("one");
        let mut bytes = fs::read(&shared).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&shared, bytes).unwrap();
        let damaged = fixture.faults(&[]);
        assert_eq!(damaged.len(), 2, "{damaged:?}");
        assert!(damaged.iter().all(|(_, message)| message.contains("its content has digest")));
        assert_eq!((&*damaged[0].0, &*damaged[1].0), ("one:latest", "two:latest"));
        assert_eq!(fixture.faults(&["three", "linked"]), []);

        fs::write(fixture.weights("three"), "short").unwrap();
        assert!(fixture.faults(&["three"])[0].1.contains("has 5 bytes, but its manifest says"));
        fs::remove_file(&shared).unwrap();
        assert!(fixture.faults(&["two"])[0].1.contains("is missing"));
        fs::remove_file(fixture.dir.path().join("c")).unwrap();
        assert!(fixture.faults(&["linked"])[0].1.contains("is gone"));

        let manifest = fixture.store.catalog().path(&"three".parse().unwrap());
        fs::write(manifest, "{").unwrap();
        assert!(fixture.faults(&["three"])[0].1.contains("cannot be used"));
        assert_eq!(fixture.faults(&[]).iter().filter(|(model, _)| model.is_empty()).count(), 1);
    }

    #[test]
    fn it_ends_when_it_is_told_to() {
        let fixture = Fixture::new();
        let mut n_told = 0;
        let error = fixture.store.verify(&[], &mut |_, _| {
            n_told += 1;
            ControlFlow::Break(())
        });
        assert_eq!(error.unwrap_err().kind(), "cancelled");
        assert_eq!(n_told, 1);
        let none = ["none".parse().unwrap()];
        let error = fixture.store.verify(&none, &mut |_, _| ControlFlow::Continue(()));
        assert_eq!(error.unwrap_err().kind(), "model_not_found");
    }
}
