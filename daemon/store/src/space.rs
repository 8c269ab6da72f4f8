//! Who needs the space of a store, and giving back what nobody does.
//!
//! A blob is deleted only under the store's lock, while every manifest of the store can be read and
//! none of them names it. The manifest goes first: a crash in between leaves blobs that nobody
//! names, never a model without its blobs.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use crate::catalog::Problem;
use crate::digest::Digest;
use crate::disk::{self, Leftover};
use crate::error::StoreError;
use crate::name::ModelName;
use crate::store::Store;

/// An import or download names its blobs at last by a manifest. Ollama's clean-up waits as long.
const BLOB_AGE: Duration = Duration::from_secs(3600);
/// Long enough to go on with a download on the next day.
const UNFINISHED_AGE: Duration = Duration::from_secs(24 * 3600);

/// Files, and the space they take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    pub n_files: u64,
    pub bytes: u64,
}

/// What a store's folder holds.
#[derive(Debug, Default)]
pub struct Usage {
    /// Those that take most alone first.
    pub models: Vec<ModelUsage>,
    /// All blobs, which many models may share, and what is unfinished.
    pub total: Amount,
    /// Blobs that no model has.
    pub unreferenced: Amount,
    /// What imports and downloads left, or are at work on.
    pub unfinished: Amount,
    pub problems: Vec<Problem>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelUsage {
    pub name: ModelName,
    /// All layers and the config, as the manifest gives them.
    pub size: u64,
    /// Of blobs that only this model has: what deleting it gives back.
    pub own: u64,
    /// Of blobs that other models have too.
    pub shared: u64,
    /// Of files elsewhere that the store links to.
    pub linked: u64,
}

#[derive(Debug)]
pub struct Deleted {
    /// As it was spelled on disk.
    pub name: ModelName,
    pub freed: u64,
    /// Why blobs were left that this model may have been the last to need.
    pub problem: Option<Problem>,
}

#[derive(Debug, Default)]
pub struct Pruned {
    pub removed: Vec<Removed>,
    /// What nobody needs now, but may be about to.
    pub spared: Amount,
    /// Why no blob was removed.
    pub problem: Option<Problem>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    pub path: PathBuf,
    pub bytes: u64,
    /// Not a blob, but what was to become one.
    pub is_unfinished: bool,
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.n_files += 1;
        self.bytes += bytes;
    }
}

impl Store {
    /// Looks, without a lock: a change at the same time may be seen by half.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        let (manifests, problems) = self.catalog().manifests();
        let mut n_models: HashMap<Digest, u32> = HashMap::new();
        // A manifest may name one blob twice.
        let models: Vec<_> = manifests
            .into_iter()
            .map(|(name, manifest)| {
                let sizes = manifest.blobs().map(|blob| (blob.digest, blob.size));
                let sizes: HashMap<Digest, u64> = sizes.collect();
                for digest in sizes.keys() {
                    *n_models.entry(*digest).or_default() += 1;
                }
                (name, manifest.size(), sizes)
            })
            .collect();

        let [mut total, mut unreferenced, mut unfinished] = [Amount::default(); 3];
        let mut blobs = HashMap::new();
        for file in self.blobs().files()? {
            total.add(file.bytes());
            match file.digest {
                None => unfinished.add(file.bytes()),
                Some(digest) if !n_models.contains_key(&digest) => unreferenced.add(file.bytes()),
                Some(digest) => drop(blobs.insert(digest, file)),
            }
        }

