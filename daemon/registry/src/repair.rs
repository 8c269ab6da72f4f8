//! A blob of a model that is here, again from where it came.

use crate::error::PullError;
use crate::pull::{BlobProgress, Puller};
use crate::source::Source;
use hearth_store::{Layer, ModelName};
use std::sync::Arc;
use tokio::sync::watch;

impl Puller {
    /// Brings back a blob that is missing or damaged. What the source has under that name now is only taken where it is the
    /// same, but for what was made one file of several parts: that model is pulled anew.
    pub async fn repair(
        &self,
        source: &Source,
        name: &ModelName,
        blob: &Layer,
        progress: &watch::Sender<Vec<BlobProgress>>,
    ) -> Result<(), Arc<PullError>> {
        let was_joined = self.stores.own().is_joined(&blob.digest);
        match source {
            Source::Registry(repository) if was_joined => {
                self.registry(repository, name, progress).await.map(drop)
            }
            Source::Url(url, _) if was_joined => self.url(url, name, progress).await.map(drop),
            Source::Registry(repository) => {
                let blob = [(blob.digest, blob.size, blob.kind().name())];
                self.blobs_of(repository, blob.into_iter(), progress).await
            }
            Source::Url(url, _) => self.files(url, progress).await.map(drop),
        }
    }
}
