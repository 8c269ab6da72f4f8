//! `hearth.images/1`: what is seen in an image is a fixed function of its pixels and the projector.
//!
//! An image is `[`, a span and `]`; a wide one has a second span behind a `|`. What is seen lies in the memory as numbers below
//! zero, two at a position, as with models for which an image is wide and not long.

use crate::context::ReferenceContext;
use crate::gguf;
use crate::model::{ReferenceModel, error, settings_of};
use crate::text::{Entry, mix};
use hearth_abi::author::ImageModel;
use hearth_abi::raw::{Pos, Seq, Token};
use hearth_abi::{ImagePiece, ImageSpan, Pixels, Result, Status};
use std::path::Path;
use std::sync::Arc;

/// Cells at one position.
const AT_ONE_POSITION: usize = 2;
/// An image is not larger to a side.
const MOST_PIXELS: u32 = 4096;
/// Numbers up to here are whole in a `f32`.
const FLOAT_BITS: u32 = 24;

#[derive(Debug)]
pub(crate) struct ReferenceImage {
    pieces: Vec<ImagePiece>,
    /// For each piece, unless it is tokens.
    seen: Vec<Vec<Token>>,
}

pub(crate) fn is_seen(token: Token) -> bool {
    token < 0
}

/// The positions of tokens, and of what was seen between them.
pub(crate) fn positions(tokens: &[Token]) -> impl Iterator<Item = Pos> {
    let (mut next, mut n_seen) = (0, 0);
    tokens.iter().map(move |token| {
        n_seen = if is_seen(*token) { n_seen + 1 } else { 0 };
        next += Pos::from(n_seen == 0 || n_seen % AT_ONE_POSITION == 1);
        next - 1
    })
}

/// What an image is to a projector of this seed: tokens, and what is seen as numbers below zero.
pub fn seen(projector_seed: u64, pixels: Pixels<'_>) -> Vec<Token> {
    let image = ReferenceImage::new(projector_seed, pixels);
    let pieces = image.pieces.into_iter().zip(image.seen);
    pieces
        .flat_map(|(piece, seen)| match piece {
            ImagePiece::Tokens(tokens) => tokens,
            ImagePiece::Span(_) => seen,
        })
        .collect()
}

impl ReferenceImage {
    fn new(seed: u64, pixels: Pixels<'_>) -> Self {
        let size = (u64::from(pixels.width()) << 32) | u64::from(pixels.height());
        let hash = pixels
            .rgb()
            .iter()
            .fold(mix(seed ^ mix(size)), |hash, byte| mix(hash ^ u64::from(*byte)));
        let mut image = Self { pieces: Vec::new(), seen: Vec::new() };
        image.tokens(b'[');
        image.span(mix(hash));
        if pixels.width() > 2 * pixels.height() {
            image.tokens(b'|');
            image.span(mix(hash ^ 1));
        }
        image.tokens(b']');
        image
    }

    fn tokens(&mut self, byte: u8) {
        self.pieces.push(ImagePiece::Tokens(vec![byte.into()]));
        self.seen.push(Vec::new());
    }

    fn span(&mut self, hash: u64) {
        let one = |at: u64| -1 - Token::try_from(mix(hash ^ at) >> (64 - FLOAT_BITS)).unwrap_or(0);
        let seen: Vec<Token> = (0..5 + hash % 8).map(one).collect();
        let n_cells = u32::try_from(seen.len()).unwrap_or(u32::MAX);
        let n_positions = n_cells.div_ceil(2);
        self.pieces.push(ImagePiece::Span(ImageSpan { n_cells, n_positions, n_floats: n_cells }));
        self.seen.push(seen);
    }
}

impl ImageModel for ReferenceModel {
    type Projector = u64;
    type Image = ReferenceImage;

    fn projector(self: &Arc<Self>, path: &Path, _n_threads: u32) -> Result<u64> {
        let settings = settings_of(&gguf::read(path)?)?;
        settings
            .projector_seed
            .ok_or_else(|| error(Status::BadModel, format!("`{}` is no projector", path.display())))
    }

    fn image(projector: &Arc<u64>, pixels: Pixels<'_>) -> Result<ReferenceImage> {
        if pixels.width().max(pixels.height()) > MOST_PIXELS {
            let what = format!("an image may have {MOST_PIXELS} pixels to a side");
            return Err(error(Status::InvalidArgument, what));
        }
        Ok(ReferenceImage::new(**projector, pixels))
    }

    fn pieces(image: &ReferenceImage) -> &[ImagePiece] {
        &image.pieces
    }

    fn encode(image: &ReferenceImage, index: usize, embeddings: &mut [f32]) -> Result<()> {
        for (embedding, token) in embeddings.iter_mut().zip(&image.seen[index]) {
            #[allow(clippy::cast_precision_loss)] // They have no more bits than a f32.
            let number = *token as f32;
            *embedding = number;
        }
        Ok(())
    }

    fn append(
        context: &mut ReferenceContext,
        _image: &ReferenceImage,
        _index: usize,
        embeddings: &[f32],
        seq: Seq,
        position: Pos,
    ) -> Result<()> {
        #[allow(clippy::cast_possible_truncation)] // As they were made.
        let seen: Vec<Token> = embeddings.iter().map(|embedding| *embedding as Token).collect();
        if !seen.iter().copied().all(is_seen) {
            return Err(error(Status::InvalidArgument, "nobody can have seen this"));
        }
        let entries = positions(&seen).zip(&seen);
        let entries: Vec<Entry> =
            entries.map(|(pos, token)| Entry { pos, token: *token, salt: 0 }).collect();
        context.append_seen(seq, &entries, position)
    }
}
