//! What is made of a recipe: layers, their bytes, their order, and when nothing changes.

use super::*;
use crate::digest::Digest;
use crate::new_blob::NewBlob;
use hearth_gguf::testing::Writer;
use std::fs;

fn put(store: &Store, bytes: &[u8]) -> Blob {
    let mut blob = NewBlob::create(store).unwrap();
    blob.append(bytes).unwrap();
    blob.publish(None).unwrap()
}

fn name(text: &str) -> ModelName {
    text.parse().unwrap()
}

fn made(store: &Store, text: &str, recipe: &Recipe) -> Manifest {
    let (name, manifest) = store.create(&name(text), recipe).unwrap();
    assert_eq!(store.manifest(&name).unwrap(), manifest);
    manifest
}

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(object) = value else { panic!("{value}") };
    object
}

fn kinds(manifest: &Manifest) -> Vec<LayerKind> {
    manifest.layers().iter().map(Layer::kind).collect()
}

fn content(store: &Store, manifest: &Manifest, kind: LayerKind) -> String {
    let layer = manifest.layers_of(kind).next().unwrap();
    fs::read_to_string(store.blobs().path(&layer.digest)).unwrap()
}

/// Everything that a recipe can hold.
fn rich(store: &Store) -> Recipe {
    let projector = Writer::new().text("general.architecture", "clip").bytes();
    let adapter =
        Writer::new().text("general.architecture", "llama").text("general.type", "adapter").bytes();
    Recipe {
        base: None,
        weights: None,
        files: [adapter, Writer::model().bytes(), projector].map(|file| put(store, &file)).to_vec(),
        draft: Some(put(store, &Writer::model().text("general.name", "draft").bytes())),
        template: Some("{{ .Prompt }}<|end|>".into()),
        system: Some("Be brief.".into()),
        params: object(json!({ "temperature": 0.5, "num_ctx": 4096, "stop": ["<|end|>"] })),
        messages: vec![PresetMessage { role: "user".into(), content: "a & b".into() }],
        licenses: vec!["first".into(), "second".into()],
        renderer: None,
        parser: Some("qwen3".into()),
        requires: Some("0.14.0".into()),
    }
}

#[test]
fn a_recipe_becomes_ollamas_layers() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path());
    let manifest = made(&store, "rich", &rich(&store));
    use LayerKind::{
        Adapter, Draft, License, Messages, Model, Params, Projector, System, Template,
    };
    assert_eq!(
        kinds(&manifest),
        [Model, Projector, Adapter, Draft, Template, System, License, License, Params, Messages]
    );
    // As Go's encoder writes it.
    assert_eq!(
        content(&store, &manifest, Params),
        "{\"num_ctx\":4096,\"stop\":[\"\\u003c|end|\\u003e\"],\"temperature\":0.5}\n"
    );
    assert_eq!(
        content(&store, &manifest, Messages),
        "[{\"role\":\"user\",\"content\":\"a \\u0026 b\"}]\n"
    );
    let shown = store.show(&name("rich")).unwrap();
    assert_eq!(shown.licenses, ["first", "second"]);
    assert_eq!(shown.model.messages[0].content, "a & b");
    assert_eq!(shown.model.config.parser.as_deref(), Some("qwen3"));
    assert_eq!(shown.model.config.requires.as_deref(), Some("0.14.0"));
    assert_eq!(shown.model.config.quantization, "Q4_1");
    assert_eq!(made(&store, "again", &rich(&store)), manifest);
}

#[test]
fn a_base_gives_what_the_recipe_does_not_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path());
    let base = made(&store, "rich", &rich(&store));
    let recipe = Recipe {
        base: Some(base.clone()),
        template: Some(String::new()),
        system: Some("Be long.".into()),
        params: object(json!({ "temperature": 1, "seed": 7 })),
        messages: vec![PresetMessage { role: "assistant".into(), content: "c".into() }],
        licenses: vec!["second".into(), "third".into()],
        parser: Some(String::new()),
        ..Recipe::default()
    };
    let manifest = made(&store, "other", &recipe);
    let shown = store.show(&name("other")).unwrap();
    let model = shown.model;
    assert_eq!((model.template, model.system.as_deref()), (None, Some("Be long.")));
    assert_eq!(shown.licenses, ["first", "second", "third"]);
    let params = json!({ "num_ctx": 4096, "seed": 7, "stop": ["<|end|>"], "temperature": 1 });
    assert_eq!(Value::Object(model.params), params);
    assert_eq!(model.messages.len(), 1);
    assert_eq!((model.config.parser, model.config.requires), (None, Some("0.14.0".into())));
    assert_eq!(
        manifest.layers_of(LayerKind::Model).next(),
        base.layers_of(LayerKind::Model).next()
    );
}

#[test]
fn what_changes_nothing_keeps_the_manifest_to_the_byte() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path());
    made(&store, "rich", &rich(&store));
    // As another program writes it: with spaces, and its layers in another order.
    let library = dir.path().join("manifests/registry.ollama.ai/library");
    let text = fs::read(library.join("rich/latest")).unwrap();
    let mut foreign: Value = serde_json::from_slice(&text).unwrap();
    foreign["layers"].as_array_mut().unwrap().reverse();
    fs::create_dir(library.join("foreign")).unwrap();
    let text = format!("{foreign:#}");
    fs::write(library.join("foreign/latest"), &text).unwrap();

    let base = Some(store.manifest(&name("foreign")).unwrap());
    let same = Recipe { files: Vec::new(), base: base.clone(), ..rich(&store) };
    for recipe in [Recipe { base, ..Recipe::default() }, same] {
        assert_eq!(made(&store, "new", &recipe).bytes(), text.as_bytes());
    }
}

#[test]
fn what_is_no_model_gets_no_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path());
    let weights = put(&store, &Writer::model().bytes());
    let other = put(&store, &Writer::model().text("general.name", "other").bytes());
    let text = put(&store, b"no GGUF");
    let gone = Blob { digest: Digest::of(b"gone"), size: 4 };
    for files in [vec![], vec![weights, other], vec![weights, text], vec![gone]] {
        let recipe = Recipe { files, ..Recipe::default() };
        store.create(&name("none"), &recipe).unwrap_err();
    }
    let long = "x".repeat(usize::try_from(MAX_TEXT_BYTES).unwrap() + 1);
    let recipe = Recipe { files: vec![weights], system: Some(long), ..Recipe::default() };
    assert_eq!(store.create(&name("none"), &recipe).unwrap_err().kind(), "too_long");
    assert!(store.list().models.is_empty());
}

#[test]
fn weights_in_another_type_take_the_place_of_what_there_was() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path());
    let base = made(&store, "rich", &rich(&store));
    let smaller = Writer::new()
        .text("general.architecture", "llama")
        .u32("general.file_type", 7)
        .tensor("token_embd.weight", &[8], 0, 32);
    let smaller = put(&store, &smaller.bytes());
    for recipe in [Recipe { base: Some(base), ..Recipe::default() }, rich(&store)] {
        let manifest = made(&store, "small", &Recipe { weights: Some(smaller), ..recipe });
        let weights: Vec<_> = manifest.layers_of(LayerKind::Model).collect();
        assert_eq!((weights.len(), weights[0].digest), (1, smaller.digest));
        let model = store.show(&name("small")).unwrap().model;
        assert_eq!(
            (model.config.quantization.as_str(), model.config.family.as_str()),
            ("Q8_0", "llama")
        );
        assert!(model.system.is_some());
    }
}
