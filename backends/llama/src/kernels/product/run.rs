//! One tile times one panel of tokens.
//!
//! The weights that share a scale are a run: 32 of each row, 16 of Q6_K. For each run the products are summed as integers,
//! one register per token, then scaled and added to that token's sums. Sixteen sums per token are written at the end.

use super::activations::{BLOCK, Block, PANEL_MAX};
use super::tile::{HALVES, Layout, REGISTER};
use super::{Format, LANES};
use std::arch::x86_64::*;

/// A tile, the weights in a row, a panel, where the sums go, and the distance between two tokens' sums.
pub(super) type Kernel = unsafe fn(*const u8, usize, *const u8, *mut f32, usize);

/// The kernel for `n` tokens, 1 to [`PANEL_MAX`].
pub(super) fn kernel(format: Format, n: usize) -> Kernel {
    match format {
        Format::Q4_0 => KernelsOf::<Q4<false>>::BY_TOKENS[n - 1],
        Format::Q4_1 => KernelsOf::<Q4<true>>::BY_TOKENS[n - 1],
        Format::Q5_0 => KernelsOf::<Q5<false>>::BY_TOKENS[n - 1],
        Format::Q5_1 => KernelsOf::<Q5<true>>::BY_TOKENS[n - 1],
        Format::Q8_0 => KernelsOf::<Q8>::BY_TOKENS[n - 1],
        Format::Q4K => KernelsOf::<K4<false>>::BY_TOKENS[n - 1],
        Format::Q5K => KernelsOf::<K4<true>>::BY_TOKENS[n - 1],
        Format::Q6K => KernelsOf::<K6>::BY_TOKENS[n - 1],
    }
}

struct KernelsOf<W>(std::marker::PhantomData<W>);

impl<W: Weights> KernelsOf<W> {
    const BY_TOKENS: [Kernel; PANEL_MAX] = [
        multiply::<W, 1>,
        multiply::<W, 2>,
        multiply::<W, 3>,
        multiply::<W, 4>,
        multiply::<W, 5>,
        multiply::<W, 6>,
        multiply::<W, 7>,
        multiply::<W, 8>,
        multiply::<W, 9>,
        multiply::<W, 10>,
        multiply::<W, 11>,
        multiply::<W, 12>,
    ];
}

/// How a format's tile is read. All offsets are inside a tile of [`Layout`]; `run` counts along the rows.
///
/// # Safety
/// Functions are called inside `multiply` only: with a run of the tile, and on a processor with the instructions.
trait Weights {
    const FORMAT: Format;
    const LAYOUT: Layout = Layout::of(Self::FORMAT);
    /// Groups of four weights in a run.
    const GROUPS: usize = 8;
    /// Each run has a minimum, to be added times the sum of the tokens' numbers.
    const HAS_MIN: bool = false;

    /// Four weights of each row as unsigned bytes.
    unsafe fn group(numbers: *const u8, run: usize, group: usize) -> __m512i;
    unsafe fn scale(scales: *const u8, run: usize) -> __m512;
    unsafe fn min(_scales: *const u8, _run: usize) -> __m512 {
        unreachable!("this format has no minima")
    }
}

/// # Safety
/// `tile` is a tile of `W` with `n_weights` in a row, `panel` holds `N` tokens rounded for it, `out` has sixteen numbers at
/// each of the `N` multiples of `stride`, and the processor has the instructions.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn multiply<W: Weights, const N: usize>(
    tile: *const u8,
    n_weights: usize,
    panel: *const u8,
    out: *mut f32,
    stride: usize,
) {
    let layout = Layout::of(W::FORMAT);
    let block = Block { corrections: BLOCK / (4 * W::GROUPS) };
    // SAFETY: promised by the caller: all runs are in the tile, and the blocks of all tokens in the panel.
    unsafe {
        let scales = tile.add(n_weights / W::FORMAT.block() * layout.numbers);
        let mut sums = [_mm512_setzero_ps(); N];
        for run in 0..n_weights / (4 * W::GROUPS) {
            let (part, tokens) = (run % block.corrections, run / block.corrections);
            let tokens = panel.add(tokens * N * block.size());
            let correction = tokens.add(Block::CORRECTIONS + 4 * part);
            let numbers = tokens.add(block.numbers() + 4 * W::GROUPS * part);
            let mut dots = [_mm512_setzero_si512(); N];
            if !W::HAS_MIN {
                for (token, dot) in dots.iter_mut().enumerate() {
                    *dot = all_words(correction.add(token * block.size()));
                }
            }
            for group in 0..W::GROUPS {
                let weights = W::group(tile, run, group);
                for (token, dot) in dots.iter_mut().enumerate() {
                    let four = all_words(numbers.add(token * block.size() + 4 * group));
                    *dot = _mm512_dpbusd_epi32(*dot, weights, four);
                }
            }
            let scale = W::scale(scales, run);
            for (token, (sum, dot)) in sums.iter_mut().zip(dots).enumerate() {
                let token_scale = all_floats(tokens.add(token * block.size() + Block::SCALE));
                let scale = _mm512_mul_ps(scale, token_scale);
                *sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, *sum);
            }
            if W::HAS_MIN {
                let min = W::min(scales, run);
                for (token, sum) in sums.iter_mut().enumerate() {
                    let total = all_floats(correction.add(token * block.size()));
                    *sum = _mm512_fmadd_ps(min, total, *sum);
                }
            }
        }
        for (token, sum) in sums.into_iter().enumerate() {
            _mm512_storeu_ps(out.add(token * stride), sum);
        }
    }
}

