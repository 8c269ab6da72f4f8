//! Good files are read right; bad ones are refused quickly, whatever is in them.

use std::io::{Cursor, Read, Seek, SeekFrom};

use proptest::prelude::*;

use super::testing::Writer;
use super::*;

fn read(bytes: &[u8]) -> Result<Gguf, GgufError> {
    Gguf::read(&mut Cursor::new(bytes))
}

fn refusal(writer: &Writer) -> String {
    read(&writer.bytes()).unwrap_err().to_string()
}

#[test]
fn a_model_is_read_and_summed_up() {
    for version in [2, 3] {
        let bytes = Writer::model().version(version).bytes();
        let gguf = read(&bytes).unwrap();
        assert_eq!(gguf.version, version);
        assert_eq!(gguf.tensors.len(), 2);
        assert_eq!(gguf.tensors[0].dims, [64, 4]);
        assert_eq!(gguf.tensors[0].tensor_type.name, "Q4_1");
        assert_eq!(gguf.tensors[0].n_bytes, 160);
        assert_eq!(gguf.tensors[1].offset, 160);
        assert_eq!(gguf.data_offset % 32, 0);
        assert_eq!(gguf.data_offset + 180, u64::try_from(bytes.len()).unwrap());
        assert_eq!(
            gguf.get("tokenizer.ggml.tokens"),
            Some(&GgufValue::Array { element: "string", len: 3 })
        );
        let at = gguf.metadata.iter().position(|(key, _)| key == "tokenizer.ggml.tokens").unwrap();
        let items = gguf.items(&mut Cursor::new(&bytes), at).unwrap();
        assert!(matches!(&items[..], [GgufValue::Text(_), GgufValue::Text(_), GgufValue::Text(_)]));
        assert_eq!(gguf.get("llama.attention.layer_norm_rms_epsilon"), Some(&GgufValue::F32(1e-5)));
        assert_eq!(gguf.get("tokenizer.ggml.add_bos_token"), Some(&GgufValue::Bool(true)));

        let summary = gguf.summary().unwrap();
        assert_eq!(summary.architecture, "llama");
        assert_eq!(summary.name.as_deref(), Some("Tiny"));
        assert_eq!(summary.parameter_count, 261);
        assert_eq!(summary.size_label, "261");
        assert_eq!(summary.quantization, "Q4_1");
        assert_eq!(summary.context_length, Some(2048));
        assert_eq!(summary.embedding_length, Some(64));
        assert_eq!(summary.block_count, Some(2));
        assert_eq!(summary.chat_template.as_deref(), Some("{{ messages }}"));
        assert!(summary.has_tokenizer);
        assert_eq!(summary.metadata.len(), 12);
    }
}

#[test]
fn every_value_type_is_read() {
    let gguf = read(
        &Writer::new()
            .value("u8", 0, &[200])
            .value("i8", 1, &[0xff])
            .value("u16", 2, &[0, 2])
            .value("i16", 3, &[0xfe, 0xff])
            .value("i64", 11, &(-5_i64).to_le_bytes())
            .value("f64", 12, &0.5_f64.to_le_bytes())
            .array("u16s", 2, 3, &[0; 6])
            .array("none", 12, 0, &[])
            .text("last", "")
            .bytes(),
    )
    .unwrap();
    let values: Vec<_> = gguf.metadata.iter().map(|(_, value)| value.clone()).collect();
    assert_eq!(
        values,
        [
            GgufValue::Unsigned(200),
            GgufValue::Signed(-1),
            GgufValue::Unsigned(512),
            GgufValue::Signed(-2),
            GgufValue::Signed(-5),
            GgufValue::F64(0.5),
            GgufValue::Array { element: "uint16", len: 3 },
            GgufValue::Array { element: "float64", len: 0 },
            GgufValue::Text(String::new()),
        ]
    );
    assert_eq!(gguf.number("i8"), None);
    assert_eq!(gguf.number("u16"), Some(512));
}

