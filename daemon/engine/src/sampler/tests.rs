//! The chain against the same rules written down the slow and plain way, and its draws against the distribution.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Of tokens and logits, sorted by token.
type Kept = Vec<(Token, f64)>;

/// A place where rounding decides which tokens are kept: there a test says nothing.
#[derive(Debug, PartialEq)]
struct Close;

fn clear(a: f64, b: f64) -> Result<(), Close> {
    if (a - b).abs() < 1e-4 * a.abs().max(b.abs()).max(1e-6) { Err(Close) } else { Ok(()) }
}

fn sort(kept: &mut Kept) {
    kept.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
}

fn softmax(kept: &Kept, temperature: f64) -> Vec<f64> {
    let best = kept.iter().map(|(_, logit)| *logit).fold(f64::NEG_INFINITY, f64::max);
    let weight = |logit: f64| {
        if temperature <= 0.0 {
            f64::from(logit >= best)
        } else {
            ((logit - best) / temperature).exp()
        }
    };
    let total: f64 = kept.iter().map(|(_, logit)| weight(*logit)).sum();
    kept.iter().map(|(_, logit)| weight(*logit) / total).collect()
}

fn plain_entropy(p: &[f64]) -> f64 {
    p.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum()
}

/// Keeps the first until their probabilities reach a sum.
fn first_of(kept: &mut Kept, p: &[f64], wanted: f64, min_keep: usize) -> Result<(), Close> {
    let mut held = 0.0;
    for (idx, p) in p.iter().enumerate() {
        held += p;
        clear(held, wanted)?;
        if held >= wanted && idx + 1 >= min_keep {
            kept.truncate(idx + 1);
            break;
        }
    }
    Ok(())
}

/// What may be drawn and how likely, if XTC strikes or not.
fn plain(sampling: &Sampling, logits: &[f32], xtc: bool) -> Result<BTreeMap<Token, f64>, Close> {
    let min_keep = sampling.min_keep.max(1) as usize;
    let mut kept: Kept = (0..)
        .zip(logits)
        .filter(|(_, logit)| **logit > f32::NEG_INFINITY)
        .map(|(token, logit)| (token, f64::from(*logit)))
        .collect();
    sort(&mut kept);
    #[allow(clippy::cast_precision_loss)] // Few.
    if sampling.top_n_sigma > 0.0 {
        let n = kept.len() as f64;
        let mean = kept.iter().map(|(_, logit)| logit).sum::<f64>() / n;
        let variance = kept.iter().map(|(_, logit)| (logit - mean).powi(2)).sum::<f64>() / n;
        let floor = kept[0].1 - f64::from(sampling.top_n_sigma) * variance.sqrt();
        kept.iter().try_for_each(|(_, logit)| clear(*logit, floor))?;
        kept.retain(|(_, logit)| *logit >= floor);
    }
    if sampling.top_k > 0 {
        kept.truncate(sampling.top_k as usize);
    }
    if sampling.typical_p < 1.0 {
        let p = softmax(&kept, 1.0);
        let entropy = plain_entropy(&p);
        let mut scored: Vec<_> =
            kept.iter().zip(&p).map(|(kept, p)| ((-p.ln() - entropy).abs(), *kept, *p)).collect();
        scored.sort_by(|a, b| {
            a.0.total_cmp(&b.0).then(b.1.1.total_cmp(&a.1.1)).then(a.1.0.cmp(&b.1.0))
        });
        for pair in scored.windows(2).filter(|pair| pair[0].1.1 != pair[1].1.1) {
            clear(pair[0].0, pair[1].0)?;
        }
        kept = scored.iter().map(|(_, kept, _)| *kept).collect();
        let p: Vec<f64> = scored.iter().map(|(_, _, p)| *p).collect();
        first_of(&mut kept, &p, f64::from(sampling.typical_p), min_keep)?;
        sort(&mut kept);
    }
    if sampling.top_p < 1.0 {
        let p = softmax(&kept, 1.0);
        first_of(&mut kept, &p, f64::from(sampling.top_p), min_keep)?;
    }
    if sampling.min_p > 0.0 {
        let floor = kept[0].1 + f64::from(sampling.min_p).ln();
        kept.iter().try_for_each(|(_, logit)| clear(*logit, floor))?;
        let n_kept = kept.iter().filter(|(_, logit)| *logit >= floor).count();
        kept.truncate(n_kept.max(min_keep));
    }
    if xtc {
        let p = softmax(&kept, 1.0);
        let threshold = f64::from(sampling.xtc_threshold);
        p.iter().try_for_each(|p| clear(*p, threshold))?;
        let n_over = p.iter().filter(|p| **p >= threshold).count();
        if n_over > 1 && kept.len() - (n_over - 1) >= min_keep {
            kept.drain(..n_over - 1);
        }
    }
    let (temperature, range) =
        (f64::from(sampling.temperature), f64::from(sampling.dynatemp_range));
    let temperature = if range > 0.0 && kept.len() > 1 {
        let (low, high) = ((temperature - range).max(0.0), temperature + range);
        #[allow(clippy::cast_precision_loss)] // Few.
        let place = plain_entropy(&softmax(&kept, 1.0)) / (kept.len() as f64).ln();
        low + (high - low) * place.powf(f64::from(sampling.dynatemp_exponent))
    } else {
        temperature
    };
    let p = softmax(&kept, temperature);
    Ok(kept.iter().map(|(token, _)| *token).zip(p).collect())
}

