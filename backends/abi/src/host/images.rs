//! The host's side of `hearth.images/1`.

use super::{Context, Model, call, struct_size};
use crate::raw::{self, Pos, Seq};
use crate::types::{ImagePiece, ImageSpan, Pixels, PluginError, Result, Status};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

fn broken(message: &str) -> PluginError {
    PluginError::new(Status::Failed, message)
}

/// What makes embeddings of images for one model.
#[derive(Debug)]
pub struct Projector {
    handle: NonNull<raw::Projector>,
    table: &'static raw::Images,
    /// Held while it computes.
    encoding: Mutex<()>,
    model: Arc<Model>,
}

// SAFETY: it is constant once open, but for `encode`, which the mutex lets one thread call at a time.
unsafe impl Send for Projector {}
// SAFETY: as above.
unsafe impl Sync for Projector {}

impl Model {
    /// Opens a projector, which computes with so many threads; 0: it chooses.
    pub fn projector(self: &Arc<Self>, path: &Path, n_threads: u32) -> Result<Arc<Projector>> {
        let table: &'static raw::Images =
            self.plugin().extension(raw::EXT_IMAGES).ok_or_else(|| {
                PluginError::new(Status::Unsupported, "this backend cannot read images")
            })?;
        let path = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| PluginError::new(Status::InvalidArgument, "the path has a NUL in it"))?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the model is open and the path NUL-terminated.
        call(|error| unsafe {
            (table.projector_open)(self.raw(), path.as_ptr(), n_threads, &raw mut handle, error)
        })?;
        let handle =
            NonNull::new(handle).ok_or_else(|| broken("the plugin opened no projector"))?;
        let model = Arc::clone(self);
        Ok(Arc::new(Projector { handle, table, encoding: Mutex::new(()), model }))
    }
}

impl Projector {
    /// Cuts and scales an image.
    pub fn image(self: &Arc<Self>, pixels: Pixels<'_>) -> Result<Image> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: an open projector; the bytes are as many as the size says.
        call(|error| unsafe {
            (self.table.image_create)(
                self.handle.as_ptr(),
                pixels.rgb().as_ptr(),
                pixels.width(),
                pixels.height(),
                &raw mut handle,
                error,
            )
        })?;
        let handle = NonNull::new(handle).ok_or_else(|| broken("the plugin made no image"))?;
        let mut image = Image { handle, pieces: Vec::new(), projector: Arc::clone(self) };
        image.pieces = image.read_pieces()?;
        Ok(image)
    }
}

impl Drop for Projector {
    fn drop(&mut self) {
        // SAFETY: opened once; images keep an Arc of it, and it keeps one of the model.
        unsafe { (self.table.projector_close)(self.handle.as_ptr()) }
    }
}

/// An image, ready for its prompt.
#[derive(Debug)]
pub struct Image {
    handle: NonNull<raw::Image>,
    pieces: Vec<ImagePiece>,
    projector: Arc<Projector>,
}

// SAFETY: an image is constant once made.
unsafe impl Send for Image {}
// SAFETY: as above.
unsafe impl Sync for Image {}

impl Image {
    /// What it is in a prompt.
    pub fn pieces(&self) -> &[ImagePiece] {
        &self.pieces
    }

    fn read_pieces(&self) -> Result<Vec<ImagePiece>> {
        // SAFETY: a live image.
        let n_pieces = unsafe { (self.projector.table.piece_count)(self.handle.as_ptr()) };
        (0..n_pieces).map(|index| self.read_piece(index)).collect()
    }

    fn read_piece(&self, index: u32) -> Result<ImagePiece> {
        let mut piece = raw::ImagePiece {
            struct_size: struct_size::<raw::ImagePiece>(),
            n_cells: 0,
            n_positions: 0,
            n_floats: 0,
            tokens: std::ptr::null(),
        };
        // SAFETY: a live image; the piece is ours.
        call(|error| unsafe {
            (self.projector.table.piece_get)(self.handle.as_ptr(), index, &raw mut piece, error)
        })?;
        let raw::ImagePiece { n_cells, n_positions, n_floats, tokens, .. } = piece;
        if n_cells == 0 || n_positions == 0 || n_positions > n_cells {
            return Err(broken("the plugin made a piece of an image of an impossible size"));
        }
        if tokens.is_null() {
            return Ok(ImagePiece::Span(ImageSpan { n_cells, n_positions, n_floats }));
        }
        // SAFETY: n_cells tokens, which the image keeps.
        let tokens = unsafe { std::slice::from_raw_parts(tokens, n_cells as usize) };
        let n_vocab = self.projector.model.info().n_vocab;
        if tokens.iter().all(|token| u32::try_from(*token).is_ok_and(|token| token < n_vocab)) {
            return Ok(ImagePiece::Tokens(tokens.to_vec()));
        }
        Err(broken("the plugin put something around an image that is no token"))
    }

    /// Computes the embeddings of a span.
    pub fn encode(&self, index: usize) -> Result<Vec<f32>> {
        let n_floats = match self.pieces.get(index) {
            Some(ImagePiece::Span(span)) => span.n_floats as usize,
            _ => 0,
        };
        let mut embeddings = vec![0.0; n_floats];
        let _alone = self.projector.encoding.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: a live image; the embeddings have room for n_floats; the lock makes it the one call.
        call(|error| unsafe {
            let (image, at) = (self.handle.as_ptr(), embeddings.as_mut_ptr());
            (self.projector.table.encode)(image, number(index), at, n_floats, error)
        })?;
        Ok(embeddings)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // SAFETY: created once, and the projector is still open.
        unsafe { (self.projector.table.image_destroy)(self.handle.as_ptr()) }
    }
}

impl Context {
    /// Appends a span of an image to a sequence whose length is `position`.
    pub fn append(
        &mut self,
        image: &Image,
        index: usize,
        embeddings: &[f32],
        seq: Seq,
        position: Pos,
    ) -> Result<()> {
        if !Arc::ptr_eq(&image.projector.model, self.model()) {
            return Err(PluginError::new(
                Status::InvalidArgument,
                "the image is for another model",
            ));
        }
        let (table, raw) = (image.projector.table, self.raw());
        // SAFETY: a live context and a live image of its model; the embeddings have the length given.
        call(|error| unsafe {
            (table.append)(
                raw,
                image.handle.as_ptr(),
                number(index),
                embeddings.as_ptr(),
                embeddings.len(),
                seq,
                position,
                error,
            )
        })
    }
}

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
