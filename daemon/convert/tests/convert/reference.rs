//! Whole files against llama.cpp's own converter: tiny models of every architecture and an adapter,
//! in every type that is written.
//!
//! `llama_cpp.sha256` has the hashes of what that converter makes of them. It takes Python, PyTorch
//! and minutes, and so runs when something here changes: `tests/tools/convert_reference.py`.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use hearth_convert::{ConvertError, Options, OutputType, convert, convert_adapter};
use sha2::{Digest, Sha256};

use crate::models;

const TYPES: [(&str, OutputType); 4] = [
    ("f32", OutputType::F32),
    ("f16", OutputType::F16),
    ("bf16", OutputType::Bf16),
    ("q8_0", OutputType::Q8_0),
];

fn hash(file: Result<Vec<u8>, ConvertError>) -> String {
    Sha256::digest(file.unwrap()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn options(name: &str, output_type: OutputType) -> Options {
    Options { name: name.to_owned(), output_type }
}

#[test]
fn files_are_those_of_llama_cpp_to_the_byte() {
    let root = tempfile::tempdir().unwrap();
    let folder = |name: &str| root.path().join(name);
    let mut found = BTreeMap::new();
    let mut enter = |name: &str, convert: &dyn Fn(OutputType) -> Result<Vec<u8>, ConvertError>| {
        for (kind, output_type) in TYPES {
            let hash = hash(convert(output_type));
            let before = found.insert(format!("{name}.{kind}"), hash.clone());
            assert!(before.is_none_or(|before| before == hash), "{name}.{kind}");
        }
    };
    let go_on = || |_| ControlFlow::Continue(());
    for model in models::all() {
        model.write(&folder(model.name));
        enter(model.name, &|output_type| {
            let options = options("Tiny", output_type);
            convert(&folder(model.name), &options, Vec::new(), &mut go_on())
        });
    }
    models::write_adapter(&folder("adapter"));
    enter("adapter", &|output_type| {
        let options = options("Adapter", output_type);
        convert_adapter(&folder("adapter"), &folder("llama"), &options, Vec::new(), &mut go_on())
    });

    // Of a converted model the header says as much.
    let base = folder("llama.gguf");
    let llama = convert(&folder("llama"), &options("Tiny", TYPES[0].1), Vec::new(), &mut go_on());
    std::fs::write(&base, llama.unwrap()).unwrap();
    enter("adapter", &|output_type| {
        let options = options("Adapter", output_type);
        convert_adapter(&folder("adapter"), &base, &options, Vec::new(), &mut go_on())
    });

    let expected: BTreeMap<String, String> = include_str!("llama_cpp.sha256")
        .lines()
        .map(|line| line.split_once("  ").unwrap())
        .map(|(hash, name)| (name.to_owned(), hash.to_owned()))
        .collect();
    assert_eq!(found, expected);
}