/// What the sampler may draw and how likely. XTC strikes if its probability is 1.
fn drawn(sampling: &Sampling, logits: &[f32]) -> BTreeMap<Token, f64> {
    let mut sampler = Sampler::new(sampling.clone(), &[]);
    match sampler.truncate(logits).unwrap() {
        Left::One(token) => BTreeMap::from([(token, 1.0)]),
        Left::Listed { best, scale } => weights(sampler.list.iter().copied(), best, scale),
        Left::All { best, scale } => {
            let all = (0..).zip(logits).map(|(token, logit)| Candidate { logit: *logit, token });
            weights(all.filter(|c| c.logit > f32::NEG_INFINITY), best, scale)
        }
    }
}

fn weights(
    list: impl Iterator<Item = Candidate> + Clone,
    best: f32,
    scale: f32,
) -> BTreeMap<Token, f64> {
    let weight = move |c: Candidate| (c.token, f64::from(vector::exp((c.logit - best) * scale)));
    let total: f64 = list.clone().map(weight).map(|(_, weight)| weight).sum();
    list.map(weight).map(|(token, weight)| (token, weight / total)).collect()
}

fn logits() -> impl Strategy<Value = Vec<f32>> {
    let logit = prop_oneof![
        20 => -20.0_f32..20.0,
        10 => -3.0_f32..3.0,
        1 => Just(f32::NEG_INFINITY),
        1 => Just(f32::NAN),
        2 => Just(3.0),
    ];
    let steep = prop::collection::vec(logit, 1..1500);
    let flat = prop::collection::vec(-1.0_f32..1.0, 1..3000);
    prop_oneof![steep, flat]
}

fn off_or(range: std::ops::Range<f32>, off: f32) -> impl Strategy<Value = f32> {
    prop_oneof![1 => Just(off), 1 => range]
}

fn sampling() -> impl Strategy<Value = Sampling> {
    let cuts = (
        prop_oneof![Just(0_u32), 1_u32..2000],
        off_or(0.02..1.0, 1.0),
        off_or(0.02..1.0, 1.0),
        off_or(0.001..1.0, 0.0),
        off_or(0.1..3.0, 0.0),
        (prop_oneof![Just(0.0_f32), Just(1.0)], 0.01_f32..0.6),
        prop_oneof![3 => Just(0_u32), 1 => 1_u32..20],
    );
    let heat = (0.3_f32..2.0, off_or(0.1..2.0, 0.0), 0.5_f32..2.0, any::<u64>());
    (cuts, heat).prop_map(|(cuts, heat)| Sampling {
        top_k: cuts.0,
        top_p: cuts.1,
        typical_p: cuts.2,
        min_p: cuts.3,
        top_n_sigma: cuts.4,
        xtc_probability: cuts.5.0,
        xtc_threshold: cuts.5.1,
        min_keep: cuts.6,
        temperature: heat.0,
        dynatemp_range: heat.1,
        dynatemp_exponent: heat.2,
        seed: heat.3,
        ..Sampling::default()
    })
}

