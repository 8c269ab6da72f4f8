//! llama.cpp's quantizer on the real models.

use crate::{limited, start, start_with};
use hearth_abi::host::Plugin;
use hearth_abi::{QuantizeParams as PluginParams, Status};
use hearth_protocol::{
    Embed, EmbedInput, ErrorKind, ModelDetails, ModelParams, ModelQuantize, ModelShow,
    ProgressEvent, QuantizeParams, RpcError,
};
use hearth_tests::{TestDaemon, embed, env_path, follow, refused};
use std::path::Path;
use std::sync::Arc;

const MINILM: &str = "minilm";

fn minilm() -> TestDaemon {
    start_with("HEARTH_TEST_MINILM", MINILM)
}

fn params(model: &str, type_name: &str, to: &str) -> QuantizeParams {
    QuantizeParams {
        model: model.into(),
        type_name: type_name.into(),
        to: Some(to.into()),
        imatrix: None,
        requantize: false,
        request: None,
    }
}

fn show(daemon: &TestDaemon, model: &str) -> ModelDetails {
    daemon.client().call::<ModelShow>(&ModelParams { model: model.into() }).unwrap()
}

fn embedding(daemon: &TestDaemon, model: &str) -> Vec<f32> {
    let params = embed(model, EmbedInput::One("a small dog walks across the stage".into()));
    daemon.client().call::<Embed>(&params).unwrap().embeddings.remove(0)
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// A matrix in llama.cpp's old format for all weights of MiniLM's attention and feed-forward.
fn write_matrix(path: &Path, weight: impl Fn(usize) -> f32) {
    let mut entries = Vec::new();
    for layer in 0..6 {
        for what in ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_up"] {
            entries.push((format!("blk.{layer}.{what}.weight"), 384));
        }
        entries.push((format!("blk.{layer}.ffn_down.weight"), 1536));
    }
    entries.push(("token_embd.weight".into(), 384));
    let mut bytes = Vec::new();
    let number = |bytes: &mut Vec<u8>, n: usize| {
        bytes.extend(i32::try_from(n).unwrap().to_le_bytes());
    };
    number(&mut bytes, entries.len());
    for (name, n_columns) in entries {
        number(&mut bytes, name.len());
        bytes.extend(name.as_bytes());
        number(&mut bytes, 1);
        number(&mut bytes, n_columns);
        bytes.extend((0..n_columns).flat_map(|column| weight(column).to_le_bytes()));
    }
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn every_type_is_made_and_says_so_itself() {
    let daemon = minilm();
    let mut client = daemon.client();
    let unknown = client.call::<ModelQuantize>(&params(MINILM, "Q4", "x"));
    let error = refused(unknown, ErrorKind::InvalidParams);
    let hint = error.hint().unwrap().to_owned();
    let types: Vec<&str> = hint.rsplit_once("the types are ").unwrap().1.split(", ").collect();
    assert_eq!(types.len(), 35, "{hint}");
    let matrix = daemon.dir().join("matrix");
    write_matrix(&matrix, |_| 1.0);
    let full = embedding(&daemon, MINILM);
    for type_name in types {
        let mut params = params(MINILM, type_name, type_name);
        // The smallest types are refused without a matrix.
        let without = client.call::<ModelQuantize>(&params);
        if let Err(error) = without {
            let error = refused::<()>(Err(error), ErrorKind::InvalidParams);
            assert!(error.message.contains("needs an importance matrix"), "{error:?}");
            assert!(error.hint().unwrap().contains("--imatrix"), "{error:?}");
            params.imatrix = Some(matrix.display().to_string());
            client.call::<ModelQuantize>(&params).unwrap();
        }
        let shown = show(&daemon, type_name);
        // Only the name of this one is another in the file.
        let said = if type_name == "MXFP4_MOE" { "MXFP4" } else { type_name };
        assert_eq!(shown.summary.quantization, said);
        let found = embedding(&daemon, type_name);
        assert!(found.iter().all(|number| number.is_finite()), "{type_name}");
        if matches!(type_name, "F32" | "F16" | "BF16" | "Q8_0" | "Q6_K") {
            let cosine = cosine(&full, &found);
            assert!(cosine > 0.99, "{type_name} is {cosine} from the original");
        }
        daemon.ctl(["stop", type_name]).ok();
        daemon.ctl(["rm", type_name]).ok();
    }
}

#[test]
fn progress_tells_the_weights_that_are_done() {
    let daemon = minilm();
    let mut client = daemon.client();
    let mut stream = client.stream::<ModelQuantize>(&params(MINILM, "q8_0", "small")).unwrap();
    let mut fractions = Vec::new();
    while let Some(event) = stream.next_event().unwrap() {
        match event {
            ProgressEvent::Progress { stage, fraction } if stage == "quantizing" => {
                fractions.push(fraction);
            }
            ProgressEvent::Error { error } => panic!("{error:?}"),
            _ => {}
        }
    }
    // What comes faster than it is read is told as one step.
    assert!(fractions.is_sorted(), "{fractions:?}");
    assert_eq!(fractions.last(), Some(&1.0));

    let (plugin, folder) = (plugin(), tempfile::tempdir().unwrap());
    let mut fractions = Vec::new();
    let mut tell = |fraction| {
        fractions.push(fraction);
        true
    };
    plugin.quantize(&plugin_params(&folder.path().join("out.gguf")), &mut tell).unwrap();
    // Half of MiniLM is one tensor.
    assert!(fractions.is_sorted() && fractions.len() > 30, "{fractions:?}");
}

#[test]
fn a_matrix_changes_what_is_made_and_one_of_another_model_is_refused() {
    let daemon = minilm();
    let mut client = daemon.client();
    let id = |params: &QuantizeParams| {
        let mut client = daemon.client();
        client.call::<ModelQuantize>(params).unwrap().id
    };
    let mut params = params(MINILM, "q4_k_m", "small");
    let plain = id(&params);
    assert_eq!(id(&params), plain);
    let matrix = daemon.dir().join("matrix");
    write_matrix(&matrix, |column| if column % 7 == 0 { 9.0 } else { 0.1 });
    params.imatrix = Some(matrix.display().to_string());
    assert_ne!(id(&params), plain);

    let mut refuse = |bytes: &[u8]| -> RpcError {
        std::fs::write(&matrix, bytes).unwrap();
        refused(client.call::<ModelQuantize>(&params), ErrorKind::InvalidParams)
    };
    let foreign = b"\x01\0\0\0\x01\0\0\0x\x01\0\0\0\x01\0\0\0\0\0\x80\x3f";
    assert!(refuse(foreign).message.contains("of another model"));
    assert!(
        refuse(b"\xff\xff\xff\x7f\xff\xff\xff\x7f and more")
            .message
            .contains("no importance matrix")
    );
    let mut cut = std::fs::read(env_path("HEARTH_TEST_MINILM")).unwrap();
    cut.truncate(5000);
    refuse(&cut);
}

#[test]
fn what_is_quantized_is_quantized_again_only_if_that_is_asked_for() {
    let daemon = start();
    let mut client = daemon.client();
    let mut params = params(crate::MODEL, "q4_k", "small");
    let error = refused(client.call::<ModelQuantize>(&params), ErrorKind::InvalidParams);
    assert!(
        error.message.contains("quantized already") && error.message.contains("Q4_1"),
        "{error:?}"
    );
    assert!(error.hint().unwrap().contains("--requantize"), "{error:?}");
    params.requantize = true;
    let made = client.call::<ModelQuantize>(&params).unwrap();
    assert_eq!(made.quantization, "Q4_K_M");
    let shown = show(&daemon, "small");
    assert_eq!(shown.chat_template, show(&daemon, crate::MODEL).chat_template);
    let types: Vec<_> = shown
        .weights
        .iter()
        .map(|group| (group.class.as_str(), group.type_name.as_str()))
        .collect();
    assert!(
        types.contains(&("embedding", "Q8_0")) && types.contains(&("vectors", "F32")),
        "{types:?}"
    );
    let mut chat = limited("Say something.", 16);
    chat.model = "small".into();
    assert!(!follow(&mut client, &chat).text.is_empty());
}

fn plugin() -> Arc<Plugin> {
    let file = env_path("HEARTH_TEST_BACKENDS").join("libhearth_cpu.so");
    Plugin::load(&file, Box::new(|_, _| {})).unwrap()
}

fn plugin_params(output: &Path) -> PluginParams {
    PluginParams {
        input: env_path("HEARTH_TEST_MINILM"),
        output: output.into(),
        type_name: "Q8_0".into(),
        imatrix: None,
        n_threads: 1,
        requantize: false,
    }
}

#[test]
fn a_full_disk_is_told_as_that() {
    let error =
        plugin().quantize(&plugin_params(Path::new("/dev/full")), &mut |_| true).unwrap_err();
    assert!(error.message.contains("cannot write `/dev/full`: No space left"), "{error:?}");
}

#[test]
fn it_can_be_cancelled_between_any_two_tensors() {
    let (plugin, folder) = (plugin(), tempfile::tempdir().unwrap());
    let params = plugin_params(&folder.path().join("out.gguf"));
    for n_asked in [1, 2, 30] {
        let mut left = n_asked;
        let ended = plugin.quantize(&params, &mut |_| {
            left -= 1;
            left > 0
        });
        assert_eq!((ended.unwrap_err().status, left), (Status::Cancelled, 0));
    }
    // What was thrown through llama.cpp left it fit for more.
    plugin.quantize(&params, &mut |_| true).unwrap();
}
