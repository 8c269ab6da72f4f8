//! `hearth.images/1`, by llama.cpp's own library mtmd.

use crate::context::LlamaContext;
use crate::model::{LlamaModel, check_file};
use crate::shim::{c_string, captured, error, invalid};
use crate::threads;
use hearth_abi::author::{Context, ImageModel};
use hearth_abi::raw::{Pos, Seq};
use hearth_abi::{ImagePiece, ImageSpan, Pixels, Result, Status};
use llama_cpp_sys_2 as sys;
use std::ffi::{c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

/// `mtmd_context`
#[repr(C)]
pub(crate) struct ProjectorHandle {
    _private: [u8; 0],
}

/// `mtmd_input_chunks`
#[repr(C)]
pub(crate) struct ImageHandle {
    _private: [u8; 0],
}

/// `hearth_shim_image_piece`
#[repr(C)]
struct RawPiece {
    tokens: *const sys::llama_token,
    n_cells: usize,
    n_positions: sys::llama_pos,
}

type LogCallback = unsafe extern "C" fn(sys::ggml_log_level, *const c_char, *mut c_void);

#[rustfmt::skip]
unsafe extern "C" {
    fn hearth_shim_projector_open(path: *const c_char, model: *const sys::llama_model, n_threads: i32, projector: *mut *mut ProjectorHandle, message: *mut c_char) -> bool;
    fn hearth_shim_projector_free(projector: *mut ProjectorHandle);
    fn hearth_shim_image_new(projector: *const ProjectorHandle, rgb: *const u8, width: u32, height: u32, image: *mut *mut ImageHandle, message: *mut c_char) -> bool;
    fn hearth_shim_image_free(image: *mut ImageHandle);
    fn hearth_shim_image_size(image: *const ImageHandle) -> usize;
    fn hearth_shim_image_piece_get(image: *const ImageHandle, index: usize, piece: *mut RawPiece);
    fn hearth_shim_image_encode(projector: *mut ProjectorHandle, image: *const ImageHandle, index: usize, embeddings: *mut f32, n_floats: usize, message: *mut c_char) -> bool;
    fn hearth_shim_image_is_whole(projector: *const ProjectorHandle, image: *const ImageHandle, index: usize) -> bool;
    fn hearth_shim_image_append(projector: *const ProjectorHandle, context: *mut sys::llama_context, image: *const ImageHandle, index: usize, embeddings: *const f32, seq: sys::llama_seq_id, position: sys::llama_pos, answer: *mut i32, message: *mut c_char) -> bool;
    pub(crate) fn hearth_shim_image_log(callback: LogCallback, data: *mut c_void);
}

/// A projector that mtmd holds for one model.
#[derive(Debug)]
pub struct LlamaProjector {
    raw: NonNull<ProjectorHandle>,
    model: Arc<LlamaModel>,
}

// SAFETY: it is constant once open, but for `encode`, which the contract lets one thread call at a time.
unsafe impl Send for LlamaProjector {}
// SAFETY: as above; mtmd says of preparing an image that threads may do it at the same time.
unsafe impl Sync for LlamaProjector {}

impl Drop for LlamaProjector {
    fn drop(&mut self) {
        // SAFETY: opened once; images hold an Arc of this, and this one of the model.
        unsafe { hearth_shim_projector_free(self.raw.as_ptr()) }
    }
}

/// An image that mtmd has cut and scaled.
#[derive(Debug)]
pub struct LlamaImage {
    raw: NonNull<ImageHandle>,
    pieces: Vec<ImagePiece>,
    projector: Arc<LlamaProjector>,
}

// SAFETY: it is constant once made.
unsafe impl Send for LlamaImage {}
// SAFETY: as above.
unsafe impl Sync for LlamaImage {}

impl Drop for LlamaImage {
    fn drop(&mut self) {
        // SAFETY: made once, and the projector is still held.
        unsafe { hearth_shim_image_free(self.raw.as_ptr()) }
    }
}

impl LlamaImage {
    fn read_pieces(&self) -> Result<Vec<ImagePiece>> {
        // SAFETY: a live image.
        let n_pieces = unsafe { hearth_shim_image_size(self.raw.as_ptr()) };
        // SAFETY: the model is loaded.
        let n_embd = unsafe { sys::llama_model_n_embd_inp(self.projector.model.raw()) };
        let pieces = (0..n_pieces).map(|index| {
            let mut piece = RawPiece { tokens: std::ptr::null(), n_cells: 0, n_positions: 0 };
            // SAFETY: a live image, which has so many pieces; the out-parameter is ours.
            unsafe { hearth_shim_image_piece_get(self.raw.as_ptr(), index, &raw mut piece) };
            if !piece.tokens.is_null() {
                // SAFETY: so many tokens, which the image keeps.
                let tokens = unsafe { std::slice::from_raw_parts(piece.tokens, piece.n_cells) };
                return Ok(ImagePiece::Tokens(tokens.to_vec()));
            }
            let too_large = |_| invalid("the image is too large");
            let n_cells = u32::try_from(piece.n_cells).map_err(too_large)?;
            let n_floats = piece.n_cells.saturating_mul(n_embd.unsigned_abs() as usize);
            Ok(ImagePiece::Span(ImageSpan {
                n_cells,
                n_positions: piece.n_positions.unsigned_abs(),
                n_floats: u32::try_from(n_floats).map_err(too_large)?,
            }))
        });
        pieces.collect()
    }
}

impl ImageModel for LlamaModel {
    type Projector = LlamaProjector;
    type Image = LlamaImage;

    fn projector(self: &Arc<Self>, path: &Path, n_threads: u32) -> Result<LlamaProjector> {
        check_file(path)?;
        let c_path = c_string(path.as_os_str().as_bytes(), "the projector's path")?;
        let n_threads = threads::number(n_threads);
        let mut raw = std::ptr::null_mut();
        // SAFETY: the model is loaded; the path is NUL-terminated; the out-parameter is ours.
        let opened = captured(|message| unsafe {
            let model = self.raw().cast_const();
            hearth_shim_projector_open(c_path.as_ptr(), model, n_threads, &raw mut raw, message)
        });
        let raw = NonNull::new(raw).filter(|_| opened.is_ok()).ok_or_else(|| {
            let (path, why) = (path.display(), opened.why());
            error(Status::BadModel, format!("cannot open the projector `{path}`: {why}"))
        })?;
        Ok(LlamaProjector { raw, model: Arc::clone(self) })
    }

    fn image(projector: &Arc<LlamaProjector>, pixels: Pixels<'_>) -> Result<LlamaImage> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: an open projector; the bytes are as many as the size says; the out-parameter is ours.
        let made = captured(|message| unsafe {
            let (rgb, width, height) = (pixels.rgb().as_ptr(), pixels.width(), pixels.height());
            let projector = projector.raw.as_ptr();
            hearth_shim_image_new(projector, rgb, width, height, &raw mut raw, message)
        });
        let raw = NonNull::new(raw).filter(|_| made.is_ok()).ok_or_else(|| invalid(made.why()))?;
        let mut image = LlamaImage { raw, pieces: Vec::new(), projector: Arc::clone(projector) };
        image.pieces = image.read_pieces()?;
        Ok(image)
    }

    fn pieces(image: &LlamaImage) -> &[ImagePiece] {
        &image.pieces
    }

    fn encode(image: &LlamaImage, index: usize, embeddings: &mut [f32]) -> Result<()> {
        let (projector, raw) = (image.projector.raw.as_ptr(), image.raw.as_ptr());
        // SAFETY: both live; the piece is a span of so many floats, as the caller has checked.
        let encoded = captured(|message| unsafe {
            let (at, n_floats) = (embeddings.as_mut_ptr(), embeddings.len());
            hearth_shim_image_encode(projector, raw, index, at, n_floats, message)
        });
        if encoded.is_ok() { Ok(()) } else { Err(error(Status::Failed, encoded.why())) }
    }

    fn append(
        context: &mut LlamaContext,
        image: &LlamaImage,
        index: usize,
        embeddings: &[f32],
        seq: Seq,
        position: Pos,
    ) -> Result<()> {
        if !Arc::ptr_eq(&image.projector.model, context.model()) {
            return Err(invalid("the image is for another model"));
        }
        let Some(ImagePiece::Span(span)) = image.pieces.get(index).cloned() else {
            return Err(invalid("the piece is no span"));
        };
        let (projector, raw) = (image.projector.raw.as_ptr(), image.raw.as_ptr());
        // SAFETY: both live, and the piece is there.
        let is_whole = unsafe { hearth_shim_image_is_whole(projector, raw, index) };
        let most = context.info().n_ubatch;
        if is_whole && span.n_cells > most {
            return Err(error(
                Status::Unsupported,
                format!("it takes {} cells at once, and a batch has {most}", span.n_cells),
            ));
        }
        context.append_image(seq, position, span, |context, answer, message| {
            // SAFETY: all live; the embeddings are as long as the span, as the caller has checked.
            unsafe {
                let at = embeddings.as_ptr();
                hearth_shim_image_append(
                    projector, context, raw, index, at, seq, position, answer, message,
                )
            }
        })
    }
}
