//! Tokens that see almost the same cells, with the heads that share one head of the memory.

use super::live::Sets;
use super::vector::{self, CELLS, LANES, ROWS};
use super::{Attention, TILE_ROWS, Tensor};
use std::ffi::c_void;
use std::ops::Range;

/// What one thread keeps while it computes a tile.
#[derive(Debug)]
pub(super) struct Scratch {
    /// Rows in groups of up to six, those of a group side by side.
    queries: *mut f32,
    /// Of [`CELLS`] cells, turned.
    keys: *mut f32,
    scores: *mut f32,
    sums: *mut f32,
    /// Per row: the largest score, the sum of weights, and what the sums are to be multiplied with.
    largest: *mut f32,
    totals: *mut f32,
    factors: *mut f32,
    cells: *mut u32,
    capacity: usize,
    n_cells: usize,
}

impl Scratch {
    fn n_rows(attention: &Attention) -> usize {
        (attention.tile_tokens() * attention.group()).max(TILE_ROWS)
    }

    /// Numbers that all but the list of cells take.
    pub(super) fn floats(attention: &Attention) -> usize {
        let rows = Self::n_rows(attention);
        attention.n_key * (rows + CELLS) + rows * (CELLS + attention.n_value + 3)
    }

    /// # Safety
    /// `memory` has [`Self::floats`] numbers, and as many more as the attention has cells.
    pub(super) unsafe fn new(attention: &Attention, memory: *mut f32) -> Self {
        let rows = Self::n_rows(attention);
        let mut next = memory;
        let mut take = |n: usize| {
            let taken = next;
            // SAFETY: what is taken adds up to `floats`.
            next = unsafe { next.add(n) };
            taken
        };
        Self {
            keys: take(attention.n_key * CELLS),
            scores: take(rows * CELLS),
            queries: take(rows * attention.n_key),
            sums: take(rows * attention.n_value),
            largest: take(rows),
            totals: take(rows),
            factors: take(rows),
            cells: take(attention.n_cells).cast(),
            capacity: attention.n_cells,
            n_cells: 0,
        }
    }

    /// Lists the cells that these tokens see.
    pub(super) fn list(&mut self, sets: Sets<'_>, tokens: Range<usize>) {
        // SAFETY: `new` took as many words as there are cells, and only this thread has them.
        let cells = unsafe { std::slice::from_raw_parts_mut(self.cells, self.capacity) };
        self.n_cells = sets.cells(tokens, cells);
    }
}

impl Tensor {
    /// # Safety
    /// The tensor has the row and the head.
    unsafe fn at(&self, row: usize, head: usize) -> *const c_void {
        // SAFETY: promised by the caller.
        unsafe { self.data.byte_add(row * self.stride + head * self.head_stride) }
    }
}

#[derive(Debug)]
pub(super) struct Tile<'a> {
    pub(super) attention: &'a Attention,
    pub(super) sets: Sets<'a>,
    pub(super) tokens: Range<usize>,
    /// Of the memory.
    pub(super) head: usize,
}

