//! Several stores in order: the daemon's own, and others that it only reads.
//!
//! A name means what the first store that has it says. Nothing is ever written to another store, not
//! even a lock, so it may be read-only and somebody else's. What is to be kept of it is brought into
//! the own one, as a reflink or a copy: a reference would end with the other store.
//!
//! Another store may lie on a disk that has gone away, so it is looked at as `look` does.

use std::collections::HashSet;
use std::fs::File;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crate::catalog::Problem;
use crate::digest::Digest;
use crate::disk;
use crate::error::StoreError;
use crate::import::ImportMode;
use crate::look::{Look, PATIENCE};
use crate::manifest::Manifest;
use crate::name::ModelName;
use crate::space::Deleted;
use crate::store::{ModelEntry, ResolvedModel, ShownModel, Store};
use crate::verify::{Fault, Verified};

#[derive(Debug)]
pub struct Stores {
    own: Arc<Store>,
    others: Vec<Other>,
}

/// What all stores have.
#[derive(Debug, Default)]
pub struct AllModels {
    /// What names mean; newest first.
    pub models: Vec<ModelEntry>,
    /// Models whose names mean another, of an earlier store.
    pub shadowed: Vec<ModelEntry>,
    pub problems: Vec<Problem>,
}

#[derive(Debug)]
struct Other {
    store: Arc<Store>,
    patience: Duration,
    /// Alive as long as a look at it that was given up goes on.
    late: Mutex<Weak<()>>,
}

/// A look at another store.
struct Asked<'o, T> {
    other: &'o Other,
    look: Look<Result<T, StoreError>>,
}

impl Stores {
    /// Touches none of them.
    pub fn new(own: Arc<Store>, others: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut dirs = HashSet::from([own.dir().to_owned()]);
        let others = others.into_iter().filter(|dir| dirs.insert(dir.clone()));
        let others = others.map(|dir| Other::new(dir, PATIENCE)).collect();
        Self { own, others }
    }

    /// The one that is written to.
    pub fn own(&self) -> &Arc<Store> {
        &self.own
    }

    /// In order, beginning with the one that is written to.
    pub fn dirs(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(self.own.dir()).chain(self.others.iter().map(|other| other.store.dir()))
    }

