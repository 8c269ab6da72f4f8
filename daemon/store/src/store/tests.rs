//! Stores as Ollama leaves them: complete models, damaged ones, foreign files.

use std::fs;

use hearth_gguf::testing::Writer;

use super::*;
use crate::manifest::CONFIG_MEDIA_TYPE;

struct Fixture {
    _dir: tempfile::TempDir,
    store: Store,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path());
        Self { _dir: dir, store }
    }

    fn blob(&self, media_type: &str, bytes: &[u8]) -> Layer {
        let digest = self.store.blobs.write(bytes).unwrap();
        Layer::new(media_type, digest, u64::try_from(bytes.len()).unwrap())
    }

    fn layer(&self, kind: LayerKind, bytes: &[u8]) -> Layer {
        self.blob(&kind.media_type().unwrap(), bytes)
    }

    fn add(&self, name: &str, config: &str, layers: Vec<Layer>) -> Manifest {
        let config = self.blob(CONFIG_MEDIA_TYPE, config.as_bytes());
        let manifest = Manifest::new(config, layers);
        self.store.catalog.write(&name.parse().unwrap(), &manifest).unwrap();
        manifest
    }

    fn weights(&self) -> Layer {
        self.layer(LayerKind::Model, &Writer::model().bytes())
    }

    fn put(&self, path: &str, content: &str) {
        let path = self.store.dir.join("manifests").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

const CONFIG: &str =
    r#"{"model_format":"gguf","model_family":"llama","model_type":"261","file_type":"Q4_1"}"#;

fn name(text: &str) -> ModelName {
    text.parse().unwrap()
}

#[test]
fn a_store_that_is_not_there_is_empty_and_stays_absent() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("none"));
    let list = store.list();
    assert!(list.models.is_empty() && list.problems.is_empty());
    let error = store.resolve(&name("m")).unwrap_err();
    assert_eq!(error.kind(), "model_not_found");
    assert_eq!(error.to_string(), "there is no model `m:latest`");
    assert!(!store.dir().exists());
}

