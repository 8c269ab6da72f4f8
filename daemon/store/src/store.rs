//! One store: a folder with `blobs` and `manifests`.
//!
//! Opening touches nothing, so a store may be absent, read-only or somebody else's. `list` always
//! answers, with what cannot be used set apart; `resolve` is strict about the one model asked for,
//! since what it returns is about to be loaded.

use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hearth_gguf::{Gguf, GgufSummary};
use serde_json::{Map, Value};

use crate::blob::BlobDir;
use crate::catalog::{Catalog, Problem};
use crate::config::ModelConfig;
use crate::digest::Digest;
use crate::disk;
use crate::error::StoreError;
use crate::lock::StoreLock;
use crate::manifest::{Layer, LayerKind, Manifest};
use crate::name::ModelName;

pub(crate) const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// Templates, licences and messages; the last may hold images.
pub(crate) const MAX_TEXT_BYTES: u64 = 16 << 20;

#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
    blobs: BlobDir,
    catalog: Catalog,
}

#[derive(Debug)]
pub struct ModelList {
    /// Newest first.
    pub models: Vec<ModelEntry>,
    pub problems: Vec<Problem>,
}

#[derive(Debug, Clone)]
pub struct ModelEntry {
    pub name: ModelName,
    /// The folder of the store that it is in.
    pub store: PathBuf,
    /// The digest of the manifest.
    pub id: Digest,
    /// All layers and the config, as the manifest gives them.
    pub size: u64,
    pub modified: SystemTime,
    pub config: ModelConfig,
}

/// All that is needed to run a model. Every path was there, with the right size, a moment ago.
#[derive(Debug, Clone)]
pub struct ResolvedModel {
    pub name: ModelName,
    pub id: Digest,
    pub config: ModelConfig,
    pub model_path: PathBuf,
    pub model_digest: Digest,
    pub adapters: Vec<PathBuf>,
    pub projector: Option<PathBuf>,
    pub draft: Option<PathBuf>,
    /// Ollama's template, in Go's language. The model's own is in its GGUF.
    pub template: Option<String>,
    pub system: Option<String>,
    /// Options by Ollama's names; empty if the model sets none.
    pub params: Map<String, Value>,
    pub messages: Vec<PresetMessage>,
}

/// A message that every conversation with the model begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresetMessage {
    pub role: String,
    pub content: String,
}

#[derive(Debug, Clone)]
pub struct ShownModel {
    pub model: ResolvedModel,
    /// The folder of the store that it is in.
    pub store: PathBuf,
    pub size: u64,
    pub modified: SystemTime,
    pub licenses: Vec<String>,
    pub gguf: GgufSummary,
    /// Nothing of one that cannot be read, without which the model still writes.
    pub projector: Option<GgufSummary>,
}

impl ModelEntry {
    /// Newest first.
    pub(crate) fn sort(entries: &mut [Self]) {
        entries.sort_by(|a, b| (Reverse(a.modified), &a.name).cmp(&(Reverse(b.modified), &b.name)));
    }
}

