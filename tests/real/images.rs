//! Images in llama.cpp, with models of a few random weights: no trained one is at hand. What such a model says of an image is
//! nonsense, but arithmetic tells what must be: an embedding is worth the token that it is of, and the rules of the contract hold
//! where an image is as long as its tokens, where it is shorter (M-RoPE), and where its parts see each other both ways.

use crate::tiny::{self, Shapes};
use base64::Engine as _;
use hearth_abi::host::{Batch, Context, Image, Model, Plugin};
use hearth_abi::raw::{Pos, Token};
use hearth_abi::{
    BatchEntry, ContextConfig, FlashAttention, ImagePiece, ImageSpan, KvType, OpenParams, Pixels,
};
use hearth_protocol::Role;
use hearth_protocol::{ChatSend, Image as SentImage};
use hearth_tests::{GgufText, Tensor, TestDaemon, chat, env_path, hearthd_path, message, run};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

const WIDTH: usize = 64;
const HEAD: usize = 32;
const N_LAYERS: usize = 2;
/// Three control tokens, all bytes, and what stands around images.
const NAMED: [&str; 4] =
    ["<|vision_start|>", "<|vision_end|>", "<start_of_image>", "<end_of_image>"];
const N_VOCAB: usize = 3 + 256 + NAMED.len();
/// Of the projector.
const PATCH: usize = 8;

/// A text model's architecture, with the projector that goes with it.
#[derive(Debug, Clone, Copy)]
struct Kind {
    architecture: &'static str,
    projector: &'static str,
    /// Of a square image, in pixels.
    side: u32,
    /// What an image of 96 times 64 pixels takes.
    span: (u32, u32),
}

/// Llava's kind, Qwen2-VL's and Gemma 3's.
const KINDS: [Kind; 3] = [
    Kind { architecture: "llama", projector: "mlp", side: 32, span: (16, 16) },
    Kind { architecture: "qwen2vl", projector: "qwen2vl_merger", side: 32, span: (24, 6) },
    Kind { architecture: "gemma3", projector: "gemma3", side: 64, span: (4, 4) },
];

fn model_tensors(kind: Kind) -> Vec<Tensor> {
    let mut shapes: Shapes =
        vec![("token_embd.weight".into(), WIDTH, N_VOCAB), ("output_norm.weight".into(), WIDTH, 1)];
    let matrices = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];
    let mut norms = vec![("attn_norm", WIDTH), ("ffn_norm", WIDTH)];
    if kind.architecture == "gemma3" {
        norms.extend([("attn_q_norm", HEAD), ("attn_k_norm", HEAD)]);
        norms.extend([("post_attention_norm", WIDTH), ("post_ffw_norm", WIDTH)]);
    }
    for layer in 0..N_LAYERS {
        let matrices = matrices.map(|name| (name, WIDTH, WIDTH));
        let norms = norms.iter().map(|(name, width)| (*name, *width, 1));
        let parts = matrices.into_iter().chain(norms);
        shapes
            .extend(parts.map(|(name, columns, rows)| {
                (format!("blk.{layer}.{name}.weight"), columns, rows)
            }));
    }
    tiny::tensors(shapes)
}

fn model_file(kind: Kind) -> Vec<u8> {
    let tensors = model_tensors(kind);
    let architecture = kind.architecture;
    let numbers = [("block_count", 2), ("context_length", 512), ("rope.dimension_count", 32)];
    let named = NAMED.into_iter().map(|token| (token.to_owned(), 3));
    let vocabulary: Vec<_> = tiny::bytes().into_iter().chain(named).collect();
    let mut text = tiny::header(architecture, &numbers, &vocabulary, &tensors, 1);
    // An array of whole numbers; others read no such key.
    text = text.text(&format!("{architecture}.rope.dimension_sections")).u32(9).u32(5).u64(4);
    text = [4, 6, 6, 0].into_iter().fold(text, GgufText::u32);
    text.tensors(&tensors).0
}

