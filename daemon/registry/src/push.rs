//! A whole model to a registry: its blobs, and then its manifest, byte for byte.

use crate::blobs::Transfer;
use crate::error::PullError;
use crate::fetch::blocking;
use crate::http::{Ask, Endpoint};
use crate::patience::Patience;
use crate::pull::{BlobProgress, Puller, Watched, watch_all};
use crate::source::Repository;
use crate::upload::Upload;
use bytes::Bytes;
use hearth_store::{Digest, Layer, Manifest, ModelName};
use reqwest::Method;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

/// What a push has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The digest of the manifest.
    pub id: Digest,
    pub size: u64,
}

struct Blob {
    layer: Layer,
    path: PathBuf,
    mounts: Vec<String>,
}

impl Puller {
    /// Sends a model to a registry. What is there already is not sent. Dropping the future ends it.
    pub async fn push(
        &self,
        name: &ModelName,
        repository: &Repository,
        progress: &watch::Sender<Vec<BlobProgress>>,
    ) -> Result<Pushed, Arc<PullError>> {
        let (store, model, target) =
            (Arc::clone(self.stores.own()), name.clone(), repository.clone());
        let (manifest, blobs) = blocking(move || {
            let manifest = store.manifest(&model)?;
            let others: Vec<_> = store
                .list()
                .models
                .into_iter()
                .filter(|other| other.name.host() == target.host)
                .filter_map(|other| {
                    Some((repository_of(&other.name), store.manifest(&other.name).ok()?))
                })
                .filter(|(repository, _)| *repository != target.path)
                .collect();
            let unique: BTreeSet<Digest> = manifest.blobs().map(|blob| blob.digest).collect();
            let blobs = unique
                .iter()
                .filter_map(|digest| manifest.blobs().find(|blob| blob.digest == *digest));
            let blobs = blobs.map(|layer| {
                let path = store.blobs().check(&layer.digest, layer.size)?;
                let has_it =
                    |manifest: &Manifest| manifest.blobs().any(|blob| blob.digest == layer.digest);
                let having = others.iter().filter(|(_, manifest)| has_it(manifest));
                let mounts: BTreeSet<_> =
                    having.map(|(repository, _)| repository.clone()).collect();
                Ok(Blob { layer: layer.clone(), path, mounts: mounts.into_iter().collect() })
            });
            let blobs: Vec<Blob> = blobs.collect::<Result<_, PullError>>()?;
            Ok((manifest, blobs))
        })
        .await?;

        let endpoint = Arc::new(Endpoint::new(Arc::clone(&self.net), repository.base.clone()));
        let watched = blobs.into_iter().map(|Blob { layer, path, mounts }| {
            let (digest, size, kind) = (layer.digest, layer.size, layer.kind().name());
            let endpoint = Arc::clone(&endpoint);
            let repository = repository.path.clone();
            let upload = Upload { endpoint, repository, digest, size, path, mounts };
            let transfer = Arc::new(Transfer::begin(|news| upload.run(news)));
            Watched::new(Some(digest), kind, size, transfer)
        });
        watch_all(watched.collect(), progress).await?;

        let path = format!("/v2/{}/manifests/{}", repository.path, repository.tag);
        let bytes = Bytes::copy_from_slice(manifest.bytes());
        let body = Some((manifest.media_type().to_owned(), bytes));
        let ask = Ask { method: Method::PUT, body, ..Ask::default() };
        let mut patience = Patience::new(self.net.settings.retry);
        while let Err(error) = endpoint.ask(&endpoint.url(&path), &ask).await {
            patience.wait(error).await?;
        }
        Ok(Pushed { id: manifest.id(), size: manifest.size() })
    }
}

/// Where a model of this name is in its registry.
fn repository_of(name: &ModelName) -> String {
    format!("{}/{}", name.namespace(), name.model())
}