fn agrees(sampling: &Sampling, logits: &[f32]) -> Result<(), TestCaseError> {
    let xtc = sampling.xtc_probability > 0.0 && sampling.xtc_threshold <= 0.5;
    let Ok(wanted) = plain(sampling, logits, xtc) else { return Ok(()) };
    let seen = drawn(sampling, logits);
    prop_assert!(
        seen.keys().eq(wanted.keys()),
        "{} tokens are kept and should be {}",
        seen.len(),
        wanted.len()
    );
    for (token, p) in &wanted {
        prop_assert!((seen[token] - p).abs() < 1e-4, "{token}: {} should be {p}", seen[token]);
    }
    // And a draw is one of those.
    let mut sampler = Sampler::new(sampling.clone(), &[]);
    for _ in 0..5 {
        let token = sampler.pick(logits).unwrap();
        prop_assert!(wanted.contains_key(&token));
    }
    Ok(())
}

proptest! {
    #[test]
    fn the_whole_chain_agrees_with_the_plain_one(logits in logits(), sampling in sampling()) {
        prop_assume!(vector::argmax(&logits).is_some());
        agrees(&sampling, &logits)?;
    }

    #[test]
    fn each_stage_alone_agrees_with_the_plain_one(logits in logits(), all in sampling()) {
        prop_assume!(vector::argmax(&logits).is_some());
        let off = Sampling { top_k: 0, top_p: 1.0, temperature: 1.0, min_keep: all.min_keep, ..Sampling::default() };
        for stage in [
            Sampling { top_k: all.top_k, ..off.clone() },
            Sampling { top_p: all.top_p, ..off.clone() },
            Sampling { typical_p: all.typical_p, ..off.clone() },
            Sampling { min_p: all.min_p, ..off.clone() },
            Sampling { top_n_sigma: all.top_n_sigma, ..off.clone() },
            Sampling { xtc_probability: 1.0, xtc_threshold: all.xtc_threshold, ..off.clone() },
            Sampling { temperature: all.temperature, ..off.clone() },
            Sampling {
                dynatemp_range: all.dynatemp_range,
                dynatemp_exponent: all.dynatemp_exponent,
                ..off
            },
        ] {
            agrees(&stage, &logits)?;
        }
    }

    #[test]
    fn temperature_zero_takes_the_first_of_the_likeliest(logits in logits(), all in sampling()) {
        let mut sampler = Sampler::new(Sampling { temperature: 0.0, dynatemp_range: 0.0, ..all }, &[]);
        let expected = logits.iter().enumerate().rev().filter(|(_, l)| **l > f32::NEG_INFINITY)
            .max_by(|a, b| a.1.total_cmp(b.1)).map(|(idx, _)| token_of(idx));
        prop_assert_eq!(sampler.pick(&logits), expected);
    }

    #[test]
    fn mirostat_keeps_what_its_papers_say(
        logits in logits(),
        temperature in 0.3_f32..2.0,
        mu in 0.1_f32..12.0,
    ) {
        prop_assume!(vector::argmax(&logits).is_some());
        let mut kept: Kept = (0..).zip(&logits).filter(|(_, l)| **l > f32::NEG_INFINITY)
            .map(|(token, logit)| (token, f64::from(*logit))).collect();
        sort(&mut kept);
        let p = softmax(&kept, f64::from(temperature));
        for version in [MirostatVersion::One, MirostatVersion::Two] {
            let mirostat = Mirostat { version, tau: mu / 2.0, eta: 0.1 };
            let sampling = Sampling { temperature, mirostat: Some(mirostat), ..Sampling::default() };
            let n = match version {
                MirostatVersion::Two => p.iter().filter(|p| -p.log2() <= f64::from(mu)).count().max(1),
                MirostatVersion::One => {
                    let (mut products, mut squares) = (0.0, 0.0);
                    for rank in 1..100.min(p.len()) {
                        #[allow(clippy::cast_precision_loss)] // Small.
                        let step = ((rank + 1) as f64 / rank as f64).ln();
                        products += step * (p[rank - 1] / p[rank]).ln();
                        squares += step * step;
                    }
                    let s: f64 = products / squares;
                    #[allow(clippy::cast_precision_loss)] // Small.
                    let n = logits.len() as f64;
                    let k = ((s - 1.0) * f64::from(mu).exp2() / (1.0 - n.powf(1.0 - s))).powf(1.0 / s);
                    prop_assume!(k.is_nan() || k.fract() > 1e-3 && k.fract() < 1.0 - 1e-3);
                    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Saturates.
                    let k = k as usize;
                    k.clamp(1, kept.len())
                }
            };
            let close = p.iter().any(|p| clear(-p.log2(), f64::from(mu)).is_err());
            let tied = n < kept.len() && (kept[n].1 - kept[n - 1].1).abs() < 1e-6;
            if version == MirostatVersion::Two && (close || tied) {
                continue;
            }
            let seen = drawn(&sampling, &logits);
            let mut wanted: Vec<Token> = kept[..n].iter().map(|(token, _)| *token).collect();
            wanted.sort_unstable();
            prop_assert!(seen.keys().copied().eq(wanted), "{version:?}: {} and not {n}", seen.len());
        }
    }
}