impl Store {
    /// Names the folder. It need not exist: the first write makes it.
    pub fn open(dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        let blobs = BlobDir::new(dir.join("blobs"));
        let catalog = Catalog::new(dir.join("manifests"));
        Self { dir, blobs, catalog }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn blobs(&self) -> &BlobDir {
        &self.blobs
    }

    pub fn list(&self) -> ModelList {
        let (names, mut problems) = self.catalog.names();
        let mut models = Vec::new();
        for name in names {
            match self.entry(&name) {
                Ok(entry) => models.push(entry),
                // It was deleted since its name was read.
                Err(StoreError::ModelNotFound { .. }) => {}
                Err(error) => problems.push(Problem { path: self.catalog.path(&name), error }),
            }
        }
        ModelEntry::sort(&mut models);
        ModelList { models, problems }
    }

    /// Finds a model and checks that its files are there.
    pub fn resolve(&self, name: &ModelName) -> Result<ResolvedModel, StoreError> {
        let name = self.catalog.find(name)?;
        let (manifest, _) = self.catalog.read(&name)?;
        self.resolve_manifest(name, &manifest)
    }

    /// Everything there is to tell about a model, from its manifest and its GGUF headers.
    pub fn show(&self, name: &ModelName) -> Result<ShownModel, StoreError> {
        let name = self.catalog.find(name)?;
        let (manifest, modified) = self.catalog.read(&name)?;
        let model = self.resolve_manifest(name, &manifest)?;
        let licenses = manifest
            .layers_of(LayerKind::License)
            .map(|layer| self.text(layer))
            .collect::<Result<_, _>>()?;
        let gguf = gguf_summary(&model.model_path)?;
        let projector = model.projector.as_deref().and_then(|path| gguf_summary(path).ok());
        let (store, size) = (self.dir.clone(), manifest.size());
        Ok(ShownModel { model, store, size, modified, licenses, gguf, projector })
    }

    /// The manifest of a model, byte for byte.
    pub fn manifest(&self, name: &ModelName) -> Result<Manifest, StoreError> {
        let name = self.catalog.find(name)?;
        self.catalog.read(&name).map(|(manifest, _)| manifest)
    }

    /// Makes a model appear, or replaces the one that has the name, if all its blobs are there.
    /// Returns the name as it is spelled on disk.
    pub fn commit(&self, name: &ModelName, manifest: &Manifest) -> Result<ModelName, StoreError> {
        disk::create_dirs(&self.dir)?;
        for blob in manifest.blobs() {
            self.blobs.check(&blob.digest, blob.size)?;
        }
        let _lock = self.lock()?;
        // Under the lock no link is followed: others would wait for its disk too.
        for blob in manifest.blobs() {
            self.blobs.find(&blob.digest)?;
        }
        // A blob that another process is just publishing may have its name, but not yet on disk.
        disk::sync_dir(self.blobs.dir())?;
        let name = self.catalog.spell(name);
        self.catalog.write(&name, manifest)?;
        Ok(name)
    }

    /// Gives a model one more name, which replaces the one that has it. Shares all blobs.
    pub fn copy(
        &self,
        from: &ModelName,
        to: &ModelName,
    ) -> Result<(ModelName, Digest), StoreError> {
        let manifest = self.manifest(from)?;
        Ok((self.commit(to, &manifest)?, manifest.id()))
    }

    /// Fails if there is nothing to read, as where a disk is not mounted.
    pub(crate) fn exists(&self) -> Result<(), StoreError> {
        let dir = self.catalog.dir();
        fs::read_dir(dir).map(drop).map_err(StoreError::at("read", dir))
    }

    pub(crate) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    pub(crate) fn lock(&self) -> Result<StoreLock, StoreError> {
        StoreLock::acquire(&self.dir)
    }

    fn entry(&self, name: &ModelName) -> Result<ModelEntry, StoreError> {
        let (manifest, modified) = self.catalog.read(name)?;
        let config = self.config(&manifest)?;
        let (name, store) = (name.clone(), self.dir.clone());
        Ok(ModelEntry { name, store, id: manifest.id(), size: manifest.size(), modified, config })
    }

    pub(crate) fn config(&self, manifest: &Manifest) -> Result<ModelConfig, StoreError> {
        let digest = manifest.config().digest;
        let bytes = self.blobs.read(&digest, MAX_CONFIG_BYTES)?;
        ModelConfig::parse(&bytes)
            .map_err(|reason| StoreError::BadBlob { path: self.blobs.path(&digest), reason })
    }

    fn resolve_manifest(
        &self,
        name: ModelName,
        manifest: &Manifest,
    ) -> Result<ResolvedModel, StoreError> {
        let config = self.config(manifest)?;
        let unsupported =
            |reason: String| StoreError::UnsupportedModel { name: name.to_string(), reason };
        if let Some(host) = &config.remote_host {
            return Err(unsupported(format!("it runs on `{host}`, and only stands for it here")));
        }
        // As in Ollama, the last model layer counts, but the first projector and draft.
        let Some(weights) = manifest.layers_of(LayerKind::Model).next_back() else {
            return Err(unsupported(match manifest.layers_of(LayerKind::Tensor).next() {
                Some(_) => "its weights are safetensors, and only GGUF is supported".to_owned(),
                None => "its manifest names no weights".to_owned(),
            }));
        };
        let check = |layer: &Layer| self.blobs.check(&layer.digest, layer.size);
        let first = |kind| manifest.layers_of(kind).next().map(check).transpose();
        let text =
            |kind| manifest.layers_of(kind).next_back().map(|layer| self.text(layer)).transpose();
        let model_path = check(weights)?;
        let adapters =
            manifest.layers_of(LayerKind::Adapter).map(check).collect::<Result<_, _>>()?;
        let projector = first(LayerKind::Projector)?;
        let draft = first(LayerKind::Draft)?;
        let template = text(LayerKind::Template)?;
        let system = text(LayerKind::System)?;
        let params = self.params(manifest)?;
        let messages = self.messages(manifest)?;
        Ok(ResolvedModel {
            name,
            id: manifest.id(),
            config,
            model_path,
            model_digest: weights.digest,
            adapters,
            projector,
            draft,
            template,
            system,
            params,
            messages,
        })
    }

    pub(crate) fn params(&self, manifest: &Manifest) -> Result<Map<String, Value>, StoreError> {
        let Some(layer) = manifest.layers_of(LayerKind::Params).next_back() else {
            return Ok(Map::new());
        };
        let bytes = self.blobs.read(&layer.digest, MAX_TEXT_BYTES)?;
        serde_json::from_slice(&bytes).map_err(|error| {
            self.bad_layer(layer, format!("its parameters are no JSON object: {error}"))
        })
    }

    fn messages(&self, manifest: &Manifest) -> Result<Vec<PresetMessage>, StoreError> {
        let Some(layer) = manifest.layers_of(LayerKind::Messages).next_back() else {
            return Ok(Vec::new());
        };
        let bytes = self.blobs.read(&layer.digest, MAX_TEXT_BYTES)?;
        let items: Vec<Map<String, Value>> = serde_json::from_slice(&bytes).map_err(|error| {
            self.bad_layer(layer, format!("its messages are no JSON array of objects: {error}"))
        })?;
        let text = |item: &Map<String, Value>, key: &str| {
            item.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        Ok(items
            .iter()
            .map(|item| PresetMessage { role: text(item, "role"), content: text(item, "content") })
            .collect())
    }

    fn text(&self, layer: &Layer) -> Result<String, StoreError> {
        let bytes = self.blobs.read(&layer.digest, MAX_TEXT_BYTES)?;
        String::from_utf8(bytes)
            .map_err(|_| self.bad_layer(layer, "its text is not UTF-8".to_owned()))
    }

    fn bad_layer(&self, layer: &Layer, reason: String) -> StoreError {
        StoreError::BadBlob { path: self.blobs.path(&layer.digest), reason }
    }
}

/// What a GGUF file's header says.
pub fn gguf_summary(path: &Path) -> Result<GgufSummary, StoreError> {
    Gguf::read(&mut disk::open_file(path)?)
        .and_then(|gguf| gguf.summary())
        .map_err(|source| StoreError::BadGguf { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