impl Tile<'_> {
    /// Computes one part of the listed cells, and writes the values, or to `partials` where there are several.
    ///
    /// # Safety
    /// As for `hearth_kernels_attend`; `scratch` is this thread's, with this tile's cells listed.
    pub(super) unsafe fn compute(
        &self,
        part: usize,
        n_parts: usize,
        partials: Option<*mut f32>,
        scratch: &mut Scratch,
    ) {
        let n_rows = self.tokens.len() * self.attention.group();
        // SAFETY: `Scratch` has room for the rows of every tile, and `list` wrote `n_cells` cells.
        unsafe {
            self.pack_queries(n_rows, scratch.queries);
            std::slice::from_raw_parts_mut(scratch.sums, n_rows * self.attention.n_value).fill(0.0);
            std::slice::from_raw_parts_mut(scratch.largest, n_rows).fill(f32::NEG_INFINITY);
            std::slice::from_raw_parts_mut(scratch.totals, n_rows).fill(0.0);
            let cells = std::slice::from_raw_parts(scratch.cells, scratch.n_cells);
            let cells = &cells[cells.len() * part / n_parts..cells.len() * (part + 1) / n_parts];
            for cells in cells.chunks(CELLS) {
                self.add(cells, n_rows, scratch);
            }
            for row in 0..n_rows {
                let value = scratch.sums.add(row * self.attention.n_value);
                let value = std::slice::from_raw_parts(value, self.attention.n_value);
                let (largest, total) = (*scratch.largest.add(row), *scratch.totals.add(row));
                match partials {
                    None => write_value(self.attention, self.index(row), value, total),
                    Some(partials) => {
                        let index = self.index(row) * n_parts + part;
                        let to = partials.add(index * self.attention.partial());
                        let to = std::slice::from_raw_parts_mut(to, self.attention.partial());
                        (to[0], to[1]) = (largest, total);
                        to[2..].copy_from_slice(value);
                    }
                }
            }
        }
    }

    /// The token, counted in the tile, and the head of a row.
    fn place(&self, row: usize) -> (usize, usize) {
        let group = self.attention.group();
        (row / group, self.head * group + row % group)
    }

    /// A row counted over all tokens and heads.
    fn index(&self, row: usize) -> usize {
        let (token, head) = self.place(row);
        (self.tokens.start + token) * self.attention.n_heads + head
    }

    /// # Safety
    /// There is room for the rows at `to`.
    unsafe fn pack_queries(&self, n_rows: usize, to: *mut f32) {
        let n = self.attention.n_key;
        for first in (0..n_rows).step_by(ROWS) {
            let side = ROWS.min(n_rows - first);
            for row in 0..side {
                let (token, head) = self.place(first + row);
                // SAFETY: the tensor has the token and the head, and `to` the room.
                unsafe {
                    let query =
                        self.attention.queries.at(self.tokens.start + token, head).cast::<f32>();
                    for index in 0..n {
                        *to.add(first * n + index * side + row) =
                            *query.add(index) * self.attention.scale;
                    }
                }
            }
        }
    }

    /// Adds up to [`CELLS`] cells to the sums.
    ///
    /// # Safety
    /// As for [`Self::compute`].
    unsafe fn add(&self, cells: &[u32], n_rows: usize, scratch: &Scratch) {
        let (n_key, n_value) = (self.attention.n_key, self.attention.n_value);
        // Cells that are missing are those of the last one again, which no row sees twice.
        let cell = |index: usize| cells[index.min(cells.len() - 1)] as usize;
        // SAFETY: the mask has no cells but the memory's; the rest is promised by the caller.
        unsafe {
            let keys = std::array::from_fn(|i| self.attention.keys.at(cell(i), self.head).cast());
            let values =
                std::array::from_fn(|i| self.attention.values.at(cell(i), self.head).cast());
            for skip in (0..n_key).step_by(LANES) {
                vector::turn(&keys, skip, scratch.keys.add(skip * CELLS));
            }
            for first in (0..n_rows).step_by(ROWS) {
                let side = ROWS.min(n_rows - first);
                let scores = scratch.scores.add(first * CELLS);
                vector::SCORES[side - 1](
                    scratch.queries.add(first * n_key),
                    scratch.keys,
                    n_key,
                    scores,
                );
            }
            let mut seen = u64::MAX >> (CELLS - cells.len());
            for row in 0..n_rows {
                if self.tokens.len() > 1 && row % self.attention.group() == 0 {
                    seen = self.sets.among(self.tokens.start + self.place(row).0, cells);
                }
                let largest = *scratch.largest.add(row);
                let (now, sum) = vector::weigh(scratch.scores.add(row * CELLS), seen, largest);
                let factor = if now > largest { (largest - now).exp() } else { 1.0 };
                *scratch.factors.add(row) = factor;
                *scratch.largest.add(row) = now;
                *scratch.totals.add(row) = *scratch.totals.add(row) * factor + sum;
            }
            for first in (0..n_rows).step_by(ROWS) {
                let side = ROWS.min(n_rows - first);
                let scores = scratch.scores.add(first * CELLS);
                let sums = scratch.sums.add(first * n_value);
                let factors = scratch.factors.add(first);
                for skip in (0..n_value).step_by(4 * LANES) {
                    let width = ((n_value - skip) / LANES).min(4);
                    vector::VALUES[side - 1][width - 1](
                        scores, &values, skip, sums, n_value, factors,
                    );
                }
            }
        }
    }
}

/// Joins the parts of a row.
///
/// # Safety
/// All parts are written, and no other thread writes this row.
pub(super) unsafe fn join(attention: &Attention, partials: *mut f32, n_parts: usize, row: usize) {
    let size = attention.partial();
    // SAFETY: the parts of a row lie side by side.
    let parts = unsafe {
        std::slice::from_raw_parts_mut(partials.add(row * n_parts * size), n_parts * size)
    };
    let largest = parts.chunks(size).fold(f32::NEG_INFINITY, |largest, part| largest.max(part[0]));
    let (first, others) = parts.split_at_mut(size);
    let weight = |part: &[f32]| if part[1] == 0.0 { 0.0 } else { (part[0] - largest).exp() };
    let own = weight(first);
    first[1..].iter_mut().for_each(|number| *number *= own);
    for part in others.chunks(size) {
        let weight = weight(part);
        for (sum, number) in first[1..].iter_mut().zip(&part[1..]) {
            *sum += number * weight;
        }
    }
    // SAFETY: promised by the caller.
    unsafe { write_value(attention, row, &first[2..], first[1]) };
}

/// # Safety
/// `attention.out` has the row.
unsafe fn write_value(attention: &Attention, row: usize, sums: &[f32], total: f32) {
    // A token that sees nothing is padding.
    let inverse = if total == 0.0 { 0.0 } else { 1.0 / total };
    // SAFETY: promised by the caller.
    let out = unsafe {
        std::slice::from_raw_parts_mut(
            attention.out.add(row * attention.n_value),
            attention.n_value,
        )
    };
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = sum * inverse;
    }
}
