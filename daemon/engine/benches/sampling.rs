//! Microseconds per token of the sampler over 262,144 logits: `./dev cargo bench -p hearth-engine`.

use hearth_engine::{Sampler, Sampling};
use std::hint::black_box;
use std::time::Instant;

const N_VOCAB: u32 = 262_144;
const ROUNDS: u32 = 400;

/// A bell around -10, of SplitMix64's numbers.
fn logits(seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut unit = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        f32::from(u16::try_from(mixed >> 48).unwrap_or(0)) / 65536.0
    };
    (0..N_VOCAB).map(|_| (0..6).map(|_| unit()).sum::<f32>() * 4.0 - 22.0).collect()
}

#[allow(clippy::print_stdout)] // It is what this program is for.
fn main() {
    let mut sets: Vec<Vec<f32>> = (0..8).map(logits).collect();
    let open = Sampling { top_k: 0, top_p: 1.0, ..Sampling::default() };
    let cases = [
        ("greedy", Sampling { temperature: 0.0, ..open.clone() }),
        ("temperature 0.8 alone", open.clone()),
        ("top-k 40, top-p 0.9, temperature 0.8", Sampling::default()),
        ("top-p 0.9 alone", Sampling { top_p: 0.9, ..open.clone() }),
        ("min-p 0.05 alone", Sampling { min_p: 0.05, ..open.clone() }),
        ("typical 0.9 alone", Sampling { typical_p: 0.9, ..open.clone() }),
        ("top-n-sigma 1 alone", Sampling { top_n_sigma: 1.0, ..open.clone() }),
        ("min-p 0.02, XTC 0.5", Sampling { min_p: 0.02, xtc_probability: 0.5, ..open.clone() }),
        ("top-k 40, dynamic temperature", Sampling { dynatemp_range: 0.5, ..Sampling::default() }),
        ("the default, log probabilities", Sampling { logprobs: Some(20), ..Sampling::default() }),
        ("the default, repeat penalty", Sampling { repeat_penalty: 1.1, ..Sampling::default() }),
    ];
    // So that some logits stand out, as they do with models.
    for (at, set) in sets.iter_mut().enumerate() {
        for rank in 0..64_u8 {
            set[at * 1000 + usize::from(rank) * 371] += 20.0 - f32::from(rank) * 0.15;
        }
    }
    for (name, sampling) in cases {
        let logprobs = sampling.logprobs.is_some();
        let mut sampler = Sampler::new(sampling, &[]);
        let mut times: Vec<f64> = (0..ROUNDS)
            .map(|round| {
                let logits = &mut sets[round as usize % 8];
                let start = Instant::now();
                sampler.prepare(logits);
                let token = sampler.pick(logits);
                if logprobs {
                    black_box(token.and_then(|token| sampler.logprobs(token)));
                }
                token.into_iter().for_each(|token| sampler.accept(token));
                start.elapsed().as_secs_f64() * 1e6
            })
            .collect();
        times.sort_by(f64::total_cmp);
        let of = |part: usize| times[times.len() * part / 100];
        println!("{name:40} median {:7.1} µs, 90% below {:7.1} µs", of(50), of(90));
    }
}
