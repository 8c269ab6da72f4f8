//! A model out of an OCI layout, which is a registry in a folder: `ctl export` writes one, and so do skopeo and oras.
//!
//! Whoever wrote it is as much a stranger as a registry is. What it says is bounded, its files are only looked for under
//! digests, and nothing of it is a blob here until its hash is right.

use crate::error::PullError;
use crate::manifest::{Ingredient, MAX_BYTES, Recipe};
use crate::pull::Pulled;
use hearth_store::{
    Digest, ImportMode, MANIFEST_MEDIA_TYPE, Manifest, ModelName, Placed, Store, StoreError, quote,
    read_file,
};
use serde::Deserialize;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;

const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// What may be left where it is.
const LARGE: [&str; 4] = ["model", "projector", "adapter", "draft"];
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    #[serde(default)]
    annotations: HashMap<String, String>,
}

impl Descriptor {
    /// A tag alone is no name: it says nothing of which model it is.
    fn name(&self) -> Option<ModelName> {
        self.annotations.get(REF_NAME).filter(|name| name.contains(':'))?.parse().ok()
    }
}

/// Brings a model from a folder into the store, and says what became of its weights. Of several the folder has to call one
/// by this name; of one it gives the name where none is given. `progress` gets the bytes that are there and those that are to be.
pub fn import_layout(
    store: &Store,
    dir: &Path,
    name: Option<&ModelName>,
    how: ImportMode,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<(Pulled, Placed), PullError> {
    let bad = |reason: String| PullError::BadLayout { path: dir.to_owned(), reason };
    let read = |name: &str| read_file(&dir.join(name), MAX_BYTES as u64);
    // There is one version of it; the file stands there to be found.
    read("oci-layout").map_err(|error| bad(error.to_string()))?;
    let index: Index = serde_json::from_slice(&read("index.json")?)
        .map_err(|error| bad(format!("its `index.json` is none: {error}")))?;
    let (found, name) = choose(&index.manifests, name).map_err(bad)?;
    let blob = |digest: &Digest| dir.join("blobs/sha256").join(digest.hex());
    let digest: Digest =
        found.digest.parse().map_err(|error: StoreError| bad(error.to_string()))?;
    let bytes = read_file(&blob(&digest), MAX_BYTES as u64)?;
    let actual = Digest::of(&bytes);
    if actual != digest {
        return Err(StoreError::WrongContent { expected: digest, actual }.into());
    }
    let recipe = Recipe::parse(bytes).and_then(as_ollamas).map_err(bad)?;
    let ingredients = recipe.ingredients().map_err(bad)?;
    let total = ingredients.iter().fold(0, |sum: u64, one| sum.saturating_add(one.size));
    let (mut done, mut placed) = (0_u64, Placed::Reused);
    for Ingredient { digest, size, kind } in &ingredients {
        let mut told = |n_bytes| progress(done.saturating_add(n_bytes), total);
        // Without its texts a model could not even be listed; they are kept here in any case.
        let how = if LARGE.contains(kind) { how } else { ImportMode::Auto };
        let became =
            store.take(digest, &blob(digest), how, &mut told).map_err(|error| match error {
                StoreError::WrongContent { .. } | StoreError::NotAFile { .. } => {
                    bad(error.to_string())
                }
                error => error.into(),
            })?;
        if *kind == "model" {
            placed = became;
        }
        done = done.saturating_add(*size);
    }
    let (name, manifest) = match recipe {
        Recipe::Ollama(manifest) => (store.commit(&name, &manifest)?, manifest),
        Recipe::Files(files) => {
            let pieces: Vec<_> = files.iter().map(Ingredient::piece).collect();
            store.adopt(&name, &pieces)?
        }
    };
    Ok((Pulled { name, id: manifest.id(), size: manifest.size() }, placed))
}

fn choose<'i>(
    manifests: &'i [Descriptor],
    name: Option<&ModelName>,
) -> Result<(&'i Descriptor, ModelName), String> {
    let named = manifests.iter().find(|one| name.is_some() && one.name().as_ref() == name);
    match (named.map(std::slice::from_ref).unwrap_or(manifests), name) {
        ([], _) => Err("it holds nothing".to_owned()),
        ([one], Some(name)) => Ok((one, name.clone())),
        ([one], None) => match one.name() {
            Some(name) => Ok((one, name)),
            None => Err("it does not say what its model is called; give a name".to_owned()),
        },
        (several, _) => {
            let names: Vec<_> = several.iter().filter_map(Descriptor::name).collect();
            let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
            Err(format!("it holds several models; name one of {}", quote(&names.join(", "))))
        }
    }
}

