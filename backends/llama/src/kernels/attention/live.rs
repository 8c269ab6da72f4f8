//! Which cells of the memory each token sees, and which tokens are computed together.
//!
//! A unified memory holds the cells of many sequences, so most cells of a mask are of no use to a token. The mask is read once
//! per step and layer into sets of 64-bit words; after that only cells in use are touched.

use std::arch::x86_64::*;
use std::ops::Range;

/// Tokens whose sets differ by no more cells than this are computed together: neighbours of one prompt differ by a few.
const ALIKE: u32 = 64;

/// Sets of cells, one per token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sets<'a> {
    pub(super) words: &'a [u64],
    pub(super) n_words: usize,
}

impl<'a> Sets<'a> {
    pub(super) fn of(&self, token: usize) -> &'a [u64] {
        &self.words[token * self.n_words..][..self.n_words]
    }

    /// The tokens from `first` on that are computed together, `most` at most.
    pub(super) fn alike(&self, first: usize, most: usize) -> Range<usize> {
        let n_tokens = self.words.len() / self.n_words;
        let set = self.of(first);
        let end = (first + 1..n_tokens.min(first + most))
            .find(|token| {
                let differ = set.iter().zip(self.of(*token)).map(|(a, b)| (a ^ b).count_ones());
                differ.sum::<u32>() > ALIKE
            })
            .unwrap_or(n_tokens.min(first + most));
        first..end
    }

    /// Writes the cells that any of the tokens sees, in order, and answers how many.
    pub(super) fn cells(&self, tokens: Range<usize>, cells: &mut [u32]) -> usize {
        let mut n = 0;
        for (word, base) in (0..self.n_words).zip((0..).step_by(64)) {
            let mut any =
                tokens.clone().fold(0, |any, token| any | self.words[token * self.n_words + word]);
            while any != 0 {
                cells[n] = base + any.trailing_zeros();
                any &= any - 1;
                n += 1;
            }
        }
        n
    }

    /// Bit `i` says whether the token sees `cells[i]`; up to 64 cells in rising order.
    pub(super) fn among(&self, token: usize, cells: &[u32]) -> u64 {
        let set = self.of(token);
        let (first, last) = (cells[0], cells[cells.len() - 1]);
        if (last - first) as usize == cells.len() - 1 {
            let (word, shift) = (first as usize / 64, first % 64);
            let next = if shift == 0 {
                0
            } else {
                set.get(word + 1).map_or(0, |next| next << (64 - shift))
            };
            return (set[word] >> shift | next) & (u64::MAX >> (64 - cells.len()));
        }
        cells.iter().enumerate().fold(0, |bits, (index, cell)| {
            bits | (set[*cell as usize / 64] >> (cell % 64) & 1) << index
        })
    }
}

/// Reads one token's mask: minus infinity hides a cell.
///
/// # Safety
/// `mask` has `n_cells` half-precision numbers, `set` is large enough, and the processor has AVX-512 BW.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn read_mask(mask: *const u16, n_cells: usize, set: &mut [u64]) {
    const HIDDEN: u16 = 0xfc00;
    let hidden = _mm512_set1_epi16(HIDDEN.cast_signed());
    for (index, word) in set.iter_mut().enumerate() {
        let first = index * 64;
        if first + 64 <= n_cells {
            // SAFETY: 64 numbers from `first` on are inside the mask.
            let (low, high) = unsafe {
                (
                    _mm512_loadu_si512(mask.add(first).cast()),
                    _mm512_loadu_si512(mask.add(first + 32).cast()),
                )
            };
            *word = u64::from(_mm512_cmpneq_epi16_mask(low, hidden))
                | u64::from(_mm512_cmpneq_epi16_mask(high, hidden)) << 32;
        } else {
            *word = (first..n_cells).fold(0, |bits, cell| {
                // SAFETY: `cell` is inside the mask.
                let seen = unsafe { *mask.add(cell) } != HIDDEN;
                bits | u64::from(seen) << (cell - first)
            });
        }
    }
}
