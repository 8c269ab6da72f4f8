//! The inner loops: scores of rows of queries with 64 keys, and sums of 64 values.
//!
//! A row is one head's query of one token. Up to six rows are computed at once: 24 registers of sums, four of keys or
//! values.

use std::arch::x86_64::*;

/// Rows that the registers hold.
pub(super) const ROWS: usize = 6;
/// Cells that are computed at a time.
pub(super) const CELLS: usize = 64;
/// Numbers in a register.
pub(super) const LANES: usize = 16;

/// Queries of rows side by side, keys as `turn` writes them, numbers in a key, and where the scores go.
pub(super) type Scores = unsafe fn(*const f32, *const f32, usize, *mut f32);
/// Scores, values of [`CELLS`] cells, numbers before these, and sums with the distance between two rows', each to be
/// multiplied first by its factor.
pub(super) type Values =
    unsafe fn(*const f32, &[*const u16; CELLS], usize, *mut f32, usize, *const f32);

/// By rows, less one.
pub(super) const SCORES: [Scores; ROWS] =
    [scores::<1>, scores::<2>, scores::<3>, scores::<4>, scores::<5>, scores::<6>];

/// By rows, and by registers of one row's numbers, less one.
pub(super) const VALUES: [[Values; 4]; ROWS] = [
    [values::<1, 1>, values::<1, 2>, values::<1, 3>, values::<1, 4>],
    [values::<2, 1>, values::<2, 2>, values::<2, 3>, values::<2, 4>],
    [values::<3, 1>, values::<3, 2>, values::<3, 3>, values::<3, 4>],
    [values::<4, 1>, values::<4, 2>, values::<4, 3>, values::<4, 4>],
    [values::<5, 1>, values::<5, 2>, values::<5, 3>, values::<5, 4>],
    [values::<6, 1>, values::<6, 2>, values::<6, 3>, values::<6, 4>],
];

/// # Safety
/// `queries` has `n` times `R` numbers, `keys` `n` times [`CELLS`], `to` room for `R` times [`CELLS`].
#[target_feature(enable = "avx512f")]
unsafe fn scores<const R: usize>(queries: *const f32, keys: *const f32, n: usize, to: *mut f32) {
    let mut sums = [[_mm512_setzero_ps(); CELLS / LANES]; R];
    for index in 0..n {
        // SAFETY: both are inside what the caller promised.
        let (keys, queries) = unsafe { (keys.add(index * CELLS), queries.add(index * R)) };
        let mut four = [_mm512_setzero_ps(); CELLS / LANES];
        for (part, key) in four.iter_mut().enumerate() {
            // SAFETY: the 64 keys of this index.
            *key = unsafe { _mm512_loadu_ps(keys.add(part * LANES)) };
        }
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: the `R` queries of this index.
            let query = _mm512_set1_ps(unsafe { *queries.add(row) });
            for (sum, key) in sums.iter_mut().zip(four) {
                *sum = _mm512_fmadd_ps(query, key, *sum);
            }
        }
    }
    for (row, sums) in sums.into_iter().enumerate() {
        for (part, sum) in sums.into_iter().enumerate() {
            // SAFETY: inside the room for the scores.
            unsafe { _mm512_storeu_ps(to.add(row * CELLS + part * LANES), sum) };
        }
    }
}

/// # Safety
/// `scores` has `R` times [`CELLS`] numbers, each value `16 * W` from `skip` on, `sums` as many for each of `R` rows, and
/// `factors` has `R`.
#[target_feature(enable = "avx512f")]
unsafe fn values<const R: usize, const W: usize>(
    scores: *const f32,
    values: &[*const u16; CELLS],
    skip: usize,
    sums: *mut f32,
    stride: usize,
    factors: *const f32,
) {
    let mut rows = [[_mm512_setzero_ps(); W]; R];
    for (row, parts) in rows.iter_mut().enumerate() {
        for (part, sum) in parts.iter_mut().enumerate() {
            // SAFETY: inside the sums and factors of this row.
            *sum = unsafe {
                let sum = _mm512_loadu_ps(sums.add(row * stride + skip + part * LANES));
                _mm512_mul_ps(sum, _mm512_set1_ps(*factors.add(row)))
            };
        }
    }
    for (cell, value) in values.iter().enumerate() {
        let mut parts = [_mm512_setzero_ps(); W];
        for (part, numbers) in parts.iter_mut().enumerate() {
            // SAFETY: inside the value.
            *numbers = unsafe { halves(value.add(skip + part * LANES)) };
        }
        for (row, sums) in rows.iter_mut().enumerate() {
            // SAFETY: the score of this row and cell.
            let score = _mm512_set1_ps(unsafe { *scores.add(row * CELLS + cell) });
            for (sum, numbers) in sums.iter_mut().zip(parts) {
                *sum = _mm512_fmadd_ps(score, numbers, *sum);
            }
        }
    }
    for (row, parts) in rows.into_iter().enumerate() {
        for (part, sum) in parts.into_iter().enumerate() {
            // SAFETY: inside the sums of this row.
            unsafe { _mm512_storeu_ps(sums.add(row * stride + skip + part * LANES), sum) };
        }
    }
}

