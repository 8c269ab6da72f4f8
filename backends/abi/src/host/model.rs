//! An open model: facts, metadata, tokens and text. Everything here is [any-thread] in the header.

use super::{Context, Plugin, call, filled, struct_size, text_at, text_of};
use crate::raw::{self, Token};
use crate::types::{ContextConfig, ModelInfo, OpenParams, Piece, PluginError, Result, Status};
use smallvec::SmallVec;
use std::ffi::{CString, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::ptr::NonNull;
use std::sync::Arc;

/// An open model of a plugin.
#[derive(Debug)]
pub struct Model {
    handle: NonNull<raw::Model>,
    info: ModelInfo,
    plugin: Arc<Plugin>,
}

// SAFETY: the calls made through `&Model` are tagged [any-thread]; opening and closing are one thread's.
unsafe impl Send for Model {}
// SAFETY: as above.
unsafe impl Sync for Model {}

impl Model {
    /// Opens a model. `progress` gets 0.0 to 1.0 and answers false to cancel.
    pub fn open(
        plugin: &Arc<Plugin>,
        params: &OpenParams,
        progress: &mut dyn FnMut(f32) -> bool,
    ) -> Result<Arc<Self>> {
        let path = CString::new(params.path.as_os_str().as_bytes()).map_err(|_| {
            PluginError::new(Status::InvalidArgument, "the model's path has a NUL in it")
        })?;
        let mut progress = progress;
        let raw_params = raw::ModelParams {
            struct_size: struct_size::<raw::ModelParams>(),
            n_gpu_layers: params.n_gpu_layers.map_or(-1, |n| i32::try_from(n).unwrap_or(i32::MAX)),
            path: path.as_ptr(),
            use_mmap: params.use_mmap,
            use_mlock: params.use_mlock,
            vocab_only: params.vocab_only,
            progress: Some(take_progress),
            progress_data: (&raw mut progress).cast::<c_void>(),
            with_mtp: params.with_mtp,
        };
        let mut handle = std::ptr::null_mut();
        // SAFETY: the plugin is initialised; params, path and the progress closure outlive the call.
        call(|error| unsafe {
            (plugin.entry().model_open)(&raw const raw_params, &raw mut handle, error)
        })?;
        let handle = NonNull::new(handle)
            .ok_or_else(|| PluginError::new(Status::Failed, "the plugin opened no model"))?;
        let plugin = Arc::clone(plugin);
        // Made before asking for facts, so that a failure there closes the model.
        let mut model = Self { handle, info: empty_info(), plugin };
        model.info = model.read_info()?;
        Ok(Arc::new(model))
    }

    fn read_info(&self) -> Result<ModelInfo> {
        let mut info = raw::ModelInfo {
            struct_size: struct_size::<raw::ModelInfo>(),
            capabilities: 0,
            n_vocab: 0,
            n_ctx_train: 0,
            n_embd: 0,
            n_layer: 0,
            n_params: 0,
            size_bytes: 0,
            bos_token: -1,
            eos_token: -1,
            add_bos: false,
            architecture: [0; 64],
            description: [0; 128],
        };
        // SAFETY: the handle is open until Drop; info is ours.
        call(|error| unsafe { (self.entry().model_info)(self.raw(), &raw mut info, error) })?;
        let has = |bit| info.capabilities & bit != 0;
        Ok(ModelInfo {
            can_generate: has(raw::MODEL_CAN_GENERATE),
            can_embed: has(raw::MODEL_CAN_EMBED),
            has_chat_template: has(raw::MODEL_HAS_CHAT_TEMPLATE),
            n_vocab: info.n_vocab,
            n_ctx_train: info.n_ctx_train,
            n_embd: info.n_embd,
            n_layer: info.n_layer,
            n_params: info.n_params,
            size_bytes: info.size_bytes,
            bos_token: (info.bos_token >= 0).then_some(info.bos_token),
            eos_token: (info.eos_token >= 0).then_some(info.eos_token),
            add_bos: info.add_bos,
            architecture: text_of(&info.architecture),
            description: text_of(&info.description),
        })
    }

    pub(crate) fn raw(&self) -> *mut raw::Model {
        self.handle.as_ptr()
    }

    pub(crate) fn entry(&self) -> &'static raw::Plugin {
        self.plugin.entry()
    }

    /// The plugin it belongs to.
    pub fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    /// What it is.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// The file's metadata, in file order.
    pub fn meta(&self) -> Result<Vec<(String, String)>> {
        // SAFETY: the handle is open.
        let count = unsafe { (self.entry().model_meta_count)(self.raw()) };
        (0..count)
            .map(|index| {
                let (mut key, mut value) = (std::ptr::null(), std::ptr::null());
                // SAFETY: the handle is open; both strings live as long as it, and are copied at once.
                unsafe {
                    call(|error| {
                        (self.entry().model_meta)(
                            self.raw(),
                            index,
                            &raw mut key,
                            &raw mut value,
                            error,
                        )
                    })?;
                    Ok((text_at(key), text_at(value)))
                }
            })
            .collect()
    }

    /// Text to tokens. `add_special` adds BOS and the like; `parse_special` reads spelled-out control tokens as such.
    pub fn tokenize(
        &self,
        text: &str,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<Token>> {
        // No tokenizer makes more tokens than bytes, but for the special ones it adds.
        let tokens = filled(text.len() + 8, |tokens, capacity, n_out, error| {
            // SAFETY: the handle is open; text and tokens have the lengths given.
            unsafe {
                (self.entry().tokenize)(
                    self.raw(),
                    text.as_ptr().cast::<c_char>(),
                    text.len(),
                    add_special,
                    parse_special,
                    tokens,
                    capacity,
                    n_out,
                    error,
                )
            }
        });
        tokens.map(SmallVec::into_vec)
    }

    /// The bytes of one token inside a text, perhaps part of a character.
    pub fn token_piece(&self, token: Token, special: bool) -> Result<Piece> {
        filled::<u8>(32, |buffer, capacity, n_out, error| {
            // SAFETY: the handle is open; the buffer has the capacity given.
            unsafe {
                (self.entry().token_piece)(
                    self.raw(),
                    token,
                    special,
                    buffer.cast::<c_char>(),
                    capacity,
                    n_out,
                    error,
                )
            }
        })
    }

    /// Tokens to the text they came from.
    pub fn detokenize(&self, tokens: &[Token], special: bool) -> Result<Vec<u8>> {
        let text = filled::<u8>(tokens.len() * 8 + 32, |buffer, capacity, n_out, error| {
            // SAFETY: the handle is open; tokens and buffer have the lengths given.
            unsafe {
                (self.entry().detokenize)(
                    self.raw(),
                    tokens.as_ptr(),
                    tokens.len(),
                    special,
                    buffer.cast::<c_char>(),
                    capacity,
                    n_out,
                    error,
                )
            }
        });
        text.map(SmallVec::into_vec)
    }

    /// Generating this token ends the text.
    pub fn token_is_end(&self, token: Token) -> bool {
        // SAFETY: the handle is open.
        unsafe { (self.entry().token_is_end)(self.raw(), token) }
    }

    /// Creates KV memory.
    pub fn context(self: &Arc<Self>, config: &ContextConfig) -> Result<Context> {
        Context::create(self, config)
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: opened once, and contexts, grammars and adapters hold an Arc of this, so none is left.
        unsafe { (self.entry().model_close)(self.raw()) }
    }
}

fn empty_info() -> ModelInfo {
    ModelInfo {
        can_generate: false,
        can_embed: false,
        has_chat_template: false,
        n_vocab: 0,
        n_ctx_train: 0,
        n_embd: 0,
        n_layer: 0,
        n_params: 0,
        size_bytes: 0,
        bos_token: None,
        eos_token: None,
        add_bos: false,
        architecture: String::new(),
        description: String::new(),
    }
}

unsafe extern "C" fn take_progress(progress_data: *mut c_void, fraction: f32) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        // SAFETY: progress_data is the closure reference that `open` keeps on its stack during the call.
        let progress = unsafe { &mut *progress_data.cast::<&mut dyn FnMut(f32) -> bool>() };
        progress(fraction.clamp(0.0, 1.0))
    }))
    .unwrap_or(false)
}