#[test]
fn a_file_cut_anywhere_is_refused_and_says_how_much_is_missing() {
    let bytes = Writer::model().bytes();
    for len in 0..bytes.len() {
        let error = read(&bytes[..len]).unwrap_err();
        match error {
            GgufError::CutShort { expected, actual } => {
                assert_eq!(actual, u64::try_from(len).unwrap());
                assert!(expected > actual);
                assert!(expected <= u64::try_from(bytes.len()).unwrap());
            }
            GgufError::ImpossibleCount { .. } => {}
            other => panic!("cut at {len}: {other}"),
        }
    }
    let error = read(&bytes[..bytes.len() - 7]).unwrap_err().to_string();
    let (whole, cut) = (bytes.len(), bytes.len() - 7);
    assert_eq!(
        error,
        format!(
            "it is cut short: it needs at least {whole} bytes and has {cut}, so 7 or more are missing"
        )
    );
}

#[test]
fn padding_after_the_last_tensor_may_be_there_or_not() {
    let mut bytes = Writer::model().bytes();
    assert!(read(&bytes).is_ok());
    bytes.resize(bytes.len() + 12, 0);
    assert!(read(&bytes).is_ok());
}

#[test]
fn lies_about_counts_and_lengths_are_refused_at_once() {
    let huge = [u64::MAX, u64::MAX / 2, 1 << 62, 1 << 40, 1 << 33, 100_000];
    for claimed in huge {
        let error = refusal(&Writer::model().claim_keys(claimed));
        assert!(error.starts_with(&format!("it claims {claimed} metadata keys")), "{error}");
        let error = refusal(&Writer::model().claim_tensors(claimed));
        assert!(error.starts_with(&format!("it claims {claimed} tensors")), "{error}");
        for (number, what) in [(0, "array items"), (8, "array items"), (12, "array items")] {
            let error = refusal(&Writer::new().array("a", number, claimed, &[0; 64]));
            assert!(error.starts_with(&format!("it claims {claimed} {what}")), "{error}");
        }
        let text = refusal(&Writer::new().value("text", 8, &claimed.to_le_bytes()));
        assert!(text.starts_with("it is cut short"), "{text}");
        let texts = refusal(&Writer::new().array("texts", 8, 1, &claimed.to_le_bytes()));
        assert!(texts.starts_with("it is cut short"), "{texts}");
    }
}

#[test]
fn a_key_longer_than_a_name_can_be_is_refused() {
    assert_eq!(
        refusal(&Writer::new().u32(&"k".repeat(1025), 1)),
        "the metadata key 0 has 1025 bytes and may have 1024"
    );
    let long = "t".repeat(64);
    assert_eq!(
        refusal(&Writer::new().tensor(&long, &[1], 0, 4)),
        "the name of tensor 0 has 64 bytes and may have 63"
    );
}

#[test]
fn foreign_files_and_versions_are_named() {
    assert_eq!(
        read(b"PK\x03\x04....").unwrap_err().to_string(),
        "it begins with `PK\\x03\\x04`, not `GGUF`"
    );
    assert!(refusal(&Writer::model().version(1)).contains("version 1;"));
    assert!(refusal(&Writer::model().version(4)).contains("version 4;"));
    assert_eq!(
        refusal(&Writer::model().version(3_u32.swap_bytes())),
        "it is written for big-endian machines"
    );
}

#[test]
fn bad_metadata_is_named() {
    for (writer, expected) in [
        (Writer::new().u32("a", 1).u32("a", 2), "metadata key `a`: it appears twice"),
        (Writer::new().u32("", 1), "metadata key 0: it is empty"),
        (Writer::new().value("a", 13, &[0; 8]), "metadata key `a` has the unknown type 13"),
        (Writer::new().array("a", 77, 1, &[0; 8]), "metadata key `a` has the unknown type 77"),
        (Writer::new().array("a", 9, 1, &[0; 24]), "metadata key `a`: it is an array of arrays"),
        (
            Writer::new().u32("general.alignment", 48),
            "metadata key `general.alignment`: 48 is not a power of two",
        ),
        (
            Writer::new().u32("general.alignment", 0),
            "metadata key `general.alignment`: 0 is not a power of two",
        ),
        (
            Writer::new().text("general.alignment", "32"),
            "metadata key `general.alignment`: it is not a uint32",
        ),
    ] {
        assert_eq!(refusal(&writer), expected);
    }
}

