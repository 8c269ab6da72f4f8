//! Passes over a whole vocabulary's logits, written so that the compiler makes vector code of them.
//!
//! Each takes [`BLOCK`] logits at a time, with [`LANES`] running values, and adds up blocks in f64. A logit that is not a
//! number, or minus infinity, weighs nothing.

const LANES: usize = 8;
/// Long enough to hide the end of a block, short enough that sums in f32 lanes stay exact to [`ERROR`].
pub(super) const BLOCK: usize = 512;

/// Most that [`mass`] is off, as a part of it: 64 additions a lane, each rounded by 2^-24, and 8 lanes.
pub(super) const ERROR: f64 = 5e-6;

/// `e^x` for `x <= 0`, and 0 below -88 and for what is no number. Off by less than 2e-7 of it for each unit that `x` is
/// below 0, and 3e-7: less than a logit's own rounding does. Without a library call, so the same everywhere.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Adding and taking away 1.5 * 2^23 rounds to a whole number, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let power = x * std::f32::consts::LOG2_E;
    // At -127 the bits of the power of two below are all 0.
    let power = if power > -127.0 { power } else { -127.0 };
    let shifted = power + ROUND;
    let rest = power - (shifted - ROUND);
    // (2^rest - 1) / rest, interpolated from -0.5 to 0.5.
    let mut series = 0.0013381302;
    series = series * rest + 0.009666368;
    series = series * rest + 0.05550381;
    series = series * rest + 0.2402235;
    series = series * rest + std::f32::consts::LN_2;
    let power_of_two =
        f32::from_bits(shifted.to_bits().wrapping_shl(23).wrapping_add(1.0_f32.to_bits()));
    (series * rest + 1.0) * power_of_two
}

