//! A model made of files that came without one of Ollama's manifests, from a URL or an OCI registry.
//!
//! What each file is to the model is read from the file itself, so whoever packed it need not have
//! said so. The manifest is made here, and an Ollama that shares the store can use it. The parts of a
//! split model are made one file, since that is what every later use wants; they are not kept.

use crate::blob::{Blob, BlobDir};
use crate::digest::Digest;
use crate::disk;
use crate::error::{StoreError, quote};
use crate::import::{check_gguf, write_config};
use crate::manifest::{Layer, LayerKind, Manifest};
use crate::name::ModelName;
use crate::new_blob::NewBlob;
use crate::store::Store;
use hearth_gguf::{Gguf, GgufError, GgufSummary, join};
use std::io::BufWriter;

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
        let digests: Vec<Digest> = pieces.iter().map(|piece| piece.digest).collect();
        let (parts, pieces) = match self.joining(pieces) {
            // Another pull has made one file of them meanwhile.
            Err(error @ StoreError::BlobMissing { .. }) => {
                (Vec::new(), vec![self.joined(&digests).ok_or(error)?])
            }
            joined => joined?,
        };
        let mut weights = None;
        let mut layers = Vec::new();
        for piece in &pieces {
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
        let name = self.commit(name, &manifest)?;
        if !parts.is_empty() {
            self.remove_unneeded(parts.iter().map(|part| part.digest))?;
        }
        Ok((name, manifest))
    }

    /// The parts of a split model, and all else with what is made of them.
    fn joining(&self, pieces: &[Piece]) -> Result<(Vec<Piece>, Vec<Piece>), StoreError> {
        let (parts, mut others) = self.apart(pieces)?;
        if !parts.is_empty() {
            others.push(self.join(&parts)?);
        }
        Ok((parts, others))
    }

    fn apart(&self, pieces: &[Piece]) -> Result<(Vec<Piece>, Vec<Piece>), StoreError> {
        let (mut parts, mut others) = (Vec::new(), Vec::new());
        for piece in pieces {
            let is_part = !piece.is_license && {
                let path = self.blobs().check(&piece.digest, piece.size)?;
                // What is no GGUF at all is found out later.
                Gguf::read(&mut disk::open_file(&path)?).is_ok_and(|gguf| gguf.split().is_some())
            };
            if is_part { &mut parts } else { &mut others }.push(*piece);
        }
        Ok((parts, others))
    }

    /// Makes one blob of the parts of a split model.
    fn join(&self, parts: &[Piece]) -> Result<Piece, StoreError> {
        let blobs = self.blobs();
        let paths = parts.iter().map(|part| blobs.check(&part.digest, part.size));
        let paths: Vec<_> = paths.collect::<Result<_, _>>()?;
        let files = paths.iter().map(|path| disk::open_file(path));
        let mut files: Vec<_> = files.collect::<Result<_, _>>()?;
        let out = BufWriter::with_capacity(1 << 20, NewBlob::create(self)?);
        let failed = |source| StoreError::io("write", blobs.dir(), source);
        let joined = join(&mut files, out).map_err(|source| match source {
            GgufError::Io(source) => failed(source),
            source => StoreError::BadGguf { path: paths[0].clone(), source },
        })?;
        let joined = joined.into_inner().map_err(|error| failed(error.into_error()))?;
        let Blob { digest, size } = joined.publish(None)?;
        let piece = Piece { digest, size, is_license: false };
        let digests: Vec<Digest> = parts.iter().map(|part| part.digest).collect();
        self.set_joined(&digests, &piece)?;
        Ok(piece)
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
    use hearth_gguf::testing::{Writer, split};
    use std::ops::ControlFlow;

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
    fn parts_become_one_file_and_are_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path());
        let whole = Writer::model().bytes();
        let parts = split(&whole, 2);
        let parts: Vec<_> = parts.iter().map(|part| piece(&store, part, false)).collect();
        let (name, manifest) = store.adopt(&"joined".parse().unwrap(), &parts).unwrap();
        let shown = store.show(&name).unwrap();
        assert_eq!(shown.gguf.parameter_count, 64 * 4 + 5);
        assert_eq!(manifest.layers().len(), 1);
        let digests: Vec<_> = parts.iter().map(|part| part.digest).collect();
        assert!(digests.iter().all(|digest| !store.blobs().path(digest).exists()));
        let joined = store.joined(&digests).unwrap();
        assert_eq!(
            (joined.digest, joined.size),
            (manifest.layers()[0].digest, manifest.layers()[0].size)
        );
        store
            .blobs()
            .verify(&joined.digest, joined.size, &mut |_| ControlFlow::Continue(()))
            .unwrap();

        // One of another model, and one that is missing.
        let other = split(&Writer::model().tensor("third", &[3], 0, 12).bytes(), 2);
        let parts = split(&whole, 2);
        for parts in [[&parts[0], &other[1]].as_slice(), &[&parts[1]]] {
            let parts: Vec<_> = parts.iter().map(|part| piece(&store, part, false)).collect();
            assert_eq!(
                store.adopt(&"none".parse().unwrap(), &parts).unwrap_err().kind(),
                "bad_gguf"
            );
        }
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