#[test]
fn bad_tensors_are_named() {
    for (writer, expected) in [
        (Writer::new().tensor("t", &[32], 4, 0), "tensor `t` has the unknown type 4"),
        (Writer::new().tensor("t", &[32], 99, 0), "tensor `t` has the unknown type 99"),
        (
            Writer::new().tensor("t", &[1; 5], 0, 4),
            "tensor `t`: it has 5 dimensions, and 4 are supported",
        ),
        (
            Writer::new().tensor("t", &[33], 2, 18),
            "tensor `t`: its rows have 33 elements, and Q4_0 needs a multiple of 32",
        ),
        (
            Writer::new().tensor("t", &[1 << 32, 1 << 32], 0, 4),
            "tensor `t`: its shape [4294967296, 4294967296] has too many elements",
        ),
        (
            Writer::new().tensor("t", &[0, u64::MAX], 0, 0),
            "tensor `t`: its shape [0, 18446744073709551615] has too many elements",
        ),
        (
            Writer::new().tensor("t", &[1 << 62], 28, 8),
            "tensor `t`: its shape [4611686018427387904] takes too many bytes",
        ),
        (
            Writer::new().tensor("t", &[1], 0, 4).tensor("t", &[1], 0, 4),
            "tensor `t`: it appears twice",
        ),
        (
            Writer::new().tensor("t", &[1], 0, 4).tensor_at("u", &[1], 0, 4),
            "tensor `u`: its data is at offset 4 and not at 32",
        ),
        (
            Writer::new().tensor_at("t", &[1], 0, u64::MAX),
            "tensor `t`: its data is at offset 18446744073709551615 and not at 0",
        ),
    ] {
        assert_eq!(refusal(&writer), expected);
    }
    let beyond =
        Writer::new().tensor_at("t", &[1 << 60], 28, 0).tensor_at("u", &[1 << 60], 28, 1 << 63);
    assert_eq!(refusal(&beyond), "tensor `u`: its data ends beyond what a file can hold");
}

#[test]
fn alignment_moves_the_data() {
    let bytes = Writer::new().alignment(4096).tensor("t", &[1], 0, 4).bytes();
    let gguf = read(&bytes).unwrap();
    assert_eq!((gguf.alignment, gguf.data_offset), (4096, 4096));
    let widest = Writer::new().alignment(1 << 31).claim_tensors(0).bytes();
    assert_eq!(read(&widest).unwrap().alignment, 1 << 31);
}

#[test]
fn empty_dimensions_and_scalars_count_right() {
    let gguf =
        read(&Writer::new().tensor("none", &[32, 0], 2, 0).tensor("scalar", &[], 0, 4).bytes())
            .unwrap();
    assert_eq!((gguf.tensors[0].n_elements, gguf.tensors[0].n_bytes), (0, 0));
    assert_eq!((gguf.tensors[1].n_elements, gguf.tensors[1].n_bytes), (1, 4));
}

#[test]
fn long_text_is_skipped_except_a_chat_template() {
    let long = "x".repeat((1 << 20) + 1);
    let gguf = read(&Writer::new().text("general.license", &long).u32("a", 7).bytes()).unwrap();
    assert_eq!(gguf.get("general.license"), Some(&GgufValue::LongText { n_bytes: 1_048_577 }));
    assert_eq!(gguf.number("a"), Some(7));
    assert_eq!(
        refusal(&Writer::new().text("tokenizer.chat_template", &long)),
        "the chat template has 1048577 bytes and may have 1048576"
    );
}

#[test]
fn all_arrays_together_have_no_more_items_than_can_be_read() {
    let half = vec![0; 1 << 21];
    let len = half.len() as u64;
    let full = Writer::new().array("a", 0, len, &half).array("b", 7, len, &half);
    assert_eq!(read(&full.bytes()).unwrap().metadata.len(), 2);
    let over = full.array("c", 0, 1, &[0]);
    assert_eq!(refusal(&over), "it claims 4194305 array items, more than the 4194304 there can be");
}

