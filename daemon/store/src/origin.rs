//! Where models came from, which their manifests do not say: what `verify` can repair from.
//!
//! One file in the store's folder, by the manifests' digests. Losing it costs a repair, and no model. Also here: what file
//! was made of parts that are gone, so that the same parts are not fetched again.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::adopt::Piece;
use crate::digest::Digest;
use crate::disk::{self, TempNames};
use crate::error::StoreError;
use crate::manifest::json_line;
use crate::store::Store;

const FILE_NAME: &str = ".hearth-origins";
const TEMP_NAMES: TempNames = TempNames { prefix: ".", suffix: "-origins" };
const MAX_BYTES: u64 = 16 << 20;

#[derive(Default, Serialize, Deserialize)]
struct Origins {
    /// By a manifest's digest.
    #[serde(default)]
    sources: BTreeMap<String, String>,
    /// By a digest of the parts' digests.
    #[serde(default)]
    joined: BTreeMap<String, Joined>,
}

#[derive(Serialize, Deserialize)]
struct Joined {
    digest: String,
    size: u64,
}

impl Store {
    /// Where the model with this manifest came from.
    pub fn origin(&self, id: &Digest) -> Option<String> {
        self.origins().sources.remove(&id.to_string())
    }

    /// Remembers where a model came from that has its name already.
    pub fn set_origin(&self, id: &Digest, source: &str) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        let mut origins = self.origins();
        if origins.sources.get(&id.to_string()).is_some_and(|known| known == source) {
            return Ok(());
        }
        origins.sources.insert(id.to_string(), source.to_owned());
        let (manifests, _) = self.catalog().manifests();
        let ids: HashSet<String> = manifests.iter().map(|(_, one)| one.id().to_string()).collect();
        origins.sources.retain(|id, _| ids.contains(id));
        let blobs = manifests.iter().flat_map(|(_, one)| one.blobs());
        let blobs: HashSet<String> = blobs.map(|blob| blob.digest.to_string()).collect();
        origins.joined.retain(|_, joined| blobs.contains(&joined.digest));
        self.write_origins(&origins)
    }

    /// The file that was made of these parts, whether or not it is there still.
    pub fn joined(&self, parts: &[Digest]) -> Option<Piece> {
        let Joined { digest, size } = self.origins().joined.remove(&key(parts))?;
        Some(Piece { digest: digest.parse().ok()?, size, is_license: false })
    }

    /// Whether a file was made of parts that are gone.
    pub fn is_joined(&self, digest: &Digest) -> bool {
        let digest = digest.to_string();
        self.origins().joined.values().any(|joined| joined.digest == digest)
    }

    pub(crate) fn set_joined(&self, parts: &[Digest], file: &Piece) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        let mut origins = self.origins();
        let joined = Joined { digest: file.digest.to_string(), size: file.size };
        origins.joined.insert(key(parts), joined);
        self.write_origins(&origins)
    }

    fn origins(&self) -> Origins {
        let bytes = disk::read_file(&self.dir().join(FILE_NAME), MAX_BYTES);
        bytes.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    fn write_origins(&self, origins: &Origins) -> Result<(), StoreError> {
        disk::remove_stale_temps(self.dir(), TEMP_NAMES);
        let path = self.dir().join(FILE_NAME);
        disk::write_file(self.dir(), TEMP_NAMES, &path, &json_line(origins))
    }
}

fn key(parts: &[Digest]) -> String {
    let mut parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
    parts.sort();
    Digest::of(parts.concat().as_bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::{ImportMode, import};
    use hearth_gguf::testing::Writer;
    use std::fs;
    use std::ops::ControlFlow;

    #[test]
    fn an_origin_is_known_as_long_as_its_model() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("models"));
        let ids = ["a", "b"].map(|name| {
            let path = dir.path().join(name);
            fs::write(&path, Writer::model().text("general.description", name).bytes()).unwrap();
            let mut go_on = |_| ControlFlow::Continue(());
            let name = name.parse().unwrap();
            import(&store, &path, &name, ImportMode::Copy, &mut go_on).unwrap().id
        });
        assert_eq!(store.origin(&ids[0]), None);
        store.set_origin(&ids[0], "https://h/a").unwrap();
        store.set_origin(&ids[0], "https://h/a2").unwrap();
        store.set_origin(&ids[1], "https://h/b").unwrap();
        assert_eq!(store.origin(&ids[0]).unwrap(), "https://h/a2");
        store.delete(&"a".parse().unwrap()).unwrap();
        store.set_origin(&ids[1], "https://h/b2").unwrap();
        assert_eq!(
            (store.origin(&ids[0]), store.origin(&ids[1]).unwrap().as_str()),
            (None, "https://h/b2")
        );
        fs::write(store.dir().join(FILE_NAME), "{").unwrap();
        assert_eq!(store.origin(&ids[1]), None);
        assert_eq!(store.list().models.len(), 1);
    }
}