    /// Looks at all of them at once. One that cannot be read does not hide the others.
    pub fn each<T: Send + 'static>(
        &self,
        look: fn(&Store) -> Result<T, StoreError>,
    ) -> Vec<(PathBuf, Result<T, StoreError>)> {
        let looks =
            |other| Other::look(other, move |store| store.exists().and_then(|()| look(store)));
        let looks: Vec<_> = self.others.iter().map(looks).collect();
        let own = look(&self.own);
        let answers = looks.into_iter().map(|asked| asked.and_then(Asked::answer));
        self.dirs().map(Path::to_owned).zip(std::iter::once(own).chain(answers)).collect()
    }

    pub fn list(&self) -> AllModels {
        let mut all = AllModels::default();
        let mut names = HashSet::new();
        for (dir, list) in self.each(|store| Ok(store.list())) {
            match list {
                Ok(list) => {
                    let (models, shadowed): (Vec<_>, Vec<_>) =
                        list.models.into_iter().partition(|model| names.insert(model.name.clone()));
                    all.models.extend(models);
                    all.shadowed.extend(shadowed);
                    all.problems.extend(list.problems);
                }
                Err(error) => all.problems.push(Problem { path: dir, error }),
            }
        }
        ModelEntry::sort(&mut all.models);
        all
    }

    /// The name as it is spelled in the store that has the model, and that store's folder.
    pub fn find(&self, name: &ModelName) -> Result<(ModelName, PathBuf), StoreError> {
        self.first(name, |store, name| Ok((name.clone(), store.dir().to_owned())))
    }

    /// See [`Store::resolve`].
    pub fn resolve(&self, name: &ModelName) -> Result<ResolvedModel, StoreError> {
        self.first(name, Store::resolve)
    }

    /// See [`Store::show`].
    pub fn show(&self, name: &ModelName) -> Result<ShownModel, StoreError> {
        self.first(name, Store::show)
    }

    /// See [`Store::manifest`].
    pub fn manifest(&self, name: &ModelName) -> Result<Manifest, StoreError> {
        self.first(name, Store::manifest)
    }

    /// Opens a blob for reading, wherever it is.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, StoreError> {
        let open =
            |digest: Digest| move |store: &Store| disk::open_file(&store.blobs().find(&digest)?.0);
        let missing = match open(*digest)(&self.own) {
            Err(error @ StoreError::BlobMissing { .. }) => error,
            result => return result,
        };
        let mut opened = self.others.iter().map(|other| other.ask(open(*digest)));
        opened.find_map(Result::ok).ok_or(missing)
    }

    /// Gives a model one more name in the own store, and brings its blobs there if another has them.
    pub fn copy(
        &self,
        from: &ModelName,
        to: &ModelName,
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<(ModelName, Digest), StoreError> {
        match self.own.copy(from, to) {
            Err(StoreError::ModelNotFound { .. }) => {}
            copied => return copied,
        }
        let manifest = self.manifest(from)?;
        self.bring(&manifest, progress)?;
        Ok((self.own.commit(to, &manifest)?, manifest.id()))
    }

    /// Brings what the own store does not have of a manifest's blobs. `progress` gets the bytes of
    /// those that are there so far, and that are to be there.
    pub fn bring(
        &self,
        manifest: &Manifest,
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let (mut done, total) = (0, manifest.size());
        for blob in manifest.blobs() {
            let is_here = self.own.blobs().check(&blob.digest, blob.size).map(drop);
            if let Err(missing) = is_here {
                let mut told = |n_bytes| progress(done + n_bytes, total);
                if !self.take(&blob.digest, blob.size, &mut told)? {
                    return Err(missing);
                }
            } else {
                self.own.blobs().touch(&blob.digest);
            }
            done += blob.size;
            if progress(done, total).is_break() {
                return Err(StoreError::Cancelled { name: blob.digest.to_string() });
            }
        }
        Ok(())
    }

    /// Brings a blob from another store, if one has it with the right content.
    pub fn take(
        &self,
        digest: &Digest,
        size: u64,
        progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<bool, StoreError> {
        for other in &self.others {
            let wanted = *digest;
            let there = other.ask(move |store| store.blobs().check(&wanted, size));
            let Ok(path) = there else { continue };
            match self.take_from(other, wanted, size, path, progress) {
                Ok(()) => return Ok(true),
                Err(
                    StoreError::WrongContent { .. }
                    | StoreError::SourceChanged { .. }
                    | StoreError::NoAnswer { .. },
                ) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Reads as long as bytes come; the own disk may take its time with them.
    fn take_from(
        &self,
        other: &Other,
        digest: Digest,
        size: u64,
        path: PathBuf,
        progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let own = Arc::clone(&self.own);
        let (sender, news) = mpsc::channel();
        let asked = other.look(move |_| {
            // Nobody listens any more to one that is given up or cancelled.
            let mut told = |n_bytes| match sender.send(n_bytes) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            };
            own.take(&digest, &path, ImportMode::Auto, &mut told).map(drop)
        })?;
        let mut patience = Some(other.patience);
        loop {
            let next = match patience {
                Some(patience) => news.recv_timeout(patience),
                None => news.recv().map_err(Into::into),
            };
            match next {
                Ok(n_bytes) if progress(n_bytes).is_break() => {
                    return Err(StoreError::Cancelled { name: digest.to_string() });
                }
                Ok(n_bytes) => patience = patience.filter(|_| n_bytes < size),
                Err(RecvTimeoutError::Timeout) => return asked.within(Duration::ZERO),
                Err(RecvTimeoutError::Disconnected) => return asked.within(Duration::MAX),
            }
        }
    }

    /// See [`Store::verify`]. A store that cannot be read at all is a fault if no models are named.
    pub fn verify(
        &self,
        names: &[ModelName],
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<Verified, StoreError> {
        let found = names.iter().map(|name| self.find(name)).collect::<Result<Vec<_>, _>>()?;
        let stores = std::iter::once(&self.own).chain(self.others.iter().map(|other| &other.store));
        let mut verified = Verified::default();
        let mut parts = Vec::new();
        for (store, (dir, list)) in stores.zip(self.each(|store| Ok(store.list()))) {
            let names: Vec<_> = found.iter().filter(|found| found.1 == dir).collect();
            let is_whole = found.is_empty();
            match list {
                Err(error) if is_whole => verified.faults.push(Fault {
                    blob: None,
                    model: None,
                    path: dir,
                    message: error.to_string(),
                    hint: error.hint(),
                }),
                Ok(list) if is_whole || !names.is_empty() => {
                    let names: Vec<_> = names.into_iter().map(|(name, _)| name.clone()).collect();
                    let models = list.models.iter();
                    let asked = models.filter(|model| is_whole || names.contains(&model.name));
                    let size: u64 = asked.map(|model| model.size).sum();
                    parts.push((store, names, size));
                }
                _ => {}
            }
        }
        // What models share is read once, so each store's part is filled in proportion.
        let total = parts.iter().map(|(.., size)| size).sum();
        let mut before = 0;
        for (store, names, size) in parts {
            let part = store.verify(&names, &mut |done, of| {
                let done = u128::from(size) * u128::from(done) / u128::from(of.max(1));
                progress(before + u64::try_from(done).unwrap_or(size), total)
            })?;
            before += size;
            verified.n_models += part.n_models;
            verified.n_blobs += part.n_blobs;
            verified.bytes += part.bytes;
            verified.faults.extend(part.faults);
        }
        Ok(verified)
    }

    /// Removes a model from the own store; see [`Store::delete`].
    pub fn delete(&self, name: &ModelName) -> Result<Deleted, StoreError> {
        match self.own.delete(name) {
            Err(error @ StoreError::ModelNotFound { .. }) => match self.find(name) {
                Ok((name, dir)) => Err(StoreError::NotOurs { name: name.to_string(), dir }),
                Err(_) => Err(error),
            },
            result => result,
        }
    }

    fn first<T: Send + 'static>(
        &self,
        name: &ModelName,
        look: fn(&Store, &ModelName) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        // What the first that has it says stands, also if that is an error.
        let find = |name: ModelName| {
            move |store: &Store| store.catalog().find(&name).map(|found| look(store, &found))
        };
        let mut missing = match find(name.clone())(&self.own) {
            Ok(looked) => return looked,
            Err(error) => error,
        };
        for other in &self.others {
            let find = find(name.clone());
            match other.ask(move |store| store.exists().and_then(|()| find(store))) {
                Ok(looked) => return looked,
                Err(error) => missing = missing.and_next(error),
            }
        }
        Err(missing)
    }
}

impl Other {
    fn new(dir: PathBuf, patience: Duration) -> Self {
        Self { store: Arc::new(Store::open(dir)), patience, late: Mutex::default() }
    }

    fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.look(work)?.answer()
    }

    fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<Asked<'_, T>, StoreError> {
        if self.late().strong_count() > 0 {
            return Err(self.no_answer());
        }
        let store = Arc::clone(&self.store);
        let look = Look::begin(move || work(&store));
        let look = look.map_err(StoreError::at("start a thread for", self.store.dir()))?;
        Ok(Asked { other: self, look })
    }

    fn late(&self) -> MutexGuard<'_, Weak<()>> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn no_answer(&self) -> StoreError {
        StoreError::NoAnswer { dir: self.store.dir().to_owned() }
    }
}

impl<T: Send + 'static> Asked<'_, T> {
    fn answer(self) -> Result<T, StoreError> {
        let patience = self.other.patience;
        self.within(patience)
    }

    fn within(self, patience: Duration) -> Result<T, StoreError> {
        self.look.answer(patience).unwrap_or_else(|running| {
            *self.other.late() = running;
            Err(self.other.no_answer())
        })
    }
}

#[cfg(test)]
mod tests;
