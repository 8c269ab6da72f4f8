//! Guesses by a model's own layers, in llama.cpp. The weights are random, so guesses are seldom right; but a layer that follows the
//! model token by token must guess the same for the same text, however that got into memory, and change nothing else.

use crate::tiny::{self, Shapes};
use hearth_abi::host::{Batch, Context, Model, Plugin};
use hearth_abi::raw::{Seq, Token};
use hearth_abi::{BatchEntry, ContextConfig, OpenParams, Status};
use hearth_tests::{Tensor, env_path};
use std::sync::Arc;

const WIDTH: usize = 64;
const N_VOCAB: usize = 96;
const N_GUESSES: usize = 4;

/// A model of GLM-4.5's architecture with one layer, and one more that guesses.
fn file() -> Vec<u8> {
    let tensors = tensors();
    let numbers = [
        ("block_count", 2),
        ("nextn_predict_layers", 1),
        ("context_length", 256),
        ("rope.dimension_count", 16),
        ("expert_count", 1),
        ("expert_used_count", 1),
        ("expert_feed_forward_length", 64),
        ("expert_shared_count", 1),
        ("leading_dense_block_count", 1),
    ];
    let plain = (4..N_VOCAB).map(|token| (format!("t{token}"), 1));
    let vocabulary: Vec<_> =
        tiny::control().into_iter().chain([("<0x0A>".into(), 6)]).chain(plain).collect();
    tiny::header("glm4moe", &numbers, &vocabulary, &tensors, 0).tensors(&tensors).0
}

fn tensors() -> Vec<Tensor> {
    let block = ["attn_q", "attn_k", "attn_v", "attn_output"].map(|name| (name, WIDTH, WIDTH));
    let norms = ["attn_norm", "post_attention_norm"].map(|name| (name, WIDTH, 1));
    let dense = ["ffn_gate", "ffn_up", "ffn_down"].map(|name| (name, WIDTH, WIDTH));
    let experts = ["gate", "up", "down"].map(|name| (name, WIDTH, WIDTH));
    let mut all: Shapes =
        vec![("token_embd.weight".into(), WIDTH, N_VOCAB), ("output_norm.weight".into(), WIDTH, 1)];
    for layer in 0..2 {
        let parts = block.iter().chain(&norms).chain(if layer == 0 { &dense[..] } else { &[] });
        all.extend(
            parts.map(|(name, columns, rows)| {
                (format!("blk.{layer}.{name}.weight"), *columns, *rows)
            }),
        );
    }
    for (name, columns, rows) in experts {
        all.push((format!("blk.1.ffn_{name}_exps.weight"), columns, rows));
        all.push((format!("blk.1.ffn_{name}_shexp.weight"), columns, rows));
    }
    all.extend([
        ("blk.1.ffn_gate_inp.weight".into(), WIDTH, 1),
        ("blk.1.exp_probs_b.bias".into(), 1, 1),
        ("blk.1.nextn.eh_proj.weight".into(), 2 * WIDTH, WIDTH),
        ("blk.1.nextn.enorm.weight".into(), WIDTH, 1),
        ("blk.1.nextn.hnorm.weight".into(), WIDTH, 1),
    ]);
    tiny::tensors(all)
}

fn open(with_mtp: bool) -> Arc<Model> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, file()).unwrap();
    let library = env_path("HEARTH_TEST_BACKENDS").join("libhearth_cpu.so");
    let plugin = Plugin::load(&library, Box::new(|_, _| {})).unwrap();
    let params = OpenParams { with_mtp, ..OpenParams::new(path) };
    Model::open(&plugin, &params, &mut |_| true).unwrap()
}

fn context(model: &Arc<Model>) -> Context {
    let config = ContextConfig {
        n_batch: 64,
        n_ubatch: 64,
        n_seq_max: 3,
        n_threads: 1,
        n_threads_batch: 1,
        ..ContextConfig::single(128)
    };
    model.context(&config).unwrap()
}

fn guessing(model: &Arc<Model>) -> Context {
    let mut context = context(model);
    assert!(context.begin_mtp().unwrap() >= N_GUESSES);
    context
}

/// Decodes tokens behind so many, and answers the last one's logits.
fn feed(context: &mut Context, seq: Seq, n_before: usize, tokens: &[Token]) -> Vec<f32> {
    let mut batch = Batch::default();
    for (position, token) in (n_before..).zip(tokens) {
        let (position, output) = (i32::try_from(position).unwrap(), true);
        batch.push(BatchEntry { token: *token, position, sequence: seq, output });
    }
    context.decode(&batch).unwrap();
    context.logits(tokens.len() - 1).unwrap().to_vec()
}

