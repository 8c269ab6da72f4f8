//! The header is C11 and C++17 without a warning, and the Rust mirror in `raw` has its layout, number for number.
//!
//! A small C program prints every size, offset and constant; the same lines are made from `raw`. That no member is
//! left out is the compiler's work: each struct is taken apart by a pattern that must name all of them.

mod compiler;

use compiler::{CC, CXX, compile};
use hearth_abi::{DeviceKind, FlashAttention, KvType, LogLevel, Pooling, Status, raw};
use std::fmt::Write;
use std::mem::{offset_of, size_of};

const STRICT: [&str; 4] = ["-Wall", "-Wextra", "-pedantic", "-Werror"];

/// Size of the member that a never-called function would point to.
fn member_size<S, M>(_: fn(*const S) -> *const M) -> usize {
    size_of::<M>()
}

#[derive(Default)]
struct Comparison {
    c_source: String,
    expected: String,
}

impl Comparison {
    fn number(&mut self, label: &str, c_expression: &str, rust: i128) {
        writeln!(self.c_source, "  printf(\"{label} %lld\\n\", (long long)({c_expression}));")
            .unwrap();
        writeln!(self.expected, "{label} {rust}").unwrap();
    }

    fn size(&mut self, label: &str, c_expression: &str, rust: usize) {
        self.number(label, c_expression, i128::try_from(rust).unwrap());
    }
}

macro_rules! compare_struct {
    ($comparison:ident, $rust:ident = $c:literal: $($member:ident)+) => {
        let _is_complete = |whole: raw::$rust| {
            let raw::$rust { $($member: _),+ } = whole;
        };
        $comparison.size($c, concat!("sizeof(", $c, ")"), size_of::<raw::$rust>());
        $(
            let member = concat!($c, ".", stringify!($member));
            let offset = concat!("offsetof(", $c, ", ", stringify!($member), ")");
            $comparison.size(&format!("{member} at"), offset, offset_of!(raw::$rust, $member));
            $comparison.size(
                &format!("{member} takes"),
                concat!("sizeof(((", $c, " *)0)->", stringify!($member), ")"),
                // SAFETY: never called; if it were, `&raw const` computes an address without reading.
                member_size::<raw::$rust, _>(|whole| unsafe { &raw const (*whole).$member }),
            );
        )+
    };
}

#[test]
fn the_header_is_clean_c11() {
    let dir = tempfile::tempdir().unwrap();
    compile(
        CC,
        "#include \"hearth_plugin.h\"\n",
        &dir.path().join("c.o"),
        &["-std=c11", "-c"],
        &STRICT,
    );
}

#[test]
fn the_header_is_clean_cpp17() {
    let dir = tempfile::tempdir().unwrap();
    compile(
        CXX,
        "#include \"hearth_plugin.h\"\n",
        &dir.path().join("cpp.o"),
        &["-std=c++17", "-c"],
        &STRICT,
    );
}

