//! Attention of many tokens over one memory in half precision.
//!
//! ggml computes steps of fewer than 64 tokens one row and cell at a time, walking over the cells of all other sequences, and
//! larger ones in tiles that touch every cell that any of 64 tokens sees. Here the mask is turned into sets of cells first
//! ([`live`]); tokens with almost the same set form a tile, whose heads that share keys are rows of one small product
//! ([`vector`]). A step of few tokens over a long memory is cut into parts by cells, so that all threads have work; their
//! results are joined at the end.

mod live;
mod tile;
mod vector;

#[cfg(test)]
mod tests;

use live::Sets;
use std::ffi::c_void;
use tile::{Scratch, Tile};

/// Rows that a tile aims at: the scores of 64 cells for them fit the first cache beside the keys.
const TILE_ROWS: usize = 48;
/// Parts are not cut smaller than this.
const PART_CELLS: usize = 512;

/// Attention as ggml asks for it. Strides are in bytes.
#[repr(C)]
#[derive(Debug)]
struct Attention {
    /// Numbers in a key and a query, and in a value; multiples of 16.
    n_key: usize,
    n_value: usize,
    n_tokens: usize,
    n_heads: usize,
    n_memory_heads: usize,
    n_cells: usize,
    scale: f32,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: *const c_void,
    mask_stride: usize,
    /// A value per token and head, tokens first.
    out: *mut f32,
    work: *mut c_void,
}

/// Rows of numbers, by token or cell and by head.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Tensor {
    data: *const c_void,
    stride: usize,
    head_stride: usize,
}

/// How ggml's threads meet.
#[repr(C)]
#[derive(Debug)]
struct Threads {
    index: usize,
    n: usize,
    pool: *mut c_void,
    barrier: unsafe extern "C" fn(*mut c_void),
    set_next: unsafe extern "C" fn(*mut c_void, i32),
    take_next: unsafe extern "C" fn(*mut c_void, i32) -> i32,
}

/// Where things are in the working memory, in bytes.
#[derive(Debug, Clone, Copy)]
struct Room {
    n_parts: usize,
    partials: usize,
    scratch: usize,
    scratch_size: usize,
}

impl Attention {
    fn group(&self) -> usize {
        self.n_heads / self.n_memory_heads
    }

    fn tile_tokens(&self) -> usize {
        (TILE_ROWS / self.group()).max(1)
    }

    fn n_words(&self) -> usize {
        self.n_cells.div_ceil(64)
    }

    /// Numbers of one row's result of one part: the largest score, the sum of weights, and the value.
    fn partial(&self) -> usize {
        2 + self.n_value
    }

    fn room(&self, n_threads: usize) -> Room {
        let n_units = self.n_tokens.div_ceil(self.tile_tokens()) * self.n_memory_heads;
        let n_parts = (4 * n_threads).div_ceil(n_units).min(self.n_cells.div_ceil(PART_CELLS));
        let n_parts = if n_units >= 4 * n_threads { 1 } else { n_parts.max(1) };
        let line = |bytes: usize| bytes.next_multiple_of(64);
        let partials = line(self.n_tokens * self.n_words() * 8);
        let n_partials = if n_parts > 1 { n_parts * self.n_tokens * self.n_heads } else { 0 };
        Room {
            n_parts,
            partials,
            scratch: partials + line(n_partials * self.partial() * 4),
            scratch_size: line(Scratch::floats(self) * 4 + self.n_cells * 4),
        }
    }
}

/// Bytes of working memory for `n_threads`.
#[unsafe(no_mangle)]
extern "C" fn hearth_kernels_attention_size(attention: &Attention, n_threads: usize) -> usize {
    let room = attention.room(n_threads);
    // ggml does not promise that its memory begins on a cache line.
    room.scratch + n_threads * room.scratch_size + 64
}

/// One thread's share of the work.
///
/// # Safety
/// All of the pool's threads call this with the same `attention`, whose tensors are as it says, and `attention.work` has
/// the size that was asked for with this number of threads. The kernels are registered only where the processor has the
/// instructions.
#[unsafe(no_mangle)]
unsafe extern "C" fn hearth_kernels_attend(attention: &Attention, threads: &Threads) {
    let room = attention.room(threads.n);
    let n_words = attention.n_words();
    // SAFETY: the parts of the working memory lie behind one another inside the size that was asked for. Each thread writes
    // its own tokens' sets before the barrier; after it all only read them.
    unsafe {
        let work = attention.work.cast::<u8>();
        let work = work.add(work.align_offset(64));
        let sets = work.cast::<u64>();
        for token in (threads.index..attention.n_tokens).step_by(threads.n) {
            let set = std::slice::from_raw_parts_mut(sets.add(token * n_words), n_words);
            let mask = attention.mask.byte_add(token * attention.mask_stride).cast();
            live::read_mask(mask, attention.n_cells, set);
        }
        if threads.index == 0 {
            (threads.set_next)(threads.pool, i32::try_from(threads.n).unwrap_or(i32::MAX));
        }
        (threads.barrier)(threads.pool);
        let sets =
            Sets { words: std::slice::from_raw_parts(sets, attention.n_tokens * n_words), n_words };
        let partials = (room.n_parts > 1).then(|| work.add(room.partials).cast::<f32>());
        let scratch = work.add(room.scratch + threads.index * room.scratch_size);
        let mut scratch = Scratch::new(attention, scratch.cast());
        compute(attention, threads, sets, room.n_parts, partials, &mut scratch);
        if let Some(partials) = partials {
            (threads.barrier)(threads.pool);
            let n_rows = attention.n_tokens * attention.n_heads;
            for row in (threads.index..n_rows).step_by(threads.n) {
                tile::join(attention, partials, room.n_parts, row);
            }
        }
    }
}

/// Computes tiles until none is left. Units are counted over the tiles in order, with each one's memory heads and parts.
///
/// # Safety
/// As for [`hearth_kernels_attend`].
unsafe fn compute(
    attention: &Attention,
    threads: &Threads,
    sets: Sets<'_>,
    n_parts: usize,
    partials: Option<*mut f32>,
    scratch: &mut Scratch,
) {
    let per_tile = attention.n_memory_heads * n_parts;
    let mut tokens = sets.alike(0, attention.tile_tokens());
    let (mut index, mut listed) = (0, usize::MAX);
    let mut unit = threads.index;
    loop {
        while unit / per_tile > index {
            if tokens.end == attention.n_tokens {
                return;
            }
            tokens = sets.alike(tokens.end, attention.tile_tokens());
            index += 1;
        }
        if listed != index {
            scratch.list(sets, tokens.clone());
            listed = index;
        }
        let (head, part) = (unit % per_tile / n_parts, unit % n_parts);
        let tile = Tile { attention, sets, tokens: tokens.clone(), head };
        // SAFETY: promised by the caller; each unit is taken by one thread.
        unsafe {
            tile.compute(part, n_parts, partials, scratch);
            unit = usize::try_from((threads.take_next)(threads.pool, 1)).unwrap_or(usize::MAX);
        }
    }
}
