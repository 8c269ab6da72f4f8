//! Tokens rounded to eight bits, in panels of up to twelve that a kernel takes at once.
//!
//! A panel holds, for each block of 32 numbers, one [`Block`] per token side by side, so that a kernel reaches all of them by
//! constant offsets from one pointer.

use super::Format;
use std::arch::x86_64::*;

/// Tokens that fit the registers beside the weights: two registers each of 32.
pub(super) const PANEL_MAX: usize = 12;

/// Numbers in a block.
pub(super) const BLOCK: usize = 32;

/// The layout of one token's block: a scale, a correction for each run of weights that share a scale, and the numbers.
///
/// The correction cancels what makes the weights unsigned: minus their zero point times the sum of the numbers as an
/// integer, or, where a weight has a minimum of its own, that sum as a float.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    pub(super) corrections: usize,
}

impl Block {
    pub(super) const SCALE: usize = 0;
    pub(super) const CORRECTIONS: usize = 4;

    pub(super) const fn numbers(self) -> usize {
        Self::CORRECTIONS + 4 * self.corrections
    }

    pub(super) const fn size(self) -> usize {
        self.numbers() + BLOCK
    }

    const fn of(format: Format) -> Self {
        Self { corrections: if matches!(format, Format::Q6K) { 2 } else { 1 } }
    }
}

/// Where each token of a product stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows {
    n_tokens: usize,
    panel: usize,
    n_blocks: usize,
    block: Block,
}

/// Tokens that one call of a kernel takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Panel {
    /// Its first token.
    pub(super) first: usize,
    pub(super) n: usize,
    /// Bytes before it.
    pub(super) offset: usize,
}

impl Rows {
    /// Panels of about the same size: 16 tokens are twice 8, not 12 and 4.
    pub(super) fn new(format: Format, n_weights: usize, n_tokens: usize) -> Self {
        let n_panels = n_tokens.div_ceil(PANEL_MAX).max(1);
        Self {
            n_tokens,
            panel: n_tokens.div_ceil(n_panels).max(1),
            n_blocks: n_weights / BLOCK,
            block: Block::of(format),
        }
    }

    pub(super) fn size(&self) -> usize {
        self.n_tokens * self.n_blocks * self.block.size()
    }

    pub(super) fn panels(&self) -> impl Iterator<Item = Panel> + '_ {
        (0..self.n_tokens).step_by(self.panel).map(|first| self.panel_at(first))
    }

    fn panel_at(&self, first: usize) -> Panel {
        Panel {
            first,
            n: self.panel.min(self.n_tokens - first),
            offset: first * self.n_blocks * self.block.size(),
        }
    }

    /// Offset of a token's first block, and the bytes from one of its blocks to the next.
    fn place(&self, token: usize) -> (usize, usize) {
        let panel = self.panel_at(token / self.panel * self.panel);
        let size = self.block.size();
        (panel.offset + (token - panel.first) * size, panel.n * size)
    }
}

/// Rounds the token `index`.
///
/// # Safety
/// `token` has as many numbers as `rows` has weights, `to` has `rows.size()` bytes, and the processor has AVX-512 F and BW.
pub(super) unsafe fn round(
    format: Format,
    rows: &Rows,
    index: usize,
    token: *const f32,
    to: *mut u8,
) {
    let (offset, step) = rows.place(index);
    // SAFETY: `place` is inside `rows.size()`; the rest is promised by the caller.
    unsafe { round_blocks(format, rows, token, to.add(offset), step) }
}

#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn round_blocks(format: Format, rows: &Rows, token: *const f32, to: *mut u8, step: usize) {
    let zero_point = match format {
        Format::Q4_0 => Some(8),
        Format::Q5_0 => Some(16),
        Format::Q6K => Some(32),
        Format::Q8_0 => Some(128),
        Format::Q4_1 | Format::Q5_1 | Format::Q4K | Format::Q5K => None,
    };
    for block in 0..rows.n_blocks {
        // SAFETY: each block of the token and its place are inside what the caller promised.
        unsafe {
            let low = _mm512_loadu_ps(token.add(block * BLOCK));
            let high = _mm512_loadu_ps(token.add(block * BLOCK + BLOCK / 2));
            let largest =
                _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(low), _mm512_abs_ps(high)));
            let scale = largest / 127.0;
            let inverse = _mm512_set1_ps(if largest == 0.0 { 0.0 } else { 127.0 / largest });
            let low = _mm512_cvtps_epi32(_mm512_mul_ps(low, inverse));
            let high = _mm512_cvtps_epi32(_mm512_mul_ps(high, inverse));
            let to = to.add(block * step);
            let write =
                |offset: usize, bits: u32| to.add(offset).cast::<u32>().write_unaligned(bits);
            write(Block::SCALE, scale.to_bits());
            let correction = |numbers: __m512i| {
                let sum = _mm512_reduce_add_epi32(numbers);
                match zero_point {
                    Some(zero) => (-zero * sum).cast_unsigned(),
                    None => (scale * sum as f32).to_bits(),
                }
            };
            if rows.block.corrections == 2 {
                write(Block::CORRECTIONS, correction(low));
                write(Block::CORRECTIONS + 4, correction(high));
            } else {
                write(Block::CORRECTIONS, correction(_mm512_add_epi32(low, high)));
            }
            let numbers = to.add(rows.block.numbers()).cast::<__m128i>();
            _mm_storeu_si128(numbers, _mm512_cvtsepi32_epi8(low));
            _mm_storeu_si128(numbers.add(1), _mm512_cvtsepi32_epi8(high));
        }
    }
}