fn draft(context: &mut Context, seq: Seq, next: Token) -> Vec<Token> {
    let mut guesses = Vec::new();
    context.draft(&[seq], &[next], N_GUESSES, &mut guesses).unwrap();
    guesses
}

fn text() -> Vec<Token> {
    (0..40).map(|n| 4 + (n * 37 + n * n) % 90).collect()
}

/// So near that only the order of sums differs.
fn assert_near(a: &[f32], b: &[f32]) {
    assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-2), "{a:?} is not {b:?}");
}

#[test]
fn guesses_are_of_the_text_and_change_nothing() {
    let model = open(true);
    let (mut plain, mut context) = (context(&model), guessing(&model));
    let text = text();
    let wanted = feed(&mut plain, 0, 0, &text);
    assert_near(&feed(&mut context, 0, 0, &text), &wanted);
    let guesses = draft(&mut context, 0, 7);
    assert!(guesses.iter().all(|token| (0..96).contains(token)), "{guesses:?}");
    assert_eq!(draft(&mut context, 0, 7), guesses);
    assert_ne!(draft(&mut context, 0, 8), guesses);
    // What comes next is as if nobody had guessed.
    assert_near(&feed(&mut context, 0, text.len(), &[7]), &feed(&mut plain, 0, text.len(), &[7]));
    let mut other = guessing(&model);
    feed(&mut other, 0, 0, &[&text[..20], &text[21..]].concat());
    assert_ne!(draft(&mut other, 0, 7), guesses, "guesses of another text");
}

#[test]
fn the_same_text_is_guessed_to_go_on_the_same_however_it_came() {
    let model = open(true);
    let text = text();
    let mut whole = guessing(&model);
    feed(&mut whole, 2, 0, &text);
    let wanted = draft(&mut whole, 2, 7);

    // Beside another one, in parts, and after guesses that were wrong.
    let mut context = guessing(&model);
    feed(&mut context, 1, 0, &text[20..]);
    feed(&mut context, 0, 0, &text[..15]);
    for (at, token) in text.iter().copied().enumerate().take(25).skip(15) {
        draft(&mut context, 0, token);
        feed(&mut context, 0, at, &[token, 9, 9, 9]);
        context.seq_remove(0, i32::try_from(at + 1).unwrap(), None).unwrap();
    }
    feed(&mut context, 0, 25, &text[25..]);
    assert_eq!(draft(&mut context, 0, 7), wanted);

    // A copy of all, and one of a part whose end is still known.
    context.seq_copy(0, 2, None).unwrap();
    assert_eq!(draft(&mut context, 2, 7), wanted);
    context.seq_remove(2, 0, None).unwrap();
    context.seq_copy(0, 2, Some(30)).unwrap();
    feed(&mut context, 2, 30, &text[30..]);
    assert_eq!(draft(&mut context, 2, 7), wanted);
    // And two at once.
    let mut both = Vec::new();
    context.draft(&[0, 2], &[7, 7], N_GUESSES, &mut both).unwrap();
    assert_eq!(both, [&wanted[..], &wanted[..]].concat());
}

#[test]
fn what_was_saved_goes_on_being_guessed_after_its_next_token() {
    let model = open(true);
    let text = text();
    let mut context = guessing(&model);
    feed(&mut context, 0, 0, &text);
    let saved = context.seq_save(0).unwrap();
    context.seq_load(1, &saved).unwrap();
    assert_eq!(draft(&mut context, 1, 7), [-1; N_GUESSES]);
    feed(&mut context, 1, text.len(), &[7]);
    assert!(draft(&mut context, 1, 8).iter().all(|token| *token >= 0));
}

#[test]
fn a_model_without_such_layers_says_so() {
    let refused = |mut context: Context| context.begin_mtp().unwrap_err().status;
    assert_eq!(refused(context(&open(false))), Status::Unsupported);
    assert_eq!(refused(context(&open_smollm2())), Status::Unsupported);
}

fn open_smollm2() -> Arc<Model> {
    let library = env_path("HEARTH_TEST_BACKENDS").join("libhearth_cpu.so");
    let plugin = Plugin::load(&library, Box::new(|_, _| {})).unwrap();
    let path = env_path("HEARTH_TEST_SMOLLM2");
    let params = OpenParams { with_mtp: true, ..OpenParams::new(path) };
    Model::open(&plugin, &params, &mut |_| true).unwrap()
}