/// The index of the first of the largest; `None` if none is more than minus infinity.
pub(super) fn argmax(logits: &[f32]) -> Option<usize> {
    let (mut best, mut start) = (f32::NEG_INFINITY, 0);
    for (block_idx, block) in logits.chunks(BLOCK).enumerate() {
        let largest = fold(block, f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
        if largest > best {
            (best, start) = (largest, block_idx * BLOCK);
        }
    }
    let offset = logits.get(start..)?.iter().position(|logit| *logit == best);
    offset.filter(|_| best > f32::NEG_INFINITY).map(|offset| start + offset)
}

/// The sum of `e^((logit - best) * scale)` over the logits of at least `floor`.
pub(super) fn mass(logits: &[f32], best: f32, scale: f32, floor: f32) -> f64 {
    logits.chunks(BLOCK).map(|block| f64::from(block_mass(block, best, scale, floor))).sum()
}

pub(super) fn block_mass(block: &[f32], best: f32, scale: f32, floor: f32) -> f32 {
    if floor == f32::NEG_INFINITY {
        return sum(block, |logit| exp((logit - best) * scale));
    }
    sum(block, |logit| {
        let weight = exp((logit - best) * scale);
        if logit >= floor { weight } else { 0.0 }
    })
}

/// [`mass`] and the entropy, in nats, of the probabilities it stands for.
pub(super) fn mass_and_entropy(logits: &[f32], best: f32, floor: f32) -> (f64, f64) {
    let total = mass(logits, best, 1.0, floor);
    let weighted: f64 = logits
        .chunks(BLOCK)
        .map(|block| {
            f64::from(sum(block, |logit| {
                let x = logit - best;
                let product = exp(x) * x;
                if logit >= floor && x > f32::MIN { product } else { 0.0 }
            }))
        })
        .sum();
    (total, total.ln() - weighted / total)
}

/// How many logits there are, and their mean and standard deviation.
pub(super) fn spread(logits: &[f32]) -> (f64, f64, f64) {
    let over = |each: &dyn Fn(&[f32]) -> f64| logits.chunks(BLOCK).map(each).sum::<f64>();
    let finite = |logit: f32| logit > f32::NEG_INFINITY;
    let count = over(&|block| f64::from(sum(block, |logit| if finite(logit) { 1.0 } else { 0.0 })));
    let total =
        over(&|block| f64::from(sum(block, |logit| if finite(logit) { logit } else { 0.0 })));
    let mean = total / count;
    #[allow(clippy::cast_possible_truncation)] // A mean of f32 is one.
    let near = mean as f32;
    let squares = over(&|block| {
        f64::from(sum(block, |logit| {
            let square = (logit - near) * (logit - near);
            if finite(logit) { square } else { 0.0 }
        }))
    });
    (count, mean, (squares / count).sqrt())
}

#[inline(always)]
fn sum(block: &[f32], each: impl Fn(f32) -> f32) -> f32 {
    let (chunks, rest) = block.as_chunks::<LANES>();
    let mut lanes = [0.0_f32; LANES];
    for chunk in chunks {
        for (lane, logit) in lanes.iter_mut().zip(chunk) {
            *lane += each(*logit);
        }
    }
    lanes.iter().sum::<f32>() + rest.iter().map(|logit| each(*logit)).sum::<f32>()
}

#[inline(always)]
fn fold(block: &[f32], first: f32, of_two: impl Fn(f32, f32) -> f32) -> f32 {
    let (chunks, rest) = block.as_chunks::<LANES>();
    let mut lanes = [first; LANES];
    for chunk in chunks {
        for (lane, logit) in lanes.iter_mut().zip(chunk) {
            *lane = of_two(*lane, *logit);
        }
    }
    lanes.iter().chain(rest).fold(first, |a, b| of_two(a, *b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn exp_is_as_close_as_it_says() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-100.0), 0.0);
        assert_eq!(exp(f32::MIN), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::NAN), 0.0);
        for n in 0..860_000_u32 {
            #[allow(clippy::cast_precision_loss)] // Any near value does.
            let x = n as f32 * -1e-4;
            let (seen, wanted) = (f64::from(exp(x)), f64::from(x).exp());
            let most = 3e-7 - 2e-7 * f64::from(x);
            assert!((seen / wanted - 1.0).abs() < most, "e^{x} is {wanted}, not {seen}");
        }
    }

    fn logits() -> impl Strategy<Value = Vec<f32>> {
        let logit = prop_oneof![
            20 => -20.0_f32..20.0,
            1 => Just(f32::NEG_INFINITY),
            1 => Just(f32::NAN),
            1 => Just(3.0),
        ];
        prop::collection::vec(logit, 1..2000)
    }

    proptest! {
        #[test]
        fn passes_agree_with_plain_sums(logits in logits(), floor in -10.0_f32..10.0, scale in 0.1_f32..3.0) {
            let plain: Vec<f32> = logits.iter().copied().filter(|logit| logit.is_finite()).collect();
            let largest = plain.iter().copied().reduce(f32::max);
            prop_assert_eq!(argmax(&logits).map(|idx| logits[idx]), largest);
            prop_assert_eq!(argmax(&logits), logits.iter().position(|logit| Some(*logit) == largest));
            let Some(best) = largest else { return Ok(()) };

            let near = |seen: f64, wanted: f64| (seen - wanted).abs() <= 1e-4 * wanted.abs().max(1.0);
            let above = || plain.iter().filter(|logit| **logit >= floor).map(|logit| f64::from(*logit));
            let exact = |scale: f64| above().map(move |logit| ((logit - f64::from(best)) * scale).exp()).sum::<f64>();
            let total = mass(&logits, best, scale, floor);
            prop_assert!(near(total, exact(f64::from(scale))));

            let (total, entropy) = mass_and_entropy(&logits, best, f32::NEG_INFINITY);
            let wanted: f64 = plain.iter().map(|logit| {
                let p = f64::from(logit - best).exp() / total;
                if p > 0.0 { -p * p.ln() } else { 0.0 }
            }).sum();
            prop_assert!(near(entropy, wanted), "{} is not {}", entropy, wanted);

            #[allow(clippy::cast_precision_loss)] // At most 2000.
            let n = plain.len() as f64;
            let (count, mean, deviation) = spread(&logits);
            let wanted = plain.iter().map(|logit| f64::from(*logit)).sum::<f64>() / n;
            prop_assert!(count == n && near(mean, wanted));
            let wanted = plain.iter().map(|logit| (f64::from(*logit) - wanted).powi(2)).sum::<f64>() / n;
            prop_assert!(near(deviation, wanted.sqrt()));
        }
    }
}