#[test]
fn every_layer_is_resolved() {
    let fixture = Fixture::new();
    let projector = Writer::new().text("general.architecture", "clip").bytes();
    let manifest = fixture.add(
        "full:1",
        CONFIG,
        vec![
            fixture.weights(),
            fixture.layer(LayerKind::Projector, &projector),
            fixture.layer(LayerKind::Adapter, b"lora one"),
            fixture.layer(LayerKind::Adapter, b"lora two"),
            fixture.layer(LayerKind::Template, "{{ .Prompt }} é".as_bytes()),
            fixture.layer(LayerKind::System, b"be brief"),
            fixture.layer(LayerKind::Params, br#"{"stop":["<|im_end|>"],"temperature":0.7}"#),
            fixture.layer(LayerKind::Messages, br#"[{"role":"user","content":"hi"}]"#),
            fixture.layer(LayerKind::License, b"MIT"),
            fixture.layer(LayerKind::License, b"Apache"),
            fixture.blob("application/vnd.example.new", b"?"),
        ],
    );
    let model = fixture.store.resolve(&name("FULL:1")).unwrap();
    assert_eq!(model.name.to_string(), "full:1");
    assert_eq!(model.id, manifest.id());
    assert_eq!(fs::read(&model.model_path).unwrap(), Writer::model().bytes());
    assert_eq!(model.adapters.len(), 2);
    assert_eq!(fs::read(&model.adapters[1]).unwrap(), b"lora two");
    assert_eq!(model.template.as_deref(), Some("{{ .Prompt }} é"));
    assert_eq!(model.system.as_deref(), Some("be brief"));
    assert_eq!(model.params["temperature"], 0.7);
    assert_eq!(
        model.messages,
        [PresetMessage { role: "user".to_owned(), content: "hi".to_owned() }]
    );

    let shown = fixture.store.show(&name("full:1")).unwrap();
    assert_eq!(shown.licenses, ["MIT", "Apache"]);
    assert_eq!(shown.gguf.architecture, "llama");
    assert_eq!(shown.size, manifest.size());
    assert_eq!(fixture.store.manifest(&name("full:1")).unwrap(), manifest);
}

#[test]
fn what_is_broken_is_listed_apart() {
    let fixture = Fixture::new();
    fixture.add("good", CONFIG, vec![fixture.weights()]);
    fixture.add("odd-config", "[]", vec![]);
    fixture.add("no-config", r#"{"model_family":"gone"}"#, vec![]);
    let gone = Digest::of(br#"{"model_family":"gone"}"#);
    fs::remove_file(fixture.store.blobs.path(&gone)).unwrap();
    fixture.put("registry.ollama.ai/library/not-json/latest", "hello");
    fixture.put("registry.ollama.ai/library/m/bad tag", "{}");
    fixture.put("registry.ollama.ai/library/too-high", "{}");
    fixture.put("registry.ollama.ai/library/m/tag/too-deep", "{}");
    fixture.put("registry.ollama.ai/library/m/.hidden", "{}");
    fixture.put(".DS_Store", "");

    let list = fixture.store.list();
    let names: Vec<_> = list.models.iter().map(|model| model.name.to_string()).collect();
    assert_eq!(names, ["good:latest"]);
    let mut problems: Vec<_> = list
        .problems
        .iter()
        .map(|problem| {
            let path = problem.path.strip_prefix(fixture.store.dir.join("manifests")).unwrap();
            let path = path.strip_prefix("registry.ollama.ai/library").unwrap();
            (path.to_str().unwrap(), problem.error.kind())
        })
        .collect();
    problems.sort_unstable();
    assert_eq!(
        problems,
        [
            ("m/bad tag", "bad_name"),
            ("m/tag", "bad_manifest"),
            ("no-config/latest", "blob_missing"),
            ("not-json/latest", "bad_manifest"),
            ("odd-config/latest", "bad_blob"),
            ("too-high", "bad_manifest"),
        ]
    );
}

#[test]
fn the_newest_model_is_first() {
    let fixture = Fixture::new();
    for (idx, model) in ["b", "a", "c"].into_iter().enumerate() {
        fixture.add(model, CONFIG, vec![fixture.weights()]);
        let path = fixture.store.catalog.path(&name(model));
        let file = fs::File::options().write(true).open(path).unwrap();
        let age = std::time::Duration::from_secs(60 * u64::try_from(idx / 2).unwrap());
        file.set_modified(SystemTime::UNIX_EPOCH + age).unwrap();
    }
    let names: Vec<_> =
        fixture.store.list().models.iter().map(|model| model.name.model().to_owned()).collect();
    assert_eq!(names, ["c", "a", "b"]);
}

#[test]
fn an_exact_spelling_beats_another_case() {
    let fixture = Fixture::new();
    fixture.add("Model:X", CONFIG, vec![fixture.weights()]);
    fixture.add("model:x", CONFIG, vec![]);
    let exact = fixture.store.resolve(&name("Model:X")).unwrap();
    assert_eq!(exact.name.model(), "Model");
    assert_eq!(fixture.store.resolve(&name("model:x")).unwrap_err().kind(), "unsupported_model");
}

#[test]
fn a_name_that_is_nearly_right_gets_a_hint() {
    let fixture = Fixture::new();
    fixture.add("smollm:135m", CONFIG, vec![fixture.weights()]);
    let error = fixture.store.resolve(&name("smolm:135m")).unwrap_err();
    assert_eq!(error.hint().unwrap(), "did you mean `smollm:135m`?");
    let error = fixture.store.show(&name("phi")).unwrap_err();
    assert_eq!(error.hint().unwrap(), "`ctl ls` shows the models that are here");
}

#[test]
fn models_that_cannot_run_say_why() {
    let fixture = Fixture::new();
    fixture.add("cloud", r#"{"remote_host":"https://ollama.com:443"}"#, vec![]);
    fixture.add("empty", CONFIG, vec![]);
    fixture.add("tensors", CONFIG, vec![fixture.layer(LayerKind::Tensor, b"x")]);
    for (model, reason) in [
        ("cloud", "it runs on `https://ollama.com:443`"),
        ("empty", "its manifest names no weights"),
        ("tensors", "its weights are safetensors"),
    ] {
        let error = fixture.store.resolve(&name(model)).unwrap_err();
        assert_eq!(error.kind(), "unsupported_model");
        assert!(error.to_string().contains(reason), "{error}");
    }
    assert_eq!(fixture.store.list().models.len(), 3);
}

#[test]
fn a_layer_that_is_damaged_is_named() {
    let fixture = Fixture::new();
    let params = fixture.layer(LayerKind::Params, b"[1]");
    fixture.add("params", CONFIG, vec![fixture.weights(), params]);
    let error = fixture.store.resolve(&name("params")).unwrap_err();
    assert!(error.to_string().contains("no JSON object"), "{error}");

    let system = fixture.layer(LayerKind::System, b"\xff");
    fixture.add("system", CONFIG, vec![fixture.weights(), system]);
    let error = fixture.store.resolve(&name("system")).unwrap_err();
    assert!(error.to_string().contains("not UTF-8"), "{error}");

    let weights = fixture.weights();
    fixture.add("gone", CONFIG, vec![weights.clone()]);
    fs::remove_file(fixture.store.blobs.path(&weights.digest)).unwrap();
    let error = fixture.store.resolve(&name("gone")).unwrap_err();
    assert_eq!(error.kind(), "blob_missing");
    assert_eq!(error.hint().unwrap(), "pull or import the model again");
}

#[test]
fn a_catalog_that_is_not_a_folder_is_an_error_and_not_an_absent_model() {
    let fixture = Fixture::new();
    fs::write(fixture.store.dir.join("manifests"), "").unwrap();
    assert_eq!(fixture.store.list().problems.len(), 1);
    assert_eq!(fixture.store.resolve(&name("m")).unwrap_err().kind(), "io");
}