struct Q4<const MIN: bool>;

impl<const MIN: bool> Weights for Q4<MIN> {
    const FORMAT: Format = if MIN { Format::Q4_1 } else { Format::Q4_0 };
    const HAS_MIN: bool = MIN;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn group(numbers: *const u8, run: usize, group: usize) -> __m512i {
        // SAFETY: word `group % 4` of the block `run`.
        let words = unsafe { load(numbers.add(run * Self::LAYOUT.numbers + group % 4 * REGISTER)) };
        nibbles(words, group / 4)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn scale(scales: *const u8, run: usize) -> __m512 {
        // SAFETY: the scales of the block `run`.
        unsafe { halves(scales.add(run * Self::LAYOUT.scales)) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn min(scales: *const u8, run: usize) -> __m512 {
        // SAFETY: the minima of the block `run`.
        unsafe { halves(scales.add(run * Self::LAYOUT.scales + HALVES)) }
    }
}

struct Q5<const MIN: bool>;

impl<const MIN: bool> Weights for Q5<MIN> {
    const FORMAT: Format = if MIN { Format::Q5_1 } else { Format::Q5_0 };
    const HAS_MIN: bool = MIN;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn group(numbers: *const u8, run: usize, group: usize) -> __m512i {
        // SAFETY: word `group % 4` and mask `group` of the block `run`.
        let (words, fifth) = unsafe {
            let numbers = numbers.add(run * Self::LAYOUT.numbers);
            (load(numbers.add(group % 4 * REGISTER)), mask(numbers.add(4 * REGISTER + 8 * group)))
        };
        with_fifth(nibbles(words, group / 4), fifth)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn scale(scales: *const u8, run: usize) -> __m512 {
        // SAFETY: the scales of the block `run`.
        unsafe { halves(scales.add(run * Self::LAYOUT.scales)) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn min(scales: *const u8, run: usize) -> __m512 {
        // SAFETY: the minima of the block `run`.
        unsafe { halves(scales.add(run * Self::LAYOUT.scales + HALVES)) }
    }
}

struct Q8;

impl Weights for Q8 {
    const FORMAT: Format = Format::Q8_0;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn group(numbers: *const u8, run: usize, group: usize) -> __m512i {
        // SAFETY: word `group` of the block `run`.
        unsafe { load(numbers.add(run * Self::LAYOUT.numbers + group * REGISTER)) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn scale(scales: *const u8, run: usize) -> __m512 {
        // SAFETY: the scales of the block `run`.
        unsafe { halves(scales.add(run * Self::LAYOUT.scales)) }
    }
}

/// Q4_K, and with `FIFTH` Q5_K. Eight runs in a block: low nibbles of eight words, then their high nibbles, four times.
struct K4<const FIFTH: bool>;

impl<const FIFTH: bool> Weights for K4<FIFTH> {
    const FORMAT: Format = if FIFTH { Format::Q5K } else { Format::Q4K };
    const HAS_MIN: bool = true;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn group(numbers: *const u8, run: usize, group: usize) -> __m512i {
        let (block, run) = (run / 8, run % 8);
        // SAFETY: word `group` of the run's pair in the block.
        let words = unsafe {
            load(numbers.add(block * Self::LAYOUT.numbers + (run / 2 * 8 + group) * REGISTER))
        };
        let nibbles = nibbles(words, run % 2);
        if !FIFTH {
            return nibbles;
        }
        // SAFETY: the mask of this run and group in the block.
        let fifth = unsafe {
            mask(numbers.add(block * Self::LAYOUT.numbers + 32 * REGISTER + 8 * (run * 8 + group)))
        };
        with_fifth(nibbles, fifth)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn scale(scales: *const u8, run: usize) -> __m512 {
        // SAFETY: the factor and the scales of this run in the block.
        unsafe {
            let scales = scales.add(run / 8 * Self::LAYOUT.scales);
            let runs = scales.add(2 * HALVES + run % 8 * LANES);
            let runs = _mm512_cvtepu8_epi32(_mm_loadu_si128(runs.cast()));
            _mm512_mul_ps(halves(scales), _mm512_cvtepi32_ps(runs))
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn min(scales: *const u8, run: usize) -> __m512 {
        // SAFETY: the factor and the minima of this run in the block.
        unsafe {
            let scales = scales.add(run / 8 * Self::LAYOUT.scales);
            let runs = scales.add(2 * HALVES + (8 + run % 8) * LANES);
            let runs = _mm512_cvtepu8_epi32(_mm_loadu_si128(runs.cast()));
            // What ggml stores is subtracted.
            let factor = _mm512_sub_ps(_mm512_setzero_ps(), halves(scales.add(HALVES)));
            _mm512_mul_ps(factor, _mm512_cvtepi32_ps(runs))
        }
    }
}

/// Sixteen runs in a block, eight in each half: the low nibbles of eight words and of eight more, then their high nibbles; the
/// upper two bits of all four stand in the same eight words.
struct K6;

impl Weights for K6 {
    const FORMAT: Format = Format::Q6K;
    const GROUPS: usize = 4;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn group(numbers: *const u8, run: usize, group: usize) -> __m512i {
        let (block, half, run) = (run / 16, run / 8 % 2, run % 8);
        let (quarter, word) = (run / 2, run % 2 * 4 + group);
        // SAFETY: words of this half of the block.
        let (low, high) = unsafe {
            let numbers = numbers.add(block * Self::LAYOUT.numbers);
            (
                load(numbers.add((half * 16 + quarter % 2 * 8 + word) * REGISTER)),
                load(numbers.add((32 + half * 8 + word) * REGISTER)),
            )
        };
        let high = match quarter {
            0 => high,
            1 => _mm512_srli_epi16::<2>(high),
            2 => _mm512_srli_epi16::<4>(high),
            _ => _mm512_srli_epi16::<6>(high),
        };
        let high = _mm512_and_si512(high, _mm512_set1_epi8(3));
        _mm512_or_si512(nibbles(low, quarter / 2), _mm512_slli_epi16::<4>(high))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn scale(scales: *const u8, run: usize) -> __m512 {
        // SAFETY: the factor and the scales of this run in the block.
        unsafe {
            let scales = scales.add(run / 16 * Self::LAYOUT.scales);
            let runs = _mm_loadu_si128(scales.add(run % 16 * LANES).cast());
            let runs = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(runs));
            _mm512_mul_ps(halves(scales.add(16 * LANES)), runs)
        }
    }
}

/// Low nibbles of all bytes, or with `upper` 1 the high ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn nibbles(words: __m512i, upper: usize) -> __m512i {
    let words = if upper == 0 { words } else { _mm512_srli_epi16::<4>(words) };
    _mm512_and_si512(words, _mm512_set1_epi8(15))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn with_fifth(nibbles: __m512i, fifth: __mmask64) -> __m512i {
    _mm512_mask_add_epi8(nibbles, fifth, nibbles, _mm512_set1_epi8(16))
}

/// # Safety
/// There are 64 bytes at `from`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn load(from: *const u8) -> __m512i {
    // SAFETY: promised by the caller.
    unsafe { _mm512_loadu_si512(from.cast()) }
}

/// # Safety
/// There are eight bytes at `from`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn mask(from: *const u8) -> __mmask64 {
    // SAFETY: promised by the caller.
    unsafe { from.cast::<u64>().read_unaligned() }
}

/// Sixteen half-precision numbers.
///
/// # Safety
/// There are 32 bytes at `from`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn halves(from: *const u8) -> __m512 {
    // SAFETY: promised by the caller.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(from.cast()) })
}

/// The four bytes at `from` in each lane.
///
/// # Safety
/// There are four bytes at `from`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn all_words(from: *const u8) -> __m512i {
    // SAFETY: promised by the caller.
    _mm512_set1_epi32(unsafe { from.cast::<i32>().read_unaligned() })
}

/// The number at `from` in each lane.
///
/// # Safety
/// There are four bytes at `from`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn all_floats(from: *const u8) -> __m512 {
    // SAFETY: promised by the caller.
    _mm512_set1_ps(unsafe { from.cast::<f32>().read_unaligned() })
}