#[test]
fn the_mirror_has_the_headers_layout() {
    let mut all = Comparison::default();
    compare_struct!(all, Error = "hearth_error_t": struct_size message);
    compare_struct!(all, Bytes = "hearth_bytes_t": data len);
    compare_struct!(all, Host = "hearth_host_t": struct_size host_data log);
    compare_struct!(all, Device = "hearth_device_t": struct_size kind memory_total memory_free id name detail);
    compare_struct!(all, ModelParams = "hearth_model_params_t":
        struct_size n_gpu_layers path use_mmap use_mlock vocab_only progress progress_data with_mtp);
    compare_struct!(all, ModelInfo = "hearth_model_info_t":
        struct_size capabilities n_vocab n_ctx_train n_embd n_layer n_params size_bytes bos_token eos_token add_bos
        architecture description);
    compare_struct!(all, ContextParams = "hearth_context_params_t":
        struct_size n_ctx n_batch n_ubatch n_seq_max n_threads n_threads_batch embeddings pooling kv_type
        flash_attention);
    compare_struct!(all, ContextInfo = "hearth_context_info_t":
        struct_size memory n_ctx n_ctx_seq n_batch n_ubatch n_seq_max n_threads memory_bytes);
    compare_struct!(all, Batch = "hearth_batch_t": struct_size n_tokens tokens positions sequences outputs);
    compare_struct!(all, Plugin = "hearth_plugin_t":
        struct_size abi_version name version description init deinit bytes_free device_count device_get model_open
        model_close model_info model_meta_count model_meta tokenize token_piece detokenize token_is_end
        context_create context_destroy context_info set_threads decode decode_abort logits embedding seq_remove
        seq_copy seq_shift seq_save seq_load extension);
    compare_struct!(all, Chat = "hearth_chat_t": struct_size render parse);
    compare_struct!(all, GrammarExt = "hearth_grammar_ext_t": struct_size create destroy mask accept accept_text);
    compare_struct!(all, Lora = "hearth_lora_t": struct_size open close attach);
    compare_struct!(all, ImagePiece = "hearth_image_piece_t": struct_size n_cells n_positions n_floats tokens);
    compare_struct!(all, Images = "hearth_images_t":
        struct_size projector_open projector_close image_create image_destroy piece_count piece_get encode append);
    compare_struct!(all, Mtp = "hearth_mtp_t": struct_size begin draft);
    compare_struct!(all, Parts = "hearth_parts_t": struct_size save load);
    compare_struct!(all, Rank = "hearth_rank_t": struct_size tokenize);
    compare_struct!(all, QuantizeParams = "hearth_quantize_params_t":
        struct_size n_threads input output type_name imatrix requantize progress progress_data);
    compare_struct!(all, Quantize = "hearth_quantize_t": struct_size type_name quantize);

    all.size("hearth_token_t", "sizeof(hearth_token_t)", size_of::<raw::Token>());
    all.size("hearth_seq_t", "sizeof(hearth_seq_t)", size_of::<raw::Seq>());
    all.size("hearth_pos_t", "sizeof(hearth_pos_t)", size_of::<raw::Pos>());
    all.size("hearth_status_t", "sizeof(hearth_status_t)", size_of::<raw::RawStatus>());
    for (name, value) in constants() {
        all.number(name, name, value);
    }

    let source = format!(
        "#include \"hearth_plugin.h\"\n#include <stdio.h>\nint main(void) {{\n{}  puts(HEARTH_EXT_CHAT \" \" \
         HEARTH_EXT_GRAMMAR \" \" HEARTH_EXT_LORA \" \" HEARTH_EXT_IMAGES \" \" HEARTH_EXT_MTP \" \" HEARTH_EXT_PARTS \" \" HEARTH_EXT_RANK \" \" HEARTH_EXT_QUANTIZE);\n}}\n",
        all.c_source
    );
    let names = [
        raw::EXT_CHAT,
        raw::EXT_GRAMMAR,
        raw::EXT_LORA,
        raw::EXT_IMAGES,
        raw::EXT_MTP,
        raw::EXT_PARTS,
        raw::EXT_RANK,
        raw::EXT_QUANTIZE,
    ]
    .map(|id| id.to_str().unwrap());
    writeln!(all.expected, "{}", names.join(" ")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("layout");
    compile(CC, &source, &program, &["-std=c11"], &STRICT);
    let output = std::process::Command::new(&program).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), all.expected);
}

#[test]
fn every_constant_of_the_header_is_compared() {
    let header = include_str!("../include/hearth_plugin.h");
    let compared: Vec<_> = constants().iter().map(|(name, _)| *name).collect();
    let not_numbers = [
        "HEARTH_PLUGIN_H",
        "HEARTH_EXPORT",
        "HEARTH_EXT_CHAT",
        "HEARTH_EXT_GRAMMAR",
        "HEARTH_EXT_LORA",
        "HEARTH_EXT_IMAGES",
        "HEARTH_EXT_MTP",
        "HEARTH_EXT_PARTS",
        "HEARTH_EXT_RANK",
        "HEARTH_EXT_QUANTIZE",
    ];
    let words = header.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    for word in words.filter(|word| word.starts_with("HEARTH_")) {
        assert!(
            compared.contains(&word) || not_numbers.contains(&word),
            "`{word}` is not compared"
        );
    }
}

