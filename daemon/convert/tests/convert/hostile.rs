//! Folders that are damaged, incomplete or made to harm: each is refused, or converted, and nothing
//! else.

use std::fs;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::Path;

use hearth_convert::{ConvertError, Options, OutputType, convert, convert_adapter, half_type};
use hearth_gguf::Gguf;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::models::{write_adapter, write_json, write_safetensors};
use crate::{converted, written};

/// What is converted is a GGUF file, and what is not has a reason on one line.
fn check(folder: &Path) {
    match converted(folder) {
        Ok(file) => {
            Gguf::read(&mut io::Cursor::new(&file)).unwrap();
        }
        Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
    }
}

fn refusal(folder: &Path) -> (&'static str, String) {
    let error = converted(folder).unwrap_err();
    assert!(error.hint().is_some(), "{error}");
    (error.kind(), error.to_string().replace(&folder.display().to_string(), "MODEL"))
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// A safetensors file whose header is `header` and whose data is `n_bytes` long.
fn write_header(folder: &Path, header: &Value, n_bytes: usize) {
    let header = serde_json::to_vec(header).unwrap();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.resize(bytes.len() + n_bytes, 0);
    fs::write(folder.join("model.safetensors"), bytes).unwrap();
}

#[test]
fn tensors_that_are_not_converted_do_not_say_what_the_others_become() {
    let folder = tempfile::tempdir().unwrap();
    let header = json!({
        "embeddings.position_ids": { "dtype": "I64", "shape": [1, 2], "data_offsets": [0, 16] },
        "a": { "dtype": "BF16", "shape": [4], "data_offsets": [16, 24] },
        "b": { "dtype": "F32", "shape": [1], "data_offsets": [24, 28] },
    });
    write_header(folder.path(), &header, 28);
    assert_eq!(half_type(folder.path()).unwrap(), OutputType::Bf16);
}

#[test]
fn any_value_may_stand_anywhere_in_a_configuration() {
    let values = [
        json!(null),
        json!(0),
        json!(-1),
        json!(u64::MAX),
        json!(1e300),
        json!("x"),
        json!([]),
        json!([1]),
        json!({}),
    ];
    for (model, file) in [
        ("llama", "config.json"),
        ("llama", "tokenizer.json"),
        ("llama", "tokenizer_config.json"),
        ("llama", "generation_config.json"),
        ("mistral", "tokenizer_config.json"),
        ("qwen3", "config.json"),
        ("phi3", "config.json"),
        ("phi3", "added_tokens.json"),
        ("bert", "modules.json"),
        ("bert", "tokenizer.json"),
        ("nomic-bert", "config.json"),
    ] {
        let folder = written(model);
        let path = folder.path().join(file);
        let good = read_json(&path);
        for place in places(&good) {
            for value in &values {
                let mut bad = good.clone();
                *bad.pointer_mut(&place).unwrap() = value.clone();
                write_json(&path, &bad);
                check(folder.path());
            }
        }
    }
}

/// Pointers to all values but those of long lists and vocabularies.
fn places(value: &Value) -> Vec<String> {
    let mut places = vec![String::new()];
    let mut enter = |key: String, item: &Value| {
        let key = key.replace('~', "~0").replace('/', "~1");
        places.extend(self::places(item).into_iter().map(|place| format!("/{key}{place}")));
    };
    match value {
        Value::Object(fields) => {
            let n_fields = if fields.len() > 40 { 2 } else { 40 };
            fields.iter().take(n_fields).for_each(|(key, item)| enter(key.clone(), item));
        }
        Value::Array(items) => {
            items.iter().take(3).enumerate().for_each(|(idx, item)| enter(idx.to_string(), item));
        }
        _ => {}
    }
    places
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_byte_may_be_wrong(
        model in prop::sample::select(vec!["llama", "mistral", "qwen2", "bert"]),
        file in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let folder = written(model);
        let mut files: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_file())
            .collect();
        files.sort();
        let path = file.get(&files);
        let mut bytes = fs::read(path).unwrap();
        // Most of a file of weights is weights, and the header is what matters.
        let n_bytes = bytes.len().min(4096);
        for (place, byte) in changes {
            bytes[place.index(n_bytes)] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        fs::write(path, bytes).unwrap();
        check(folder.path());
    }
}

#[test]
fn lengths_are_not_believed() {
    let folder = written("llama");
    let path = folder.path().join("model.safetensors");
    let good = fs::read(&path).unwrap();
    for (length, expected) in [
        (u64::MAX, "its header has 18446744073709551615 bytes and may have"),
        (good.len() as u64, "bytes and may have"),
        (3, "its header is not JSON"),
    ] {
        let mut bytes = good.clone();
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        fs::write(&path, bytes).unwrap();
        let (kind, message) = refusal(folder.path());
        assert!(kind == "bad_model" && message.contains(expected), "{kind}: {message}");
    }
    fs::write(&path, &good[..good.len() - 1]).unwrap();
    let (_, message) = refusal(folder.path());
    assert!(message.contains("the file is cut short"), "{message}");

    let name = "model.embed_tokens.weight";
    for (shape, offsets, expected) in [
        (json!([4, 8]), json!([0, 60]), "has a shape that does not fit its data"),
        (json!([u64::MAX, 2]), json!([0, 64]), "has a shape that does not fit its data"),
        (json!([4, 8]), json!([64, 0]), "ends at 0 of 64 bytes"),
        (json!([4, 8]), json!([64, 128]), "ends at 128 of 64 bytes"),
        (json!([4, 8]), json!([u64::MAX - 63, u64::MAX]), "ends at 18446744073709551615 of 64"),
        (json!([-4, 8]), json!([0, 64]), "is not described"),
        (json!([4, 2, 2, 2, 1]), json!([0, 64]), "5 dimensions, and 4 are supported"),
    ] {
        let header = json!({name: {"dtype": "BF16", "shape": shape, "data_offsets": offsets}});
        write_header(folder.path(), &header, 64);
        let (kind, message) = refusal(folder.path());
        assert!(kind == "bad_model" && message.contains(expected), "{kind}: {message}");
    }
}

#[test]
fn a_folder_leads_nowhere_else() {
    let folder = written("qwen2");
    let index = folder.path().join("model.safetensors.index.json");
    for name in ["../model.safetensors", "/etc/passwd", "a/../../b", "./x"] {
        write_json(&index, &json!({"weight_map": {"x": name}}));
        let (kind, message) = refusal(folder.path());
        assert_eq!(kind, "bad_model");
        assert!(message.contains("outside of it"), "{message}");
    }
    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    fs::create_dir(folder.path().join("tokenizer.json")).unwrap();
    fs::remove_file(&index).unwrap();
    let (kind, message) = refusal(folder.path());
    assert_eq!(
        (kind, message.as_str()),
        ("bad_model", "`MODEL/tokenizer.json`: it is not a regular file")
    );
}

#[test]
fn a_model_of_very_many_files_is_refused_before_they_are_opened() {
    let folder = written("qwen2");
    let files: serde_json::Map<String, Value> =
        (0..1025).map(|idx| (format!("t{idx}"), json!(format!("{idx}.safetensors")))).collect();
    let index = folder.path().join("model.safetensors.index.json");
    write_json(&index, &json!({"weight_map": files}));
    let expected = "a model of more than 1024 files is not supported".to_owned();
    assert_eq!(refusal(folder.path()), ("unsupported", expected));
}

#[test]
fn what_cannot_be_read_has_a_hint() {
    let folder = written("llama");
    let config = folder.path().join("config.json");
    fs::remove_file(&config).unwrap();
    // Nobody can follow it, not even root.
    std::os::unix::fs::symlink("config.json", &config).unwrap();
    assert_eq!(refusal(folder.path()).0, "io");
}

#[test]
fn what_is_missing_is_named() {
    for (model, file) in [
        ("llama", "config.json"),
        ("llama", "model.safetensors"),
        ("llama", "tokenizer.json"),
        ("gemma2", "tokenizer.model"),
        ("qwen2", "model-00002-of-00002.safetensors"),
    ] {
        let folder = written(model);
        fs::remove_file(folder.path().join(file)).unwrap();
        assert_eq!(refusal(folder.path()), ("not_found", format!("there is no `MODEL/{file}`")));
    }
    let folder = written("qwen2");
    let index = folder.path().join("model.safetensors.index.json");
    let mut listed = read_json(&index);
    listed["weight_map"]["another"] = json!("model-00001-of-00002.safetensors");
    write_json(&index, &listed);
    let (_, message) = refusal(folder.path());
    assert!(message.ends_with("it lists tensor `another`, which is in no file"), "{message}");

    let absent = Path::new("/nonexistent/model");
    assert_eq!(converted(absent).unwrap_err().kind(), "not_found");
}

#[test]
fn embeddings_and_tokens_are_as_many() {
    let folder = written("llama");
    let config = folder.path().join("config.json");
    let mut other = read_json(&config);
    let n_tokens = other["vocab_size"].as_u64().unwrap();
    other["vocab_size"] = json!(n_tokens + 1);
    write_json(&config, &other);
    let (kind, message) = refusal(folder.path());
    assert_eq!(kind, "bad_model");
    assert!(message.ends_with(&format!("{n_tokens} embeddings for {} tokens", n_tokens + 1)));
}

#[test]
fn an_adapter_is_pairs_of_matrices_that_its_model_has() {
    let base = written("llama");
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("adapter_model.safetensors");
    let refusal = || {
        let options = Options { name: "Adapter".to_owned(), output_type: OutputType::F32 };
        let go_on = &mut |_| ControlFlow::Continue(());
        let result = convert_adapter(folder.path(), base.path(), &options, io::sink(), go_on);
        result
            .err()
            .map(|error| error.to_string().replace(&folder.path().display().to_string(), "ADAPTER"))
    };
    write_adapter(folder.path());
    assert_eq!(refusal(), None);

    let matrix = |name: &str, shape: [u64; 2]| {
        (format!("base_model.model.model.{name}.weight"), shape.to_vec())
    };
    for (tensors, expected) in [
        (
            vec![matrix("layers.0.mlp.up_proj.lora_A", [8, 64])],
            "`ADAPTER/adapter_model.safetensors`: half of the change of \
             `model.layers.0.mlp.up_proj.weight` is missing",
        ),
        (
            vec![
                matrix("layers.0.mlp.up_proj.lora_A", [8, 64]),
                matrix("layers.0.mlp.up_proj.lora_B", [80, 4]),
            ],
            "`ADAPTER/adapter_model.safetensors`: tensor \
             `base_model.model.model.layers.0.mlp.up_proj.lora_A.weight` does not fit its other half",
        ),
        (
            vec![matrix("embed_tokens.lora_A", [8, 64]), matrix("embed_tokens.lora_B", [64, 8])],
            "an adapter that changes `token_embd.weight` is not supported",
        ),
        (
            vec![
                matrix("layers.0.mlp.up_proj.lora_A", [8, 64]),
                ("model.layers.0.mlp.up_proj.lora_A.weight".to_owned(), vec![8, 64]),
            ],
            "`ADAPTER/adapter_model.safetensors`: tensor `model.layers.0.mlp.up_proj.lora_A.weight` \
             is there under another name too",
        ),
        (
            ["model.layers.0", "layers.0"]
                .map(|layer| {
                    let half = |half: &str, shape: [u64; 2]| {
                        (format!("{layer}.mlp.up_proj.lora_{half}.weight"), shape.to_vec())
                    };
                    [half("A", [8, 64]), half("B", [80, 8])]
                })
                .concat(),
            "`ADAPTER/adapter_model.safetensors`: two of its tensors become \
             `blk.0.ffn_up.weight.lora_a`",
        ),
        (
            vec![matrix("layers.0.mlp.up_proj", [80, 64])],
            "in an adapter the tensor \
             `base_model.model.model.layers.0.mlp.up_proj.weight` is not supported",
        ),
    ] {
        write_safetensors(&weights, "F32", &tensors);
        assert_eq!(refusal().as_deref(), Some(expected));
    }
    let no_alpha = "`ADAPTER/adapter_config.json`: it has no `lora_alpha`";
    // Each of these scales the matrices in a way of its own.
    for (settings, expected) in [
        (json!({}), no_alpha),
        (
            json!({"lora_alpha": 16, "use_rslora": true}),
            "an adapter with `use_rslora` is not supported",
        ),
        (
            json!({"lora_alpha": 16, "alpha_pattern": {"up_proj": 8}}),
            "an adapter with `alpha_pattern` is not supported",
        ),
    ] {
        write_json(&folder.path().join("adapter_config.json"), &settings);
        assert_eq!(refusal().as_deref(), Some(expected));
    }
    write_adapter(folder.path());
    let usual = json!({"lora_alpha": 16, "use_rslora": false, "alpha_pattern": {}});
    write_json(&folder.path().join("adapter_config.json"), &usual);
    assert_eq!(refusal(), None);
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    let folder = written("llama");
    let config = folder.path().join("config.json");
    let good = read_json(&config);
    let mut other = good.clone();
    other["architectures"] = json!(["MambaForCausalLM"]);
    write_json(&config, &other);
    let expected =
        ("unsupported", "the architecture `MambaForCausalLM` is not supported".to_owned());
    assert_eq!(refusal(folder.path()), expected);

    let mut other = good.clone();
    other["rope_scaling"] = json!({"rope_type": "dynamic", "factor": 2.0});
    write_json(&config, &other);
    let expected = "scaling of rotary embedding by `dynamic` is not supported".to_owned();
    assert_eq!(refusal(folder.path()), ("unsupported", expected));
    write_json(&config, &good);

    let weights = folder.path().join("model.safetensors");
    for (name, message) in [
        ("model.layers.0.mlp.experts.weight", "in a llama model is not supported"),
        ("model.layers.2.mlp.up_proj.weight", "in a llama model is not supported"),
        ("model.layers.+1.mlp.up_proj.weight", "in a llama model is not supported"),
        ("model.norm.scale", "in a llama model is not supported"),
    ] {
        write_safetensors(&weights, "BF16", &[(name.to_owned(), vec![32])]);
        let (kind, found) = refusal(folder.path());
        assert_eq!(kind, "unsupported");
        assert_eq!(found, format!("tensor `{name}` {message}"));
    }
    let header = json!({"model.embed_tokens.weight": {
        "dtype": "F8_E4M3", "shape": [4, 8], "data_offsets": [0, 32],
    }});
    write_header(folder.path(), &header, 32);
    let expected =
        "tensor `model.embed_tokens.weight` of type `F8_E4M3` is not supported".to_owned();
    assert_eq!(refusal(folder.path()), ("unsupported", expected));
}

#[test]
fn progress_goes_forward_and_can_end_it() {
    let folder = written("llama");
    let options = Options { name: "Tiny".to_owned(), output_type: OutputType::F32 };
    let mut reports = Vec::new();
    convert(folder.path(), &options, io::sink(), &mut |progress| {
        reports.push(progress);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(reports[0].bytes_done, 0);
    assert!(reports.is_sorted_by(|before, after| before.bytes_done < after.bytes_done));
    let last = reports.last().unwrap();
    assert_eq!(last.bytes_done, last.bytes_total);

    for n_reports in [1, 2, reports.len()] {
        let mut n_seen = 0;
        let cancelled = convert(folder.path(), &options, io::sink(), &mut |_| {
            n_seen += 1;
            if n_seen < n_reports { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        assert!(matches!(cancelled, Err(ConvertError::Cancelled)));
        assert_eq!(n_seen, n_reports);
    }
}

#[test]
fn a_full_disk_is_told_as_such() {
    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let folder = written("llama");
    let options = Options { name: "Tiny".to_owned(), output_type: OutputType::F32 };
    let go_on = &mut |_| ControlFlow::Continue(());
    // In the header, and in the data.
    for n_bytes in [100, 50_000] {
        let Err(error) = convert(folder.path(), &options, Full(n_bytes), go_on) else {
            panic!("{n_bytes} bytes were enough");
        };
        assert_eq!(error.kind(), "io");
        assert_eq!(error.hint().as_deref(), Some("free some space"));
    }
}
