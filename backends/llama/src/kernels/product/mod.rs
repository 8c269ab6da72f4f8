//! Products of quantized weights and tokens.
//!
//! ggml computes most quantized products of x86 by one dot product per weight row and token; only some types have kernels
//! that keep several rows and tokens in registers, and those use 256-bit instructions. Here sixteen rows stand side by side
//! ([`tile`]), so that one instruction multiplies four weights of each with four numbers of a token, and up to twelve
//! tokens share what was unpacked ([`run`]). Tokens are rounded to eight bits in blocks of 32, as ggml does
//! ([`activations`]).
//!
//! Tensors of the types in [`Format`] are rearranged when they are loaded.

mod activations;
mod run;
mod tile;

#[cfg(test)]
mod tests;

use activations::Rows;
use llama_cpp_sys_2 as sys;

/// Rows of weights in a tile: the 32-bit lanes of a register.
const LANES: usize = 16;

/// The quantizations with a kernel here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

impl Format {
    /// None for what ggml should keep.
    fn of(kind: sys::ggml_type) -> Option<Self> {
        Some(match kind {
            sys::GGML_TYPE_Q4_0 => Self::Q4_0,
            sys::GGML_TYPE_Q4_1 => Self::Q4_1,
            sys::GGML_TYPE_Q5_0 => Self::Q5_0,
            sys::GGML_TYPE_Q5_1 => Self::Q5_1,
            sys::GGML_TYPE_Q8_0 => Self::Q8_0,
            sys::GGML_TYPE_Q4_K => Self::Q4K,
            sys::GGML_TYPE_Q5_K => Self::Q5K,
            sys::GGML_TYPE_Q6_K => Self::Q6K,
            _ => return None,
        })
    }

    /// Weights in one of ggml's blocks.
    fn block(self) -> usize {
        match self {
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
            _ => 32,
        }
    }
}

/// A product as ggml asks for it.
#[repr(C)]
#[derive(Debug)]
struct Product {
    format: sys::ggml_type,
    /// Weights in a row.
    n_weights: usize,
    /// Rows of weights.
    n_rows: usize,
    n_tokens: usize,
    weights: *const u8,
    /// Where the tokens stand rounded.
    tokens: *mut u8,
    out: *mut f32,
}

impl Product {
    fn format(&self) -> Format {
        Format::of(self.format).expect("the shim asked before")
    }

    fn rows(&self) -> Rows {
        Rows::new(self.format(), self.n_weights, self.n_tokens)
    }
}

/// Bytes of a tensor in tiles, or 0 if it stays with ggml.
#[unsafe(no_mangle)]
extern "C" fn hearth_kernels_packed_size(
    kind: sys::ggml_type,
    n_weights: usize,
    n_rows: usize,
) -> usize {
    match Format::of(kind) {
        Some(format)
            if n_weights.is_multiple_of(format.block()) && n_rows.is_multiple_of(LANES) =>
        {
            n_rows / LANES * tile::size(format, n_weights)
        }
        _ => 0,
    }
}

/// Rearranges a whole tensor.
///
/// # Safety
/// `from` is a tensor of this type and size in ggml's layout, and `to` has room for its tiles.
#[unsafe(no_mangle)]
unsafe extern "C" fn hearth_kernels_pack(
    kind: sys::ggml_type,
    n_weights: usize,
    n_rows: usize,
    from: *const u8,
    to: *mut u8,
) {
    let format = Format::of(kind).expect("the shim asked before");
    let row_bytes = n_weights / format.block() * tile::block_bytes(format);
    let tile_bytes = tile::size(format, n_weights);
    // SAFETY: promised by the caller.
    let (from, to) = unsafe {
        (
            std::slice::from_raw_parts(from, n_rows * row_bytes),
            std::slice::from_raw_parts_mut(to, n_rows / LANES * tile_bytes),
        )
    };
    for (rows, tile) in from.chunks_exact(LANES * row_bytes).zip(to.chunks_exact_mut(tile_bytes)) {
        tile::pack(format, rows, tile);
    }
}

/// Bytes that [`hearth_kernels_round`] writes for all tokens together.
#[unsafe(no_mangle)]
extern "C" fn hearth_kernels_rounded_size(
    kind: sys::ggml_type,
    n_weights: usize,
    n_tokens: usize,
) -> usize {
    let format = Format::of(kind).expect("the shim asked before");
    Rows::new(format, n_weights, n_tokens).size()
}

/// Rounds one token to eight bits.
///
/// # Safety
/// `token` has `n_weights` numbers, `product.tokens` the room that was asked for, and no other thread writes this token.
#[unsafe(no_mangle)]
unsafe extern "C" fn hearth_kernels_round(product: &Product, index: usize, token: *const f32) {
    let rows = product.rows();
    // SAFETY: promised by the caller; the kernels are registered only where the processor has the instructions.
    unsafe { activations::round(product.format(), &rows, index, token, product.tokens) }
}

/// Multiplies the tiles from `start` to `end` with all tokens, which are rounded.
///
/// # Safety
/// The pointers are as [`Product`] says, and no other thread computes these tiles.
#[unsafe(no_mangle)]
unsafe extern "C" fn hearth_kernels_multiply(product: &Product, start: usize, end: usize) {
    let rows = product.rows();
    let tile_bytes = tile::size(product.format(), product.n_weights);
    for tile in start..end {
        for panel in rows.panels() {
            let kernel = run::kernel(product.format(), panel.n);
            // SAFETY: the tile, the panel and the numbers of `out` are inside what the caller promised; the kernels are
            // registered only where the processor has the instructions.
            unsafe {
                kernel(
                    product.weights.add(tile * tile_bytes),
                    product.n_weights,
                    product.tokens.add(panel.offset),
                    product.out.add(panel.first * product.n_rows + tile * LANES),
                    product.n_rows,
                );
            }
        }
    }
}