fn constants() -> Vec<(&'static str, i128)> {
    vec![
        ("HEARTH_ABI_VERSION", raw::ABI_VERSION.into()),
        ("HEARTH_ABI_VERSION_MAJOR", (raw::ABI_VERSION >> 16).into()),
        ("HEARTH_ABI_VERSION_MINOR", (raw::ABI_VERSION & 0xffff).into()),
        ("HEARTH_MESSAGE_MAX", i128::try_from(raw::MESSAGE_MAX).unwrap()),
        ("HEARTH_OK", raw::OK.into()),
        ("HEARTH_INVALID_ARGUMENT", Status::InvalidArgument as i128),
        ("HEARTH_UNSUPPORTED", Status::Unsupported as i128),
        ("HEARTH_BUFFER_TOO_SMALL", Status::BufferTooSmall as i128),
        ("HEARTH_NOT_FOUND", Status::NotFound as i128),
        ("HEARTH_BAD_MODEL", Status::BadModel as i128),
        ("HEARTH_OUT_OF_MEMORY", Status::OutOfMemory as i128),
        ("HEARTH_NO_KV_SPACE", Status::NoKvSpace as i128),
        ("HEARTH_CANCELLED", Status::Cancelled as i128),
        ("HEARTH_FAILED", Status::Failed as i128),
        ("HEARTH_LOG_DEBUG", LogLevel::Debug as i128),
        ("HEARTH_LOG_INFO", LogLevel::Info as i128),
        ("HEARTH_LOG_WARN", LogLevel::Warn as i128),
        ("HEARTH_LOG_ERROR", LogLevel::Error as i128),
        ("HEARTH_LOG_HOST_MISBEHAVING", LogLevel::HostMisbehaving as i128),
        ("HEARTH_DEVICE_CPU", DeviceKind::Cpu as i128),
        ("HEARTH_DEVICE_GPU", DeviceKind::Gpu as i128),
        ("HEARTH_DEVICE_INTEGRATED_GPU", DeviceKind::IntegratedGpu as i128),
        ("HEARTH_DEVICE_ACCELERATOR", DeviceKind::Accelerator as i128),
        ("HEARTH_MODEL_CAN_GENERATE", raw::MODEL_CAN_GENERATE.into()),
        ("HEARTH_MODEL_CAN_EMBED", raw::MODEL_CAN_EMBED.into()),
        ("HEARTH_MODEL_HAS_CHAT_TEMPLATE", raw::MODEL_HAS_CHAT_TEMPLATE.into()),
        ("HEARTH_POOLING_NONE", Pooling::None as i128),
        ("HEARTH_POOLING_MODEL", Pooling::Model as i128),
        ("HEARTH_POOLING_MEAN", Pooling::Mean as i128),
        ("HEARTH_POOLING_CLS", Pooling::Cls as i128),
        ("HEARTH_POOLING_LAST", Pooling::Last as i128),
        ("HEARTH_KV_F16", KvType::F16 as i128),
        ("HEARTH_KV_Q8_0", KvType::Q8_0 as i128),
        ("HEARTH_KV_Q4_0", KvType::Q4_0 as i128),
        ("HEARTH_KV_F32", KvType::F32 as i128),
        ("HEARTH_FLASH_ATTENTION_AUTO", FlashAttention::Auto as i128),
        ("HEARTH_FLASH_ATTENTION_OFF", FlashAttention::Off as i128),
        ("HEARTH_FLASH_ATTENTION_ON", FlashAttention::On as i128),
        ("HEARTH_MEMORY_CAN_ROLL_BACK", raw::MEMORY_CAN_ROLL_BACK.into()),
        ("HEARTH_MEMORY_CAN_SHIFT", raw::MEMORY_CAN_SHIFT.into()),
        ("HEARTH_MEMORY_CAN_COPY_PART", raw::MEMORY_CAN_COPY_PART.into()),
        ("HEARTH_MEMORY_CAN_SAVE", raw::MEMORY_CAN_SAVE.into()),
        ("HEARTH_MEMORY_CAN_SAVE_PART", raw::MEMORY_CAN_SAVE_PART.into()),
    ]
}