fn projector_tensors(kind: Kind) -> Vec<Tensor> {
    let n_patches = (kind.side as usize / PATCH).pow(2);
    let filter = 3 * PATCH * PATCH;
    let mut shapes: Shapes = vec![("v.patch_embd.weight".into(), filter, WIDTH)];
    let mut both = |name: &str, columns: usize, rows: usize| {
        shapes.push((format!("{name}.weight"), columns, rows));
        shapes.push((format!("{name}.bias"), rows, 1));
    };
    for layer in 0..N_LAYERS {
        for part in ["attn_q", "attn_k", "attn_v", "attn_out"] {
            both(&format!("v.blk.{layer}.{part}"), WIDTH, WIDTH);
        }
        both(&format!("v.blk.{layer}.ffn_up"), WIDTH, 2 * WIDTH);
        both(&format!("v.blk.{layer}.ffn_down"), 2 * WIDTH, WIDTH);
    }
    match kind.projector {
        "mlp" => {
            both("mm.0", WIDTH, WIDTH);
            both("mm.2", WIDTH, WIDTH);
        }
        "qwen2vl_merger" => {
            both("mm.0", 4 * WIDTH, 4 * WIDTH);
            both("mm.2", 4 * WIDTH, WIDTH);
            shapes.push(("v.patch_embd.weight.1".into(), filter, WIDTH));
        }
        _ => {
            shapes.push(("mm.input_projection.weight".into(), WIDTH, WIDTH));
            shapes.push(("mm.soft_emb_norm.weight".into(), WIDTH, 1));
        }
    }
    if kind.projector != "qwen2vl_merger" {
        shapes.push(("v.position_embd.weight".into(), WIDTH, n_patches));
    }
    let norms =
        (0..N_LAYERS).flat_map(|layer| ["ln1", "ln2"].map(|ln| format!("v.blk.{layer}.{ln}")));
    for norm in norms.chain(["v.post_ln".into()]) {
        shapes.extend(["weight", "bias"].map(|part| (format!("{norm}.{part}"), WIDTH, 1)));
    }
    tiny::tensors(shapes)
}

fn projector_file(kind: Kind) -> Vec<u8> {
    let tensors = projector_tensors(kind);
    let numbers = [
        ("embedding_length", 64),
        ("attention.head_count", 2),
        ("feed_forward_length", 128),
        ("block_count", 2),
        ("projection_dim", 64),
        ("image_size", kind.side),
        ("patch_size", 8),
    ];
    let mut text = GgufText::header(tensors.len() as u64, numbers.len() as u64 + 6)
        .text_pair("general.architecture", "clip")
        .true_pair("clip.has_vision_encoder")
        .text_pair("clip.projector_type", kind.projector)
        .f32_pair("clip.vision.attention.layer_norm_epsilon", 1e-5);
    text = numbers.into_iter().fold(text, |text, (key, value)| {
        text.text(&format!("clip.vision.{key}")).u32(4).u32(value)
    });
    for key in ["image_mean", "image_std"] {
        text = text.text(&format!("clip.vision.{key}")).u32(9).u32(6).u64(3);
        text = [0.5_f32; 3].into_iter().fold(text, |text, value| text.u32(value.to_bits()));
    }
    text.tensors(&tensors).0
}

/// Both files in a folder.
fn files(folder: &Path, kind: Kind) -> [PathBuf; 2] {
    let paths = ["model.gguf", "projector.gguf"].map(|name| folder.join(name));
    std::fs::write(&paths[0], model_file(kind)).unwrap();
    std::fs::write(&paths[1], projector_file(kind)).unwrap();
    paths
}

fn library() -> PathBuf {
    env_path("HEARTH_TEST_BACKENDS").join("libhearth_cpu.so")
}

/// Stripes.
fn rgb() -> Vec<u8> {
    let row: Vec<u8> = (0..96).flat_map(|x| [200, 30, 10 + x]).collect();
    row.repeat(64)
}

