//! `hearth.images/1`

use super::{Context, Error, Image, Model, Pos, Projector, RawStatus, Seq, Token};
use std::ffi::{CStr, c_char};

/// `HEARTH_EXT_IMAGES`
pub const EXT_IMAGES: &CStr = c"hearth.images/1";

/// `hearth_image_piece_t`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // The header documents every member.
pub struct ImagePiece {
    pub struct_size: u32,
    pub n_cells: u32,
    pub n_positions: u32,
    pub n_floats: u32,
    pub tokens: *const Token,
}

/// `hearth_images_t`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // The header documents every member.
pub struct Images {
    pub struct_size: u32,
    pub projector_open: unsafe extern "C" fn(
        model: *mut Model,
        path: *const c_char,
        n_threads: u32,
        projector: *mut *mut Projector,
        error: *mut Error,
    ) -> RawStatus,
    pub projector_close: unsafe extern "C" fn(projector: *mut Projector),
    pub image_create: unsafe extern "C" fn(
        projector: *const Projector,
        rgb: *const u8,
        width: u32,
        height: u32,
        image: *mut *mut Image,
        error: *mut Error,
    ) -> RawStatus,
    pub image_destroy: unsafe extern "C" fn(image: *mut Image),
    pub piece_count: unsafe extern "C" fn(image: *const Image) -> u32,
    pub piece_get: unsafe extern "C" fn(
        image: *const Image,
        index: u32,
        piece: *mut ImagePiece,
        error: *mut Error,
    ) -> RawStatus,
    pub encode: unsafe extern "C" fn(
        image: *const Image,
        index: u32,
        embeddings: *mut f32,
        n_floats: usize,
        error: *mut Error,
    ) -> RawStatus,
    pub append: unsafe extern "C" fn(
        context: *mut Context,
        image: *const Image,
        index: u32,
        embeddings: *const f32,
        n_floats: usize,
        seq: Seq,
        position: Pos,
        error: *mut Error,
    ) -> RawStatus,
}
