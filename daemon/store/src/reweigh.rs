//! A model with other weights: the same template, parameters and licences around another GGUF file.

use std::io::Seek;
use std::ops::ControlFlow;
use std::path::Path;

use hearth_gguf::GgufSummary;

use crate::blob::Blob;
use crate::config::ModelConfig;
use crate::digest::Digest;
use crate::disk::{self, Temp};
use crate::error::StoreError;
use crate::import::{OTHER_FILE, check_gguf};
use crate::manifest::{CONFIG_MEDIA_TYPE, Layer, LayerKind, Manifest};
use crate::name::ModelName;
use crate::store::{MAX_CONFIG_BYTES, Store};

/// A file on the store's disk for another process to write. Dropping it removes it.
#[derive(Debug)]
pub struct Staged {
    temp: Temp,
}

impl Staged {
    pub fn path(&self) -> &Path {
        self.temp.path()
    }

    /// The size and the digest of what was written.
    fn hash(
        &self,
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<(u64, Digest), StoreError> {
        let (mut file, path) = (self.temp.file(), self.path());
        let size = file.metadata().map_err(StoreError::at("read", path))?.len();
        file.rewind().map_err(StoreError::at("read", path))?;
        disk::hash(file, path, |_, n_done| match progress(n_done, size) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => {
                Err(StoreError::Cancelled { name: path.display().to_string() })
            }
        })
    }
}

impl Store {
    pub fn stage(&self) -> Result<Staged, StoreError> {
        self.blobs().remove_stale_temps();
        Ok(Staged { temp: self.blobs().create_temp()? })
    }

    /// Gives written weights their name. `progress` gets the bytes read and those there are.
    pub fn settle(
        &self,
        weights: Staged,
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<(Blob, GgufSummary), StoreError> {
        let path = weights.path().to_owned();
        let (kind, summary) = check_gguf(&path, weights.temp.file())?;
        if kind != LayerKind::Model {
            let reason = "it holds no model's weights".to_owned();
            return Err(StoreError::UnsupportedFile { path, reason, hint: OTHER_FILE });
        }
        let (size, digest) = weights.hash(progress)?;
        let blob = Blob { digest, size };
        self.blobs().publish(weights.temp, blob)?;
        Ok((blob, summary))
    }

    /// Names a model that is `model` with these weights, replacing the one that has the name `to`. `progress` gets the bytes
    /// read and those there are.
    pub fn reweigh(
        &self,
        model: &Manifest,
        weights: Staged,
        to: &ModelName,
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<(ModelName, Manifest), StoreError> {
        let (Blob { digest, size }, summary) = self.settle(weights, progress)?;
        let bytes = self.blobs().read(&model.config().digest, MAX_CONFIG_BYTES)?;
        let config =
            ModelConfig::with_quantization(&bytes, &summary.quantization).map_err(|reason| {
                StoreError::BadBlob { path: self.blobs().path(&model.config().digest), reason }
            })?;
        let config_size = u64::try_from(config.len()).unwrap_or(u64::MAX);
        let config = Layer::new(CONFIG_MEDIA_TYPE, self.blobs().write(&config)?, config_size);
        let of_weights = |layer: &Layer| layer.kind() == LayerKind::Model;
        let mut layers = model.layers().to_vec();
        let at = layers.iter().position(of_weights).unwrap_or_default();
        layers.retain(|layer| !of_weights(layer));
        let media_type = LayerKind::Model.media_type().unwrap_or_default();
        layers.insert(at, Layer::new(&media_type, digest, size));
        let manifest = Manifest::new(config, layers);
        Ok((self.commit(to, &manifest)?, manifest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::{ImportMode, import};
    use hearth_gguf::testing::Writer;
    use std::fs;

    fn store_with_a_model(dir: &Path) -> (Store, Manifest) {
        let store = Store::open(dir.join("models"));
        let file = dir.join("a.gguf");
        fs::write(&file, Writer::model().bytes()).unwrap();
        let name = "a".parse().unwrap();
        let go_on = &mut |_| ControlFlow::Continue(());
        import(&store, &file, &name, ImportMode::Copy, go_on).unwrap();
        let imported = store.manifest(&name).unwrap();
        let layer = |kind: LayerKind, text: &[u8]| {
            let digest = store.blobs().write(text).unwrap();
            Layer::new(&kind.media_type().unwrap(), digest, u64::try_from(text.len()).unwrap())
        };
        let config =
            br#"{"model_format":"gguf","model_family":"llama","file_type":"F16","mine":[1]}"#;
        let digest = store.blobs().write(config).unwrap();
        let config = Layer::new(CONFIG_MEDIA_TYPE, digest, u64::try_from(config.len()).unwrap());
        let mut layers = imported.layers().to_vec();
        layers.insert(0, layer(LayerKind::License, b"do as you like"));
        layers.push(layer(LayerKind::Template, b"{{ .Prompt }}"));
        let manifest = Manifest::new(config, layers);
        store.commit(&name, &manifest).unwrap();
        (store, manifest)
    }

    #[test]
    fn all_but_the_weights_and_their_type_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (store, old) = store_with_a_model(dir.path());
        let staged = store.stage().unwrap();
        let bytes = Writer::new()
            .text("general.architecture", "llama")
            .u32("general.file_type", 7)
            .tensor("token_embd.weight", &[8], 0, 32)
            .bytes();
        fs::write(staged.path(), &bytes).unwrap();
        let mut told = Vec::new();
        let (name, new) = store
            .reweigh(&old, staged, &"b".parse().unwrap(), &mut |done, total| {
                told.push((done, total));
                ControlFlow::Continue(())
            })
            .unwrap();
        let len = u64::try_from(bytes.len()).unwrap();
        assert_eq!(told.last(), Some(&(len, len)));
        let shown = store.show(&name).unwrap();
        assert_eq!(shown.model.template.as_deref(), Some("{{ .Prompt }}"));
        assert_eq!(shown.licenses, ["do as you like"]);
        assert_eq!(shown.model.model_digest, Digest::of(&bytes));
        assert_eq!((shown.model.config.quantization.as_str(), new.layers().len()), ("Q8_0", 3));
        assert_eq!(new.layers()[0], old.layers()[0]);
        let config = store.blobs().read(&new.config().digest, 1000).unwrap();
        let config = String::from_utf8(config).unwrap();
        assert!(config.contains(r#""mine":[1]"#), "{config}");
        assert_eq!(store.usage().unwrap().unfinished.n_files, 0);
    }

    #[test]
    fn what_is_no_model_or_is_cancelled_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (store, old) = store_with_a_model(dir.path());
        let to = "b".parse().unwrap();
        let adapter = Writer::model().text("general.type", "adapter").bytes();
        for (bytes, go_on) in
            [(b"no GGUF".to_vec(), true), (adapter, true), (Writer::model().bytes(), false)]
        {
            let staged = store.stage().unwrap();
            fs::write(staged.path(), bytes).unwrap();
            let flow = if go_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
            store.reweigh(&old, staged, &to, &mut |_, _| flow).unwrap_err();
            assert_eq!(store.usage().unwrap().unfinished.n_files, 0);
            assert!(store.manifest(&to).is_err());
        }
    }
}