#[test]
fn the_contract_holds_for_images_of_every_kind() {
    for kind in KINDS {
        let folder = tempfile::tempdir().unwrap();
        let [model, projector] = files(folder.path(), kind);
        let mut command = Command::new(hearthd_path());
        command.args(["plugin", "check"]).arg(library()).arg("--model").arg(model);
        let said = run(command.arg("--projector").arg(projector), "");
        for rule in ["projector", "images", "images-refused"] {
            assert!(said.stdout.contains(&format!("ok    {rule}\n")), "{kind:?}: {said:?}");
        }
    }
}

/// A model and an image of 96 times 64 pixels for it, which is one span.
fn open(kind: Kind) -> (Arc<Model>, Image, usize, ImageSpan) {
    let folder = tempfile::tempdir().unwrap();
    let [model, projector] = files(folder.path(), kind);
    let plugin = Plugin::load(&library(), Box::new(|_, _| {})).unwrap();
    let model = Model::open(&plugin, &OpenParams::new(model), &mut |_| true).unwrap();
    let projector = model.projector(&projector, 1).unwrap();
    let image = projector.image(Pixels::new(&rgb(), 96, 64).unwrap()).unwrap();
    let spans = image.pieces().iter().enumerate().filter_map(|(at, piece)| match piece {
        ImagePiece::Span(span) => Some((at, *span)),
        ImagePiece::Tokens(_) => None,
    });
    let spans: Vec<_> = spans.collect();
    let [(index, span)] = *spans else { panic!("{kind:?}: {:?}", image.pieces()) };
    (model, image, index, span)
}

fn context(model: &Arc<Model>, n_batch: u32) -> Context {
    let config = ContextConfig {
        n_ctx: 256,
        n_batch,
        n_ubatch: n_batch,
        n_seq_max: 2,
        n_threads: 1,
        n_threads_batch: 1,
        embeddings: None,
        kv_type: KvType::F32,
        flash_attention: FlashAttention::Off,
    };
    model.context(&config).unwrap()
}

/// Decodes tokens, and answers the last one's logits.
fn feed(context: &mut Context, position: Pos, tokens: &[Token]) -> Vec<f32> {
    let mut batch = Batch::default();
    for (position, token) in (position..).zip(tokens) {
        batch.push(BatchEntry { token: *token, position, sequence: 0, output: true });
    }
    context.decode(&batch).unwrap();
    context.logits(tokens.len() - 1).unwrap().to_vec()
}

#[track_caller]
fn near(a: &[f32], b: &[f32]) {
    let most = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(most < 1e-3, "the logits are up to {most} apart");
}

#[test]
fn an_image_takes_the_room_that_its_architecture_gives_it() {
    for kind in KINDS {
        let (_, _, _, span) = open(kind);
        assert_eq!((span.n_cells, span.n_positions), kind.span, "{kind:?}");
    }
}

#[test]
fn embeddings_of_tokens_are_worth_the_tokens_also_in_several_batches() {
    let (model, image, index, span) = open(KINDS[0]);
    let table = model_tensors(KINDS[0]).remove(0).values;
    let tokens: Vec<Token> = (0..span.n_cells).map(|at| 40 + 7 * at.cast_signed()).collect();
    let row = |token: &Token| {
        let at = usize::try_from(*token).unwrap() * WIDTH;
        table[at..at + WIDTH].to_vec()
    };
    let embeddings: Vec<f32> = tokens.iter().flat_map(row).collect();
    let (before, behind) = ([1, 70, 71], [80, 81]);
    let mut plain = context(&model, 64);
    let wanted = feed(&mut plain, 0, &[&before[..], &tokens, &behind].concat());
    for n_batch in [64, 5] {
        let mut context = context(&model, n_batch);
        feed(&mut context, 0, &before);
        context.append(&image, index, &embeddings, 0, 3).unwrap();
        let end = 3 + span.n_positions.cast_signed();
        near(&feed(&mut context, end, &behind), &wanted);
    }
}