/// A layout's manifests are OCI's and Ollama's own are Docker's, and the model's id is made of this too.
fn as_ollamas(recipe: Recipe) -> Result<Recipe, String> {
    match recipe {
        Recipe::Ollama(manifest) if manifest.media_type() == OCI_MANIFEST => {
            let text = String::from_utf8_lossy(manifest.bytes());
            let text = text.replacen(OCI_MANIFEST, MANIFEST_MEDIA_TYPE, 1);
            Manifest::parse(text.into_bytes()).map(Recipe::Ollama)
        }
        other => Ok(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::fs;
    use std::path::PathBuf;

    /// A folder with a layout and a store in it.
    struct Layout(tempfile::TempDir);

    impl Layout {
        fn new() -> Self {
            let layout = Self(tempfile::tempdir().unwrap());
            fs::create_dir_all(layout.path("blobs/sha256")).unwrap();
            fs::write(layout.path("oci-layout"), "{}").unwrap();
            layout
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join("layout").join(name)
        }

        fn store(&self) -> Store {
            Store::open(self.0.path().join("models"))
        }

        fn blob(&self, bytes: &[u8]) -> Value {
            let digest = Digest::of(bytes);
            fs::write(self.path("blobs/sha256").join(digest.hex()), bytes).unwrap();
            json!({ "mediaType": "application/vnd.docker.ai.license", "digest": digest.to_string(), "size": bytes.len() })
        }

        /// With a model for each name; none of them has weights.
        fn index(&self, names: &[&str]) {
            let model = |name: &&str| {
                let manifest = json!({ "layers": [self.blob(name.as_bytes())] }).to_string();
                let mut descriptor = self.blob(manifest.as_bytes());
                descriptor["annotations"] = json!({ REF_NAME: name });
                descriptor
            };
            let manifests: Vec<_> = names.iter().map(model).collect();
            self.write_index(&json!({ "manifests": manifests }));
        }

        fn write_index(&self, index: &Value) {
            fs::write(self.path("index.json"), index.to_string()).unwrap();
        }

        fn import(&self, name: Option<&str>) -> String {
            let name = name.map(|name| name.parse().unwrap());
            let go_on = &mut |_, _| ControlFlow::Continue(());
            let (store, how) = (self.store(), ImportMode::Auto);
            let imported = import_layout(&store, &self.path(""), name.as_ref(), how, go_on);
            assert!(store.list().models.is_empty());
            imported.unwrap_err().to_string()
        }
    }

    #[test]
    fn a_model_is_chosen_by_its_name() {
        let layout = Layout::new();
        // What is chosen is refused for what it holds.
        let chosen = |name: &str| format!("`{name}` cannot be run here");
        for (names, name, said) in [
            (&["a:x"][..], None, &*chosen("a:x")),
            (&["a:x"], Some("b"), &chosen("b:latest")),
            (&["a:x", "b:latest"], Some("b"), &chosen("b:latest")),
            (&["a:x", "b:y"], Some("c"), "name one of `a:x`, `b:y`"),
            (&["a:x", "b:y"], None, "name one of `a:x`, `b:y`"),
            (&["latest"], None, "give a name"),
            (&[], Some("a"), "holds nothing"),
        ] {
            layout.index(names);
            let error = layout.import(name);
            assert!(error.contains(said), "{names:?} {name:?}: {error}");
        }
    }

    #[test]
    fn what_a_hostile_folder_says_is_not_believed() {
        let layout = Layout::new();
        let blobs = layout.path("blobs/sha256");
        let good = layout.blob(b"as you like");
        let other = Digest::of(b"other");
        let absent = json!({ "digest": other.to_string() });
        let cases: [(Value, &str); 6] = [
            (json!({ "manifests": [{ "digest": "sha256:../../../../etc/passwd" }] }), "digest"),
            (json!({ "manifests": [{ "digest": format!("sha512:{}", other.hex()) }] }), "digest"),
            (json!({ "manifests": [absent] }), "cannot open"),
            (json!({ "manifests": [good] }), "no JSON of the right shape"),
            (json!({ "manifests": {} }), "`index.json` is none"),
            (json!([]), "`index.json` is none"),
        ];
        for (index, said) in cases {
            layout.write_index(&index);
            let error = layout.import(Some("a"));
            assert!(error.contains(said), "{index}: {error}");
        }

        // Under a digest lies another content, a folder, or more than is read.
        let manifest = layout.blob(json!({ "layers": [good] }).to_string().as_bytes());
        let index = json!({ "manifests": [manifest] });
        layout.write_index(&index);
        let layer = blobs.join(Digest::of(b"as you like").hex());
        fs::write(&layer, "as I like!!").unwrap();
        assert!(layout.import(Some("a")).contains("digest"));
        fs::remove_file(&layer).unwrap();
        fs::create_dir(&layer).unwrap();
        assert!(layout.import(Some("a")).contains("not a regular file"));
        let manifest = blobs.join(manifest["digest"].as_str().unwrap().replace("sha256:", ""));
        fs::File::create(manifest).unwrap().set_len(1 << 40).unwrap();
        assert!(layout.import(Some("a")).contains("has more than"));
        fs::remove_file(layout.path("oci-layout")).unwrap();
        assert!(layout.import(Some("a")).contains("oci-layout"));
        assert_eq!(layout.store().usage().unwrap().unfinished.n_files, 0);
    }
}
