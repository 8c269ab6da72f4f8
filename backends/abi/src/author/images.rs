//! The C side of `hearth.images/1`, as [`shims`](super::shims) is for the rest.
//!
//! A projector's handle is a `Box<Arc<P>>`, an image's a `Box<I>`.

use super::contexts::context;
use super::shims::{check_size, guard, invalid, model, slice, struct_size};
use super::{ImageModel, Model};
use crate::raw::{self, Pos, Seq};
use crate::types::{ImagePiece, ImageSpan, Pixels, Result};
use std::ffi::{CStr, OsStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

/// `hearth.images/1` of a model type.
pub const fn images_table<M: ImageModel>() -> raw::Images {
    raw::Images {
        struct_size: struct_size::<raw::Images>(),
        projector_open: projector_open::<M>,
        projector_close: projector_close::<M>,
        image_create: image_create::<M>,
        image_destroy: image_destroy::<M>,
        piece_count: piece_count::<M>,
        piece_get: piece_get::<M>,
        encode: encode::<M>,
        append: append::<M>,
    }
}

/// # Safety
/// `handle` is null or came from this plugin's `image_create` and is not destroyed.
unsafe fn image<'a, M: ImageModel>(handle: *const raw::Image) -> Result<&'a M::Image> {
    // SAFETY: promised by the caller.
    unsafe { handle.cast::<M::Image>().as_ref() }.ok_or_else(|| invalid("the image is null"))
}

/// The span of that index, if its embeddings have this length.
fn span<M: ImageModel>(image: &M::Image, index: u32, n_floats: usize) -> Result<usize> {
    match M::pieces(image).get(index as usize) {
        Some(ImagePiece::Span(span)) if span.n_floats as usize == n_floats => Ok(index as usize),
        Some(ImagePiece::Span(_)) => Err(invalid("the embeddings have another length")),
        _ => Err(invalid("the piece is no span")),
    }
}

unsafe extern "C" fn projector_open<M: ImageModel>(
    handle: *mut raw::Model,
    path: *const c_char,
    n_threads: u32,
    projector: *mut *mut raw::Projector,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: an open model of ours; path is NUL-terminated; projector is the host's.
    unsafe {
        guard(error, || {
            let out = projector.as_mut().ok_or_else(|| invalid("null out-parameter"))?;
            *out = std::ptr::null_mut();
            if path.is_null() {
                return Err(invalid("the path is null"));
            }
            let path = Path::new(OsStr::from_bytes(CStr::from_ptr(path).to_bytes()));
            let opened = Arc::new(model::<M>(handle)?.projector(path, n_threads)?);
            *out = Box::into_raw(Box::new(opened)).cast::<raw::Projector>();
            Ok(())
        })
    }
}

unsafe extern "C" fn projector_close<M: ImageModel>(handle: *mut raw::Projector) {
    if !handle.is_null() {
        // SAFETY: projector_open made it by Box::into_raw, and the host closes it once.
        let boxed = unsafe { Box::from_raw(handle.cast::<Arc<M::Projector>>()) };
        let _ = catch_unwind(AssertUnwindSafe(|| drop(boxed)));
    }
}

unsafe extern "C" fn image_create<M: ImageModel>(
    projector: *const raw::Projector,
    rgb: *const u8,
    width: u32,
    height: u32,
    out: *mut *mut raw::Image,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: an open projector of ours; rgb has as many bytes as the size says; out is the host's.
    unsafe {
        guard(error, || {
            let out = out.as_mut().ok_or_else(|| invalid("null out-parameter"))?;
            *out = std::ptr::null_mut();
            let projector = projector.cast::<Arc<M::Projector>>().as_ref();
            let projector = projector.ok_or_else(|| invalid("the projector is null"))?;
            let n_pixels = (width as usize).checked_mul(height as usize);
            let n_bytes = n_pixels.and_then(|n| n.checked_mul(3)).unwrap_or(0);
            let pixels = Pixels::new(slice(rgb, n_bytes)?, width, height);
            let pixels = pixels.ok_or_else(|| invalid("the image has no pixels"))?;
            let created = M::image(projector, pixels)?;
            *out = Box::into_raw(Box::new(created)).cast::<raw::Image>();
            Ok(())
        })
    }
}

unsafe extern "C" fn image_destroy<M: ImageModel>(handle: *mut raw::Image) {
    if !handle.is_null() {
        // SAFETY: image_create made it by Box::into_raw, and the host destroys it once.
        let boxed = unsafe { Box::from_raw(handle.cast::<M::Image>()) };
        let _ = catch_unwind(AssertUnwindSafe(|| drop(boxed)));
    }
}

unsafe extern "C" fn piece_count<M: ImageModel>(handle: *const raw::Image) -> u32 {
    // SAFETY: an image of ours.
    let n_pieces = unsafe { image::<M>(handle) }.map_or(0, |image| M::pieces(image).len());
    u32::try_from(n_pieces).unwrap_or(u32::MAX)
}

unsafe extern "C" fn piece_get<M: ImageModel>(
    handle: *const raw::Image,
    index: u32,
    piece: *mut raw::ImagePiece,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: an image of ours; piece is the host's.
    unsafe {
        guard(error, || {
            let target = piece.as_mut().ok_or_else(|| invalid("the piece is null"))?;
            check_size(target.struct_size, struct_size::<raw::ImagePiece>())?;
            let found = M::pieces(image::<M>(handle)?).get(index as usize);
            let (span, tokens) = match found.ok_or_else(|| invalid("there is no such piece"))? {
                ImagePiece::Span(span) => (*span, std::ptr::null()),
                ImagePiece::Tokens(tokens) => {
                    let n_cells = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
                    (ImageSpan { n_cells, n_positions: n_cells, n_floats: 0 }, tokens.as_ptr())
                }
            };
            target.n_cells = span.n_cells;
            target.n_positions = span.n_positions;
            target.n_floats = span.n_floats;
            target.tokens = tokens;
            Ok(())
        })
    }
}

unsafe extern "C" fn encode<M: ImageModel>(
    handle: *const raw::Image,
    index: u32,
    embeddings: *mut f32,
    n_floats: usize,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: an image of ours, on the engine thread; embeddings has room for n_floats.
    unsafe {
        guard(error, || {
            let image = image::<M>(handle)?;
            let index = span::<M>(image, index, n_floats)?;
            if embeddings.is_null() {
                return Err(invalid("the embeddings are null"));
            }
            // The host's room may never have been written; a &mut [f32] over it must not expose that.
            embeddings.write_bytes(0, n_floats);
            M::encode(image, index, std::slice::from_raw_parts_mut(embeddings, n_floats))
        })
    }
}

unsafe extern "C" fn append<M: ImageModel>(
    handle: *mut raw::Context,
    of: *const raw::Image,
    index: u32,
    embeddings: *const f32,
    n_floats: usize,
    seq: Seq,
    position: Pos,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: a context and an image of ours, on the engine thread; embeddings has n_floats entries.
    unsafe {
        guard(error, || {
            let image = image::<M>(of)?;
            let index = span::<M>(image, index, n_floats)?;
            let context = context::<<M as Model>::Context>(handle)?;
            M::append(context, image, index, slice(embeddings, n_floats)?, seq, position)
        })
    }
}
