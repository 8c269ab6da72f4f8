//! `score PLUGIN MODEL [KV [FLASH]]`: how well the model predicts the README, in nats per token, with KV memory of a format and
//! flash attention `on` or `off`. A process of its own, because a plugin chooses its kernels once per process.

#![allow(clippy::print_stdout, reason = "that is where the answer goes")]

use hearth_abi::host::{Batch, Model, Plugin};
use hearth_abi::{BatchEntry, ContextConfig, FlashAttention, KvType, OpenParams};
use std::path::PathBuf;

const TEXT: &str = include_str!("../../README.md");
const N_TOKENS: usize = 400;

fn main() {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let mut arg = || args.next().expect("two arguments: the plugin and the model");
    let plugin = Plugin::load(&arg(), Box::new(|_, _| {})).expect("the plugin loads");
    let model =
        Model::open(&plugin, &OpenParams::new(arg()), &mut |_| true).expect("the model opens");
    let mut word = || args.next().map(|arg| arg.display().to_string());
    let kv_type = match word().as_deref() {
        None | Some("f16") => KvType::F16,
        Some("q8_0") => KvType::Q8_0,
        Some("q4_0") => KvType::Q4_0,
        Some("f32") => KvType::F32,
        Some(other) => panic!("no format `{other}`"),
    };
    let flash_attention = match word().as_deref() {
        None => FlashAttention::Auto,
        Some("on") => FlashAttention::On,
        Some("off") => FlashAttention::Off,
        Some(other) => panic!("flash attention is `on` or `off`, not `{other}`"),
    };
    let n = u32::try_from(N_TOKENS).expect("fits");
    let config = ContextConfig {
        n_threads: 2,
        n_threads_batch: 2,
        kv_type,
        flash_attention,
        ..ContextConfig::single(n)
    };
    let mut context = model.context(&config).expect("a context");
    let mut tokens = model.tokenize(TEXT, true, false).expect("tokens");
    tokens.truncate(N_TOKENS);
    let mut total = 0.0;
    // Half at once, and the rest in small steps, which other kernels compute.
    let (prompt, rest) = tokens.split_at(N_TOKENS / 2);
    let mut position = 0;
    for step in std::iter::once(prompt).chain(rest.chunks(3)) {
        let mut batch = Batch::default();
        for token in step {
            batch.push(BatchEntry { token: *token, position, sequence: 0, output: true });
            position += 1;
        }
        context.decode(&batch).expect("a step");
        let first = usize::try_from(position).expect("positive") - step.len();
        for index in 0..step.len() {
            if let Some(next) = tokens.get(first + index + 1) {
                total += surprise(context.logits(index).expect("logits"), *next);
            }
        }
    }
    println!("{}", total / (tokens.len() - 1) as f64);
}

fn surprise(logits: &[f32], token: i32) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
    let own = logits[usize::try_from(token).expect("a token of the vocabulary")];
    sum.ln() - f64::from(own - largest)
}