#[test]
fn what_must_be_seen_at_once_is_refused_where_there_is_no_room_and_harms_nothing() {
    let (model, image, index, span) = open(KINDS[2]);
    let embeddings = image.encode(index).unwrap();
    let mut small = context(&model, span.n_cells - 1);
    let before = [1, 70];
    feed(&mut small, 0, &before);
    let error = small.append(&image, index, &embeddings, 0, 2).unwrap_err();
    assert!(error.message.contains("at once"), "{error}");
    let mut plain = context(&model, 64);
    feed(&mut plain, 0, &before);
    near(&feed(&mut small, 2, &[80]), &feed(&mut plain, 2, &[80]));
}

/// A PNG of these pixels. Its blocks are stored, which takes two checksums and no compressor.
fn png(rgb: &[u8], width: u32) -> SentImage {
    let rows = rgb.chunks(3 * width as usize).flat_map(|row| [&[0], row].concat());
    let rows: Vec<u8> = rows.collect();
    let mut stored = vec![0x78, 0x01, 0x01];
    let len = u16::try_from(rows.len()).unwrap();
    stored.extend(len.to_le_bytes().into_iter().chain((!len).to_le_bytes()));
    stored.extend(&rows);
    let adler = rows.iter().fold((1_u32, 0_u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (a + b) % 65_521)
    });
    stored.extend((adler.1 << 16 | adler.0).to_be_bytes());
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let height = u32::try_from(rgb.len()).unwrap() / 3 / width;
    let mut head = [width.to_be_bytes(), height.to_be_bytes()].concat();
    head.extend([8, 2, 0, 0, 0]);
    for (name, data) in [(b"IHDR", head), (b"IDAT", stored), (b"IEND", Vec::new())] {
        let chunk = [&name[..], &data].concat();
        let sum = chunk.iter().fold(u32::MAX, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 * (sum & 1)))
        });
        file.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        file.extend(chunk);
        file.extend((!sum).to_be_bytes());
    }
    SentImage(base64::prelude::BASE64_STANDARD.encode(file))
}

#[test]
fn a_chat_sees_its_image_and_does_not_compute_it_again() {
    for kind in KINDS {
        let daemon = TestDaemon::builder_with(env_path("HEARTH_TEST_BACKENDS")).start();
        files(daemon.dir(), kind);
        let modelfile = "FROM ./model.gguf\nFROM ./projector.gguf\n";
        daemon.ctl_with_stdin(["create", "tiny", "-f", "-"], modelfile).ok();
        let mut params = chat("tiny", "What is it?");
        params.options.max_tokens = Some(4);
        let mut client = daemon.client();
        let blind = client.call::<ChatSend>(&params).unwrap();
        params.messages[0].images.push(png(&rgb(), 96));
        let first = client.call::<ChatSend>(&params).unwrap();
        let n_image = first.usage.prompt_tokens - blind.usage.prompt_tokens;
        assert!(n_image >= kind.span.0, "{kind:?}: {n_image} tokens");
        let again = client.call::<ChatSend>(&params).unwrap();
        assert_eq!(again.usage.cached_tokens, first.usage.prompt_tokens - 1, "{kind:?}");
        params.messages.extend([again.message, message(Role::User, "Sure?")]);
        let next = client.call::<ChatSend>(&params).unwrap();
        assert!(next.usage.cached_tokens >= kind.span.0, "{kind:?}: {:?}", next.usage);
        // Another image has nothing in common with it but what stands before.
        params.messages.truncate(1);
        let other: Vec<u8> = rgb().iter().map(|byte| !byte).collect();
        params.messages[0].images[0] = png(&other, 96);
        let other = client.call::<ChatSend>(&params).unwrap();
        assert!(other.usage.cached_tokens + n_image <= first.usage.prompt_tokens, "{kind:?}");
    }
}