/// Makes scores of one row into weights: the power of e of each, from which the largest so far is taken, and 0 for cells that
/// are not `seen`. Answers the largest so far, and the sum of the weights.
///
/// # Safety
/// `row` has [`CELLS`] numbers.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn weigh(row: *mut f32, seen: u64, largest: f32) -> (f32, f32) {
    const NONE: f32 = f32::NEG_INFINITY;
    let mut parts = [_mm512_setzero_ps(); CELLS / LANES];
    let mut largest = _mm512_set1_ps(largest);
    for (part, scores) in parts.iter_mut().enumerate() {
        let seen = part_of(seen, part);
        // SAFETY: inside the row.
        let all = unsafe { _mm512_loadu_ps(row.add(part * LANES)) };
        *scores = _mm512_mask_blend_ps(seen, _mm512_set1_ps(NONE), all);
        largest = _mm512_max_ps(largest, *scores);
    }
    let largest = _mm512_reduce_max_ps(largest);
    let mut sum = _mm512_setzero_ps();
    for (part, scores) in parts.into_iter().enumerate() {
        let seen = part_of(seen, part);
        let weights = power(_mm512_sub_ps(scores, _mm512_set1_ps(largest)));
        let weights = _mm512_maskz_mov_ps(seen, weights);
        sum = _mm512_add_ps(sum, weights);
        // SAFETY: inside the row.
        unsafe { _mm512_storeu_ps(row.add(part * LANES), weights) };
    }
    (largest, _mm512_reduce_add_ps(sum))
}

fn part_of(seen: u64, part: usize) -> __mmask16 {
    (seen >> (part * LANES) & 0xffff) as __mmask16
}

/// e to the power of numbers that are not positive, to about the last bit: a power of two, times a polynomial over half of
/// ln 2 on each side (Cephes' coefficients).
#[inline]
#[target_feature(enable = "avx512f")]
fn power(x: __m512) -> __m512 {
    const POLYNOMIAL: [f32; 5] =
        [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    // ln 2 in two parts, so that no bit of the remainder is lost.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    // The power of this one is below the smallest number.
    const LEAST: f32 = -104.0;
    let all = |x| _mm512_set1_ps(x);
    let x = _mm512_max_ps(all(LEAST), x);
    let halvings = _mm512_roundscale_ps::<0>(_mm512_mul_ps(x, all(std::f32::consts::LOG2_E)));
    let rest = _mm512_fnmadd_ps(halvings, all(LN_2[0]), x);
    let rest = _mm512_fnmadd_ps(halvings, all(LN_2[1]), rest);
    let mut sum = all(1.987_569_1e-4);
    for coefficient in POLYNOMIAL {
        sum = _mm512_fmadd_ps(sum, rest, all(coefficient));
    }
    let sum = _mm512_fmadd_ps(sum, _mm512_mul_ps(rest, rest), _mm512_add_ps(rest, all(1.0)));
    _mm512_scalef_ps(sum, halvings)
}

/// Turns sixteen numbers of each of [`CELLS`] keys, from `skip` on, so that those of one index stand side by side.
///
/// # Safety
/// Each key has the numbers, and `to` room for 16 times [`CELLS`].
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn turn(keys: &[*const u16; CELLS], skip: usize, to: *mut f32) {
    for (part, keys) in keys.as_chunks::<LANES>().0.iter().enumerate() {
        let mut rows = [_mm512_setzero_ps(); LANES];
        for (row, key) in rows.iter_mut().zip(keys) {
            // SAFETY: inside the key.
            *row = unsafe { halves(key.add(skip)) };
        }
        for (index, column) in turned(rows).into_iter().enumerate() {
            // SAFETY: inside the room.
            unsafe { _mm512_storeu_ps(to.add(index * CELLS + part * LANES), column) };
        }
    }
}

/// Rows as columns.
#[inline]
#[target_feature(enable = "avx512f")]
fn turned(rows: [__m512; 16]) -> [__m512; 16] {
    let none = _mm512_setzero_ps();
    let (mut pairs, mut fours, mut eights, mut all) =
        ([none; 16], [none; 16], [none; 16], [none; 16]);
    for i in 0..8 {
        pairs[2 * i] = _mm512_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm512_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
    }
    let low = |a, b| _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
    let high =
        |a, b| _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
    for i in 0..4 {
        let [a, b, c, d] = [pairs[4 * i], pairs[4 * i + 1], pairs[4 * i + 2], pairs[4 * i + 3]];
        fours[4 * i] = low(a, c);
        fours[4 * i + 1] = high(a, c);
        fours[4 * i + 2] = low(b, d);
        fours[4 * i + 3] = high(b, d);
    }
    // Now row `4 * i + j` has, in its lane of 128 bits `l`, column `4 * l + j` of the rows from `4 * i` on.
    for j in 0..4 {
        eights[j] = _mm512_shuffle_f32x4::<0b10_00_10_00>(fours[j], fours[4 + j]);
        eights[4 + j] = _mm512_shuffle_f32x4::<0b11_01_11_01>(fours[j], fours[4 + j]);
        eights[8 + j] = _mm512_shuffle_f32x4::<0b10_00_10_00>(fours[8 + j], fours[12 + j]);
        eights[12 + j] = _mm512_shuffle_f32x4::<0b11_01_11_01>(fours[8 + j], fours[12 + j]);
    }
    for j in 0..4 {
        all[j] = _mm512_shuffle_f32x4::<0b10_00_10_00>(eights[j], eights[8 + j]);
        all[8 + j] = _mm512_shuffle_f32x4::<0b11_01_11_01>(eights[j], eights[8 + j]);
        all[4 + j] = _mm512_shuffle_f32x4::<0b10_00_10_00>(eights[4 + j], eights[12 + j]);
        all[12 + j] = _mm512_shuffle_f32x4::<0b11_01_11_01>(eights[4 + j], eights[12 + j]);
    }
    all
}

/// Sixteen half-precision numbers.
///
/// # Safety
/// They are at `from`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn halves(from: *const u16) -> __m512 {
    // SAFETY: promised by the caller.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(from.cast()) })
}