        let usage_of = |(name, size, sizes): (_, _, HashMap<Digest, u64>)| {
            let mut usage = ModelUsage { name, size, own: 0, shared: 0, linked: 0 };
            for (digest, blob_size) in sizes {
                match blobs.get(&digest) {
                    None => {}
                    Some(file) if file.metadata.is_symlink() => usage.linked += blob_size,
                    Some(file) if n_models.get(&digest) == Some(&1) => usage.own += file.bytes(),
                    Some(file) => usage.shared += file.bytes(),
                }
            }
            usage
        };
        let mut models: Vec<_> = models.into_iter().map(usage_of).collect();
        models.sort_by(|a, b| {
            (Reverse(a.own), Reverse(a.size), &a.name).cmp(&(
                Reverse(b.own),
                Reverse(b.size),
                &b.name,
            ))
        });
        Ok(Usage { models, total, unreferenced, unfinished, problems })
    }

    /// Removes a model, and of its blobs those that no other model has. One whose manifest cannot be
    /// read is removed too, and leaves its blobs to `prune`.
    pub fn delete(&self, name: &ModelName) -> Result<Deleted, StoreError> {
        let name = self.catalog().find(name)?;
        let _lock = self.lock()?;
        let mut blobs: HashSet<Digest> = match self.catalog().read(&name) {
            Ok((manifest, _)) => manifest.blobs().map(|blob| blob.digest).collect(),
            Err(StoreError::BadManifest { .. } | StoreError::BadBlob { .. }) => HashSet::new(),
            Err(error) => return Err(error),
        };
        self.catalog().remove(&name)?;

        // From here on the model is gone, and what goes wrong is no reason to say otherwise.
        let (needed, problems) = self.needed();
        let mut problem = problems.into_iter().next();
        if problem.is_some() {
            blobs.clear();
        }
        let mut freed = 0;
        for digest in blobs.difference(&needed) {
            match self.blobs().remove(digest) {
                Ok(bytes) => freed += bytes,
                Err(error) => problem = Some(Problem { path: self.blobs().path(digest), error }),
            }
        }
        if freed > 0
            && let Err(error) = disk::sync_dir(self.blobs().dir())
        {
            problem = Some(Problem { path: self.blobs().dir().to_owned(), error });
        }
        Ok(Deleted { name, freed, problem })
    }

    /// Removes blobs that no model has and what was never finished, once they are old and nobody
    /// works on them; or only says what it would remove.
    pub fn prune(&self, dry_run: bool) -> Result<Pruned, StoreError> {
        let mut pruned = Pruned::default();
        if !self.dir().exists() {
            return Ok(pruned);
        }
        let _lock = if dry_run { None } else { Some(self.lock()?) };
        let (needed, problems) = self.needed();
        pruned.problem = problems.into_iter().next();
        for file in self.blobs().files()? {
            let bytes = file.bytes();
            let is_removed = match file.digest {
                Some(digest) if needed.contains(&digest) => continue,
                Some(_) => {
                    let is_free =
                        pruned.problem.is_none() && disk::is_older(&file.metadata, BLOB_AGE);
                    if is_free && !dry_run {
                        disk::remove_file(&file.path)?;
                    }
                    is_free
                }
                None => match Leftover::seize(&file.path, UNFINISHED_AGE) {
                    Some(leftover) if !dry_run => leftover.remove().map(|()| true)?,
                    leftover => leftover.is_some(),
                },
            };
            if is_removed {
                let is_unfinished = file.digest.is_none();
                pruned.removed.push(Removed { path: file.path, bytes, is_unfinished });
            } else {
                pruned.spared.add(bytes);
            }
        }
        if !dry_run && !pruned.removed.is_empty() {
            disk::sync_dir(self.blobs().dir())?;
        }
        Ok(pruned)
    }

    /// Removes those of these blobs that no model has, if that can be known.
    pub(crate) fn remove_unneeded(
        &self,
        blobs: impl IntoIterator<Item = Digest>,
    ) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        let (needed, problems) = self.needed();
        if problems.is_empty() {
            for digest in blobs.into_iter().filter(|digest| !needed.contains(digest)) {
                self.blobs().remove(&digest)?;
            }
            disk::sync_dir(self.blobs().dir())?;
        }
        Ok(())
    }

    /// Every blob that a model names; all there are only if there are no problems.
    fn needed(&self) -> (HashSet<Digest>, Vec<Problem>) {
        let (manifests, problems) = self.catalog().manifests();
        let blobs = manifests.iter().flat_map(|(_, manifest)| manifest.blobs());
        (blobs.map(|blob| blob.digest).collect(), problems)
    }
}

#[cfg(test)]
pub(crate) mod crashes;
#[cfg(test)]
mod tests;