/// Chi-square of 20,000 draws against probabilities, with a bound that a right sampler misses once in 10^6 seeds; the
/// seed is fixed.
fn fits(sampler: &mut Sampler, logits: &[f32], wanted: &BTreeMap<Token, f64>) {
    const DRAWS: u32 = 20_000;
    let mut counts = BTreeMap::new();
    for _ in 0..DRAWS {
        *counts.entry(sampler.pick(logits).unwrap()).or_insert(0_u32) += 1;
    }
    assert!(counts.keys().all(|token| wanted.contains_key(token)), "{counts:?}");
    let chi_square: f64 = wanted
        .iter()
        .map(|(token, p)| {
            let expected = p * f64::from(DRAWS);
            let seen = f64::from(counts.get(token).copied().unwrap_or(0));
            (seen - expected).powi(2) / expected
        })
        .sum();
    // Seven degrees of freedom at most.
    assert!(chi_square < 42.0, "chi-square is {chi_square}");
}

const EIGHT: [f32; 8] = [1.0, 0.5, 0.0, -0.5, 2.0, -1.0, 0.25, 1.5];

#[test]
fn draws_follow_the_distribution() {
    let base = Sampling { temperature: 0.7, top_k: 0, top_p: 1.0, seed: 7, ..Sampling::default() };
    for sampling in [
        base.clone(),
        Sampling { top_k: 5, ..base.clone() },
        Sampling { top_p: 0.8, ..base.clone() },
        Sampling { min_p: 0.2, ..base.clone() },
        Sampling { typical_p: 0.7, ..base.clone() },
        Sampling { top_n_sigma: 1.2, ..base.clone() },
        Sampling { dynatemp_range: 0.6, ..base.clone() },
        Sampling { dynatemp_range: 0.6, dynatemp_exponent: 2.0, top_k: 6, ..base.clone() },
        Sampling { top_k: 7, top_p: 0.95, min_p: 0.05, ..base },
    ] {
        let wanted = plain(&sampling, &EIGHT, false).unwrap();
        fits(&mut Sampler::new(sampling, &[]), &EIGHT, &wanted);
    }
}

#[test]
fn draws_with_xtc_are_a_mixture() {
    for (top_k, probability) in [(0, 0.5), (6, 0.25), (0, 1.0)] {
        let sampling = Sampling {
            temperature: 1.0,
            top_k,
            top_p: 1.0,
            xtc_probability: probability,
            xtc_threshold: 0.11,
            seed: 3,
            ..Sampling::default()
        };
        let (struck, spared) =
            (plain(&sampling, &EIGHT, true).unwrap(), plain(&sampling, &EIGHT, false).unwrap());
        assert!(struck.len() < spared.len());
        let probability = f64::from(probability);
        let part = |of: &BTreeMap<Token, f64>, token| of.get(token).copied().unwrap_or(0.0);
        let wanted = spared
            .keys()
            .map(|token| {
                let p =
                    probability * part(&struck, token) + (1.0 - probability) * part(&spared, token);
                (*token, p)
            })
            .filter(|(_, p)| *p > 0.0)
            .collect();
        fits(&mut Sampler::new(sampling, &[]), &EIGHT, &wanted);
    }
}

#[test]
fn draws_with_mirostat_follow_what_it_left() {
    for version in [MirostatVersion::One, MirostatVersion::Two] {
        let mirostat = Some(Mirostat { version, tau: 1.4, eta: 0.1 });
        let sampling = Sampling { temperature: 0.9, mirostat, seed: 5, ..Sampling::default() };
        let wanted = drawn(&sampling, &EIGHT);
        assert!(wanted.len() > 1 && wanted.len() < 8);
        fits(&mut Sampler::new(sampling, &[]), &EIGHT, &wanted);
    }
}