#[test]
fn text_that_is_not_utf8_is_mended_in_values_only() {
    let gguf = read(&Writer::new().value("a", 8, b"\x02\0\0\0\0\0\0\0a\xff").bytes()).unwrap();
    assert_eq!(gguf.text("a"), Some("a\u{fffd}"));
}

#[test]
fn the_file_type_is_guessed_where_it_is_not_stated() {
    let base = || Writer::new().text("general.architecture", "llama");
    let quantization =
        |writer: Writer| read(&writer.bytes()).unwrap().summary().unwrap().quantization;
    assert_eq!(quantization(base().u32("general.file_type", 15)), "Q4_K_M");
    assert_eq!(quantization(base()), "unknown");
    let guessed = base().tensor("a", &[4], 0, 16).tensor("b", &[256], 14, 210);
    assert_eq!(quantization(guessed), "Q6_K");
}

#[test]
fn a_file_without_architecture_has_no_summary() {
    let error = read(&Writer::new().bytes()).unwrap().summary().unwrap_err();
    assert_eq!(error.to_string(), "metadata: it names no `general.architecture`");
}

#[test]
fn sizes_are_labelled_as_ollama_does() {
    for (count, label) in [
        (0, "0"),
        (999, "999"),
        (12_345, "12K"),
        (134_515_008, "134.52M"),
        (135_000_000, "135M"),
        (6_738_415_616, "6.7B"),
        (7_000_000_000, "7B"),
    ] {
        assert_eq!(size_label(count), label);
    }
}

/// A file that says it is an exabyte long and holds only zeroes after `head`: it counts the bytes
/// that are read of it.
struct Endless {
    head: Vec<u8>,
    pos: u64,
    n_read: u64,
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        for byte in buffer.iter_mut() {
            let idx = usize::try_from(self.pos).unwrap();
            *byte = self.head.get(idx).copied().unwrap_or(0);
            self.pos += 1;
        }
        self.n_read += u64::try_from(buffer.len()).unwrap();
        Ok(buffer.len())
    }
}

impl Seek for Endless {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.pos = match to {
            SeekFrom::Start(pos) => pos,
            SeekFrom::End(_) => 1 << 60,
            SeekFrom::Current(by) => self.pos.saturating_add_signed(by),
        };
        Ok(self.pos)
    }
}

#[test]
fn a_file_of_any_length_costs_little() {
    for (writer, expected) in [
        (Writer::new().claim_keys(1 << 14), "metadata key 0: it is empty"),
        (Writer::new().array("a", 8, 1 << 50, &[]), "it claims 1125899906842624 array items"),
        (Writer::new().array("a", 0, 1 << 50, &[]), "it claims 1125899906842624 array items"),
        (Writer::new().value("a", 8, &(1_u64 << 50).to_le_bytes()), "its header goes on after"),
        (Writer::new().array("a", 8, 1 << 20, &[]).claim_keys(2), "metadata key 1: it is empty"),
    ] {
        let mut file = Endless { head: writer.bytes(), pos: 0, n_read: 0 };
        let error = Gguf::read(&mut file).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
        assert!(file.n_read <= 9 << 20, "{} bytes read", file.n_read);
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = read(&bytes);
    }

    #[test]
    fn random_bytes_after_a_header_never_panic(
        n_tensors in 0_u64..8,
        n_keys in 0_u64..8,
        rest in proptest::collection::vec(prop_oneof![Just(0_u8), 0_u8..14, any::<u8>()], 0..512),
    ) {
        let mut bytes = Writer::new().claim_tensors(n_tensors).claim_keys(n_keys).bytes();
        bytes.extend(rest);
        let _ = read(&bytes);
    }

    #[test]
    fn mutations_never_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = Writer::model().bytes();
        for (idx, byte) in changes {
            let idx = idx.index(bytes.len());
            bytes[idx] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(gguf) = read(&bytes) {
            for tensor in &gguf.tensors {
                let end = gguf.data_offset + tensor.offset + tensor.n_bytes;
                prop_assert!(end <= gguf.file_len);
                prop_assert_eq!(tensor.offset % gguf.alignment, 0);
            }
            let _ = gguf.summary();
        }
    }
}
