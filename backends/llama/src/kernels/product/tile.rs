//! Sixteen rows of weights side by side.
//!
//! A tile has the numbers of all its blocks, and after them all their scales, so that both stand on cache lines. Numbers keep
//! ggml's packing inside each row: what changes place are whole 32-bit words, word `i` of all sixteen rows being one register.
//! The fifth bits of Q5 types are the exception: one mask register holds those of a group, four weights of each row.

use super::{Format, LANES};

/// Bytes of a register.
pub(super) const REGISTER: usize = 4 * LANES;
/// Bytes of sixteen half-precision numbers.
pub(super) const HALVES: usize = 2 * LANES;

/// Runs of 32 weights in a block of Q4_K and Q5_K, each with a scale and a minimum.
const RUNS_4K: usize = 8;
/// Runs of 16 weights in a block of Q6_K, each with a scale.
const RUNS_6K: usize = 16;

/// Bytes that a block of sixteen rows takes in each part of a tile.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) numbers: usize,
    pub(super) scales: usize,
}

impl Layout {
    pub(super) const fn of(format: Format) -> Self {
        let (numbers, scales) = match format {
            Format::Q4_0 => (4 * REGISTER, HALVES),
            Format::Q4_1 => (4 * REGISTER, 2 * HALVES),
            Format::Q5_0 => (4 * REGISTER + 8 * 8, HALVES),
            Format::Q5_1 => (4 * REGISTER + 8 * 8, 2 * HALVES),
            Format::Q8_0 => (8 * REGISTER, HALVES),
            Format::Q4K => (32 * REGISTER, 2 * HALVES + 2 * RUNS_4K * LANES),
            Format::Q5K => (32 * REGISTER + 64 * 8, 2 * HALVES + 2 * RUNS_4K * LANES),
            Format::Q6K => (48 * REGISTER, HALVES + RUNS_6K * LANES),
        };
        Self { numbers, scales }
    }
}

/// Bytes of one row's block in ggml's layout.
pub(super) const fn block_bytes(format: Format) -> usize {
    match format {
        Format::Q4_0 => 18,
        Format::Q4_1 => 20,
        Format::Q5_0 => 22,
        Format::Q5_1 => 24,
        Format::Q8_0 => 34,
        Format::Q4K => 144,
        Format::Q5K => 176,
        Format::Q6K => 210,
    }
}

/// Bytes of a tile.
pub(super) fn size(format: Format, n_weights: usize) -> usize {
    let layout = Layout::of(format);
    n_weights / format.block() * (layout.numbers + layout.scales)
}

/// Rearranges sixteen rows.
pub(super) fn pack(format: Format, rows: &[u8], tile: &mut [u8]) {
    let layout = Layout::of(format);
    let row_bytes = rows.len() / LANES;
    let n_blocks = row_bytes / block_bytes(format);
    let (numbers, scales) = tile.split_at_mut(n_blocks * layout.numbers);
    let blocks =
        numbers.chunks_exact_mut(layout.numbers).zip(scales.chunks_exact_mut(layout.scales));
    for (index, (numbers, scales)) in blocks.enumerate() {
        for (lane, row) in rows.chunks_exact(row_bytes).enumerate() {
            let block = &row[index * block_bytes(format)..][..block_bytes(format)];
            pack_block(format, block, lane, numbers, scales);
        }
    }
}

/// Puts one row's block in its lane.
fn pack_block(format: Format, block: &[u8], lane: usize, numbers: &mut [u8], scales: &mut [u8]) {
    match format {
        Format::Q4_0 => {
            put_half(scales, 0, lane, &block[0..2]);
            put_words(numbers, lane, &block[2..18], 0);
        }
        Format::Q4_1 => {
            put_half(scales, 0, lane, &block[0..2]);
            put_half(scales, HALVES, lane, &block[2..4]);
            put_words(numbers, lane, &block[4..20], 0);
        }
        Format::Q5_0 => {
            put_half(scales, 0, lane, &block[0..2]);
            put_fifth_bits(numbers, lane, word(&block[2..6]));
            put_words(numbers, lane, &block[6..22], 0);
        }
        Format::Q5_1 => {
            put_half(scales, 0, lane, &block[0..2]);
            put_half(scales, HALVES, lane, &block[2..4]);
            put_fifth_bits(numbers, lane, word(&block[4..8]));
            put_words(numbers, lane, &block[8..24], 0);
        }
        Format::Q8_0 => {
            put_half(scales, 0, lane, &block[0..2]);
            // Unsigned, as the instruction wants weights.
            put_words(numbers, lane, &block[2..34], 0x8080_8080);
        }
        Format::Q4K => {
            put_scales_4k(scales, lane, &block[0..16]);
            put_words(numbers, lane, &block[16..144], 0);
        }
        Format::Q5K => {
            put_scales_4k(scales, lane, &block[0..16]);
            put_words(numbers, lane, &block[48..176], 0);
            let masks = &mut numbers[32 * REGISTER..];
            for group in 0..64 {
                // Bit `run` of four neighbours, brought together by a product without carries.
                let (run, place) = (group / 8, group % 8);
                let bits = word(&block[16 + 4 * place..][..4]) >> run & 0x0101_0101;
                put_bits(masks, group, lane, bits.wrapping_mul(0x0102_0408) >> 24);
            }
        }
        Format::Q6K => {
            put_words(numbers, lane, &block[0..192], 0);
            for run in 0..RUNS_6K {
                scales[run * LANES + lane] = block[192 + run];
            }
            put_half(scales, RUNS_6K * LANES, lane, &block[208..210]);
        }
    }
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn put_words(numbers: &mut [u8], lane: usize, words: &[u8], flip: u32) {
    for (register, bytes) in numbers.chunks_exact_mut(REGISTER).zip(words.chunks_exact(4)) {
        register[4 * lane..][..4].copy_from_slice(&(word(bytes) ^ flip).to_le_bytes());
    }
}

fn put_half(scales: &mut [u8], offset: usize, lane: usize, half: &[u8]) {
    scales[offset + 2 * lane..][..2].copy_from_slice(half);
}

/// The fifth bits of 32 weights, bit `i` for weight `i`.
fn put_fifth_bits(numbers: &mut [u8], lane: usize, bits: u32) {
    for group in 0..8 {
        put_bits(&mut numbers[4 * REGISTER..], group, lane, bits >> (4 * group));
    }
}

/// Four bits of a lane in a mask.
fn put_bits(masks: &mut [u8], group: usize, lane: usize, bits: u32) {
    let byte = &mut masks[8 * group + lane / 2];
    let shift = 4 * (lane % 2);
    *byte = *byte & !(0xf << shift) | ((bits & 0xf) as u8) << shift;
}

/// Scales and minima of six bits each, which ggml packs in twelve bytes; here each has a byte.
fn put_scales_4k(scales: &mut [u8], lane: usize, block: &[u8]) {
    put_half(scales, 0, lane, &block[0..2]);
    put_half(scales, HALVES, lane, &block[2..4]);
    let packed = &block[4..16];
    for run in 0..RUNS_4K {
        let (scale, min) = if run < 4 {
            (packed[run] & 63, packed[run + 4] & 63)
        } else {
            (
                packed[run + 4] & 15 | packed[run - 4] >> 6 << 4,
                packed[run + 4] >> 4 | packed[run] >> 6 << 4,
            )
        };
        scales[2 * HALVES + run * LANES + lane] = scale;
        scales[2 * HALVES + (RUNS_4K + run) * LANES + lane] = min;
    }
}