#[test]
fn mirostat_brings_the_surprise_to_its_target() {
    // Zipf's own distribution, whose tail would surprise far more.
    #[allow(clippy::cast_precision_loss)] // Small.
    let logits: Vec<f32> = (1..5000).map(|rank| -1.1 * (rank as f32).ln()).collect();
    for version in [MirostatVersion::One, MirostatVersion::Two] {
        let mirostat = Some(Mirostat { version, tau: 3.0, eta: 0.1 });
        let sampling = Sampling { temperature: 1.0, mirostat, seed: 5, ..Sampling::default() };
        let mut sampler = Sampler::new(sampling, &[]);
        let (mut surprise, n) = (0.0, 2000);
        for turn in 0..n + 200 {
            let token = sampler.pick(&logits).unwrap();
            if turn >= 200 {
                surprise -= weights(sampler.list.iter().copied(), logits[0], 1.0)[&token].log2();
            }
            sampler.accept(token);
        }
        let mean = surprise / f64::from(n);
        assert!((mean - 3.0).abs() < 0.1, "{version:?} leads to {mean} bits");
    }
}

#[test]
fn a_seed_gives_the_same_choices_and_a_copy_goes_on_alike() {
    let choices = |seed| {
        let sampling = Sampling { temperature: 1.0, seed, ..Sampling::default() };
        let mut sampler = Sampler::new(sampling, &[]);
        (0..50).map(|_| sampler.pick(&EIGHT)).collect::<Vec<_>>()
    };
    assert_eq!(choices(1), choices(1));
    assert_ne!(choices(1), choices(2));
    let mut sampler = Sampler::new(Sampling { seed: 1, ..Sampling::default() }, &[]);
    sampler.pick(&EIGHT);
    let mut copy = sampler.clone();
    assert!((0..50).all(|_| sampler.pick(&EIGHT) == copy.pick(&EIGHT)));
}

#[test]
fn biases_are_added_and_log_probabilities_are_of_the_raw_logits() {
    let sampling = Sampling {
        temperature: 0.0,
        logit_bias: vec![(4, f32::NEG_INFINITY), (2, 5.0), (99, 1.0), (-1, 1.0)],
        logprobs: Some(2),
        ..Sampling::default()
    };
    let mut sampler = Sampler::new(sampling, &[]);
    let mut logits = EIGHT;
    sampler.prepare(&mut logits);
    assert_eq!(logits[4], f32::NEG_INFINITY);
    assert_eq!(sampler.pick(&logits), Some(2));
    let raw = sampler.logprobs(2).unwrap();
    let total: f64 = EIGHT.iter().map(|logit| f64::from(*logit).exp()).sum();
    assert!((f64::from(raw.logprob) + total.ln()).abs() < 1e-5);
    assert_eq!(raw.likeliest.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [4, 7]);
}

#[test]
fn nothing_is_picked_from_nothing_and_infinite_logits_do_no_harm() {
    let base =
        Sampling { top_n_sigma: 1.0, typical_p: 0.5, xtc_probability: 1.0, ..Sampling::default() };
    let mirostat = Mirostat { version: MirostatVersion::One, tau: 5.0, eta: 0.1 };
    for sampling in [
        Sampling::default(),
        Sampling { mirostat: Some(mirostat), ..base.clone() },
        Sampling {
            mirostat: Some(Mirostat { version: MirostatVersion::Two, ..mirostat }),
            ..base.clone()
        },
        Sampling { top_k: 0, top_p: 1.0, ..Sampling::default() },
        base,
    ] {
        let mut sampler = Sampler::new(sampling, &[]);
        assert_eq!(sampler.pick(&[f32::NEG_INFINITY, f32::NAN]), None);
        assert_eq!(sampler.pick(&[]), None);
        assert_eq!(sampler.pick(&[0.0, f32::INFINITY, f32::NAN]), Some(1));
        assert_eq!(sampler.pick(&[f32::NEG_INFINITY, -2.0]), Some(1));
    }
}

#[test]
fn the_whole_chain_with_penalties_changes_what_is_picked() {
    let sampling = Sampling {
        temperature: 0.0,
        dry: Some(Dry { multiplier: 3.0, ..dry::tests::dry(&[]) }),
        ..Sampling::default()
    };
    let mut logits = [0.0_f32; 256];
    logits[usize::from(b'c')] = 2.0;
    logits[usize::from(b'd')] = 1.0;
    let prompt: Vec<Token> = "abc ab".bytes().map(Token::from).collect();
    let mut sampler = Sampler::new(sampling, &prompt);
    sampler.prepare(&mut logits);
    assert_eq!(sampler.pick(&logits), Some(Token::from(b'd')));
}
