//! A model made of files that came without one of Ollama's manifests, from a URL or an OCI registry.
//!
//! What each file is to the model is read from the file itself, so whoever packed it need not have
//! said so. The manifest is made here, and an Ollama that shares the store can use it.

use crate::blob::BlobDir;
use crate::digest::Digest;
use crate::disk;
use crate::error::{StoreError, quote};
use crate::import::{check_gguf, write_config};
use crate::manifest::{Layer, LayerKind, Manifest};
use crate::name::ModelName;
use crate::store::Store;
use hearth_gguf::GgufSummary;

/// A blob that is in the store already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    pub digest: Digest,
    pub size: u64,
    pub is_license: bool,
}

impl Store {
    /// Names a model made of these blobs, replacing the one that has the name now.
    pub fn adopt(
        &self,
        name: &ModelName,
        pieces: &[Piece],
    ) -> Result<(ModelName, Manifest), StoreError> {
        let mut weights = None;
        let mut layers = Vec::new();
        for piece in pieces {
            let kind = if piece.is_license {
                LayerKind::License
            } else {
                let (kind, summary) = examine(self.blobs(), &piece.digest, piece.size)?;
                if kind == LayerKind::Model && weights.replace(summary).is_some() {
                    return Err(unsupported(name, "it has two files of weights"));
                }
                kind
            };
            let media_type = kind.media_type().unwrap_or_default();
            layers.push(Layer::new(&media_type, piece.digest, piece.size));
        }
        let Some(summary) = weights else {
            return Err(unsupported(name, "none of its files holds a model's weights"));
        };
        let manifest = write_config(self.blobs(), &summary, layers)?;
        Ok((self.commit(name, &manifest)?, manifest))
    }
}

/// What a file is to a model.
pub(crate) fn examine(
    blobs: &BlobDir,
    digest: &Digest,
    size: u64,
) -> Result<(LayerKind, GgufSummary), StoreError> {
    let path = blobs.check(digest, size)?;
    check_gguf(&path, &disk::open_file(&path)?)
}

pub(crate) fn unsupported(name: &ModelName, reason: &str) -> StoreError {
    StoreError::UnsupportedModel { name: quote(&name.to_string()), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_gguf::testing::Writer;

    fn piece(store: &Store, bytes: &[u8], is_license: bool) -> Piece {
        let size = u64::try_from(bytes.len()).unwrap();
        Piece { digest: store.blobs().write(bytes).unwrap(), size, is_license }
    }

    #[test]
    fn files_find_their_places_by_what_they_hold() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path());
        let projector = Writer::new().text("general.architecture", "clip").bytes();
        let pieces = [
            piece(&store, &projector, false),
            piece(&store, &Writer::model().bytes(), false),
            piece(&store, b"do as you like", true),
        ];
        let (name, manifest) = store.adopt(&"packed".parse().unwrap(), &pieces).unwrap();
        let shown = store.show(&name).unwrap();
        assert_eq!(shown.model.id, manifest.id());
        assert_eq!(shown.model.model_digest, pieces[1].digest);
        assert!(shown.model.projector.is_some());
        assert_eq!(shown.licenses, ["do as you like"]);
    }

    #[test]
    fn what_is_no_model_gets_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path());
        let weights = piece(&store, &Writer::model().bytes(), false);
        let other = piece(&store, &Writer::model().text("general.name", "other").bytes(), false);
        let license = piece(&store, b"licence", true);
        let text = piece(&store, b"no GGUF", false);
        for pieces in [&[][..], &[license], &[weights, other], &[weights, text]] {
            assert!(store.adopt(&"none".parse().unwrap(), pieces).is_err());
        }
        assert!(store.list().models.is_empty());
    }
}
