//! What a model's memory can do, told honestly, and the bytes of a saved sequence.
//!
//! llama.cpp answers true to a cut that a sliding-window cache cannot stand behind: tokens that left the window are gone,
//! and after a cut the model would quietly see less than it should. [`MemoryKind`] holds the rules that say no instead.
//! Nothing here calls llama.cpp.

use crate::shim::invalid;
use hearth_abi::Result;
use hearth_abi::raw::Pos;
use std::ops::Range;

/// What sort of memory a context has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemoryKind {
    /// None: an encoder reads a text whole, in one batch.
    None,
    /// Every token's keys and values, until removed.
    Full,
    /// Some layers forget what is more than `n_swa - 1` tokens back.
    Window { n_swa: Pos },
    /// A running state, of which only the newest is kept.
    State,
}

impl MemoryKind {
    pub(crate) fn can_roll_back(self) -> bool {
        self == Self::Full
    }

    pub(crate) fn can_copy_part(self) -> bool {
        self == Self::Full
    }

    /// A sequence whose oldest position held by every layer is `oldest` can be cut to `len` tokens and be gone on with.
    pub(crate) fn can_cut_to(self, oldest: Pos, len: Pos) -> bool {
        match self {
            Self::None | Self::State => false,
            Self::Full => true,
            // The token at `len` looks back to `len - n_swa + 1`.
            Self::Window { n_swa } => oldest <= (len - n_swa + 1).max(0),
        }
    }

    /// Positions up to `p1` can be taken out of the middle of a sequence of `len` tokens.
    pub(crate) fn can_take_out_before(self, oldest: Pos, p1: Pos, len: Pos) -> bool {
        match self {
            Self::None | Self::State => false,
            Self::Full => true,
            Self::Window { n_swa } => oldest == 0 || len - p1 >= n_swa - 1,
        }
    }
}

/// The header in front of llama.cpp's bytes, so that damage is seen before llama.cpp reads them.
/// Six words: magic, the mark of model and context, the first position and the one after the last, the payload's length, the
/// checksum of the last four.
pub(crate) const HEADER_LEN: usize = 48;

const MAGIC: [u8; 8] = *b"hearthS3";

/// Fills in the header of a buffer whose payload stands behind it, of these positions.
pub(crate) fn seal(buffer: &mut [u8], mark: u64, positions: &Range<Pos>) {
    let (header, payload) = buffer.split_at_mut(HEADER_LEN);
    let [start, end] =
        [positions.start, positions.end].map(|position| u64::from(position.unsigned_abs()));
    let words = [
        u64::from_le_bytes(MAGIC),
        mark,
        start,
        end,
        payload.len() as u64,
        checksum(payload) ^ start.rotate_left(32) ^ end,
    ];
    for (to, word) in header.chunks_exact_mut(8).zip(words) {
        to.copy_from_slice(&word.to_le_bytes());
    }
}

/// The payload of saved bytes, if they are whole and of a model with this mark, and its positions.
pub(crate) fn unseal(data: &[u8], mark: u64) -> Result<(&[u8], Range<Pos>)> {
    let damaged = || invalid("the saved sequence is damaged");
    let (header, payload) = data.split_at_checked(HEADER_LEN).ok_or_else(damaged)?;
    let word = |at: usize| u64::from_le_bytes(header[8 * at..][..8].try_into().unwrap_or_default());
    let position = |at| Pos::try_from(word(at)).map_err(|_| damaged());
    let positions = position(2)?..position(3)?;
    if header[..8] != MAGIC
        || word(4) != payload.len() as u64
        || word(5) != checksum(payload) ^ word(2).rotate_left(32) ^ word(3)
    {
        return Err(damaged());
    }
    if word(1) != mark {
        return Err(invalid(
            "the saved sequence is of another model, or of a context with another `kv_type`",
        ));
    }
    Ok((payload, positions))
}

/// A hash for finding damage, eight bytes at a time: states have hundreds of megabytes.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    let mix =
        |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    let (words, rest) = bytes.as_chunks::<8>();
    let mut hash =
        words.iter().fold(bytes.len() as u64, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    for byte in rest {
        hash = mix(hash, u64::from(*byte));
    }
    // The multiplication moves bits up only; this brings the highest ones down again.
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_cut_only_inside_what_it_holds() {
        let window = MemoryKind::Window { n_swa: 10 };
        assert!(window.can_cut_to(0, 0));
        assert!(window.can_cut_to(0, 500));
        // The token at 25 sees 16..=25.
        assert!(window.can_cut_to(16, 25));
        assert!(!window.can_cut_to(17, 25));
        assert!(!window.can_roll_back() && !window.can_copy_part());
    }

    #[test]
    fn the_middle_of_a_window_goes_if_the_tail_fills_it() {
        let window = MemoryKind::Window { n_swa: 10 };
        assert!(window.can_take_out_before(0, 30, 31));
        assert!(window.can_take_out_before(50, 40, 60));
        assert!(!window.can_take_out_before(50, 52, 60));
    }

    #[test]
    fn full_memory_can_all_and_a_state_nothing() {
        assert!(MemoryKind::Full.can_cut_to(0, 7) && MemoryKind::Full.can_roll_back());
        assert!(!MemoryKind::State.can_cut_to(0, 7) && !MemoryKind::State.can_roll_back());
        assert!(!MemoryKind::None.can_take_out_before(0, 1, 2));
    }

    #[test]
    fn every_damaged_byte_is_noticed() {
        let mut saved: Vec<u8> = (0..HEADER_LEN + 37).map(|n| u8::try_from(n).unwrap()).collect();
        seal(&mut saved, 77, &(2..5));
        assert_eq!(unseal(&saved, 77).unwrap(), (&saved[HEADER_LEN..], 2..5));
        for at in 0..saved.len() {
            for bit in 0..8 {
                saved[at] ^= 1 << bit;
                assert!(unseal(&saved, 77).is_err(), "bit {bit} of byte {at}");
                saved[at] ^= 1 << bit;
            }
        }
        for len in 0..saved.len() {
            assert!(unseal(&saved[..len], 77).is_err(), "cut to {len}");
        }
        assert!(unseal(&saved, 78).unwrap_err().message.contains("another model"));
    }
}
