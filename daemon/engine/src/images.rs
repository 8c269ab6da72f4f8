//! Images in a prompt: spans of embeddings, which lie among the tokens as numbers below zero.
//!
//! Each cell of a span has a number in all books (the sequence's, the cache's, the archive's) as each token has, made of the
//! hash of its image. So what finds a prefix of tokens finds one with images: the same image has the same numbers, and another
//! one others. The lowest bits say where the number stands in its span, so that nothing else has to be remembered of it.
//!
//! **Invariant.** Books begin and end outside of spans.

use hearth_abi::host::{Context, Image};
use hearth_abi::raw::{Pos, Seq, Token};
use hearth_abi::{ImagePiece, PluginError};
use std::ops::Range;
use std::sync::Arc;

/// Numbers are below zero.
const SIGN: u32 = 1 << 31;
/// The last cell of its span.
const LAST: u32 = 1;
/// What follows stands at the next position.
const ADVANCES: u32 = 2;

/// One span of an image, as a prompt has it.
#[derive(Debug, Clone)]
pub struct Span {
    image: Arc<Image>,
    index: usize,
    tokens: Arc<[Token]>,
}

impl Span {
    /// The piece `index` of an image, if that is a span. `hash` is of all that decides what the model sees: two images with the
    /// same one are the same.
    pub fn new(image: &Arc<Image>, index: usize, hash: &[u8; 32]) -> Option<Self> {
        let Some(ImagePiece::Span(span)) = image.pieces().get(index) else { return None };
        let salt = u32::try_from(index).unwrap_or(u32::MAX).wrapping_mul(0x9e37_79b9);
        let words = hash.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word) ^ salt);
        let number = |(at, word): (u32, u32)| {
            let last = if at + 1 == span.n_cells { LAST } else { 0 };
            let advances = if at < span.n_positions { ADVANCES } else { 0 };
            (word & !(LAST | ADVANCES) | SIGN | last | advances).cast_signed()
        };
        let tokens = (0..span.n_cells).zip(words.cycle()).map(number).collect();
        Some(Self { image: Arc::clone(image), index, tokens })
    }

    /// What stands for it among a prompt's tokens.
    pub fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    pub(crate) fn encode(&self) -> Result<Vec<f32>, PluginError> {
        self.image.encode(self.index)
    }

    pub(crate) fn append(
        &self,
        context: &mut Context,
        embeddings: &[f32],
        seq: Seq,
        position: Pos,
    ) -> Result<(), PluginError> {
        context.append(&self.image, self.index, embeddings, seq, position)
    }
}

/// It is a token of the vocabulary's.
pub(crate) fn is_text(token: Token) -> bool {
    token >= 0
}

/// Something ends in the middle of a span.
pub(crate) fn is_cut(tokens: &[Token]) -> bool {
    tokens.last().is_some_and(|last| !is_text(*last) && last.cast_unsigned() & LAST == 0)
}

/// Positions that tokens and spans take.
pub(crate) fn n_positions(tokens: &[Token]) -> usize {
    tokens.iter().filter(|token| is_text(**token) || token.cast_unsigned() & ADVANCES != 0).count()
}

/// The longest beginning of at most `len` that cuts no span.
pub(crate) fn whole(tokens: &[Token], mut len: usize) -> usize {
    while is_cut(&tokens[..len]) {
        len -= 1;
    }
    len
}

/// A range of tokens that becomes longer until it cuts no span.
pub fn outside_spans(tokens: &[Token], range: Range<usize>) -> Range<usize> {
    let start = whole(tokens, range.start);
    let mut end = range.end.max(start);
    while is_cut(&tokens[..end]) {
        end += 1;
    }
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A span of so many cells and positions.
    fn span(n_cells: u32, n_positions: u32) -> Vec<Token> {
        let number = |at| {
            let last = if at + 1 == n_cells { LAST } else { 0 };
            (SIGN | last | if at < n_positions { ADVANCES } else { 0 }).cast_signed()
        };
        (0..n_cells).map(number).collect()
    }

    #[test]
    fn nothing_ends_inside_of_a_span() {
        let tokens = [vec![1, 2], span(3, 2), span(2, 2), vec![3]].concat();
        let whole_lens: Vec<usize> = (0..=tokens.len()).map(|len| whole(&tokens, len)).collect();
        assert_eq!(whole_lens, [0, 1, 2, 2, 2, 5, 5, 7, 8]);
        let ends = |end| outside_spans(&tokens, 3..end);
        assert_eq!([ends(3), ends(4), ends(5), ends(6), ends(8)], [2..5, 2..5, 2..5, 2..7, 2..8]);
        assert_eq!(n_positions(&tokens), 2 + 2 + 2 + 1);
    }
}
