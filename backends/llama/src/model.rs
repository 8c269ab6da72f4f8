//! An open model: reading the file, and the facts about it.
//!
//! The facts are gathered once, at open, by `facts`. What llama.cpp holds is constant from then on, which is why a model may be
//! called from any thread; only adapters add to it, on the main thread.

use crate::chat::Chat;
use crate::context::LlamaContext;
use crate::facts::{Traits, read_facts, read_meta};
use crate::modules::Loaded;
use crate::shim::{Captured, c_string, captured, error, hearth_shim_model_load};
use crate::tree::Tree;
use crate::vocab::Vocab;
use hearth_abi::author::Model;
use hearth_abi::raw::Token;
use hearth_abi::{ContextConfig, ModelInfo, OpenParams, Piece, PluginError, Result, Status};
use llama_cpp_sys_2 as sys;
use std::ffi::{CString, c_void};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};

/// A model that llama.cpp holds.
#[derive(Debug)]
pub struct LlamaModel {
    // Dropped by hand after `chat`, which points into it.
    raw: NonNull<sys::llama_model>,
    vocab: Vocab,
    info: ModelInfo,
    meta: Vec<(CString, CString)>,
    traits: Traits,
    is_in_main_memory: bool,
    has_mtp: bool,
    chat: OnceLock<Chat>,
    tree: OnceLock<Tree>,
}

// SAFETY: llama.cpp's model is constant after loading, but for its list of adapters, which only main-thread calls touch.
unsafe impl Send for LlamaModel {}
// SAFETY: as above.
unsafe impl Sync for LlamaModel {}

impl Drop for LlamaModel {
    fn drop(&mut self) {
        drop(self.chat.take());
        // SAFETY: loaded once; contexts, grammars and adapters hold an Arc of this, so none is left.
        unsafe { sys::llama_model_free(self.raw.as_ptr()) }
    }
}

struct Progress<'a> {
    report: &'a mut dyn FnMut(f32) -> bool,
    highest: f32,
    cancelled: bool,
}

impl Progress<'_> {
    /// llama.cpp starts again at 0 for some files; the host is promised that it never goes down.
    fn step(&mut self, fraction: f32) -> bool {
        self.highest = fraction.clamp(self.highest, 1.0);
        self.cancelled |= !(self.report)(self.highest);
        !self.cancelled
    }
}

unsafe extern "C" fn take_progress(fraction: f32, data: *mut c_void) -> bool {
    // SAFETY: data is the Progress that `open` keeps on its stack while llama.cpp loads.
    unsafe { &mut *data.cast::<Progress<'_>>() }.step(fraction)
}

fn cancelled() -> PluginError {
    error(Status::Cancelled, "opening the model was cancelled")
}

impl LlamaModel {
    pub(crate) fn open(
        params: &OpenParams,
        modules: &Loaded,
        report: &mut dyn FnMut(f32) -> bool,
    ) -> Result<Self> {
        check_file(&params.path)?;
        let path = c_string(params.path.as_os_str().as_bytes(), "the model's path")?;
        let mut progress = Progress { report, highest: 0.0, cancelled: false };
        if !progress.step(0.0) {
            return Err(cancelled());
        }
        let mut devices = modules.offload_list();
        // SAFETY: a plain function of constants.
        let mut raw_params = unsafe { sys::llama_model_default_params() };
        raw_params.devices = devices.as_mut_ptr();
        raw_params.n_gpu_layers =
            params.n_gpu_layers.map_or(-1, |n| i32::try_from(n).unwrap_or(i32::MAX));
        raw_params.load_mode = match (params.use_mmap, params.use_mlock) {
            (false, false) => sys::LLAMA_LOAD_MODE_NONE,
            (true, false) => sys::LLAMA_LOAD_MODE_MMAP,
            (false, true) => sys::LLAMA_LOAD_MODE_MLOCK,
            (true, true) => sys::LLAMA_LOAD_MODE_MMAP_MLOCK,
        };
        raw_params.vocab_only = params.vocab_only;
        raw_params.load_mtp = params.with_mtp;
        raw_params.progress_callback = Some(take_progress);
        raw_params.progress_callback_user_data = (&raw mut progress).cast::<c_void>();

        let mut raw = std::ptr::null_mut();
        // SAFETY: path, params, devices and progress outlive the call; the out-parameter is ours.
        let loaded = captured(|message| unsafe {
            hearth_shim_model_load(path.as_ptr(), &raw const raw_params, &raw mut raw, message)
        });
        let Some(raw) = NonNull::new(raw).filter(|_| loaded.is_ok()) else {
            return Err(if progress.cancelled {
                cancelled()
            } else {
                load_error(&params.path, loaded)
            });
        };
        // SAFETY: just loaded, and freed by the answer's Drop or by `read` if it fails.
        let model = unsafe { Self::read(raw, params, modules.is_cpu_only()) }?;
        if !progress.step(1.0) {
            return Err(cancelled());
        }
        Ok(model)
    }

    /// # Safety
    /// `raw` was just loaded, and is not used again by the caller.
    unsafe fn read(
        raw: NonNull<sys::llama_model>,
        params: &OpenParams,
        is_in_main_memory: bool,
    ) -> Result<Self> {
        // SAFETY: the vocabulary belongs to the model, which outlives it.
        let Some(vocab) = (unsafe { Vocab::new(sys::llama_model_get_vocab(raw.as_ptr())) }) else {
            // SAFETY: loaded, and given up here.
            unsafe { sys::llama_model_free(raw.as_ptr()) };
            return Err(error(
                Status::BadModel,
                format!("`{}` has no vocabulary", params.path.display()),
            ));
        };
        // SAFETY: the model is loaded.
        let meta = unsafe { read_meta(raw.as_ptr()) };
        let (info, traits) = read_facts(raw, &vocab, &meta, params.vocab_only);
        let (chat, tree) = (OnceLock::new(), OnceLock::new());
        let has_mtp = params.with_mtp && !params.vocab_only;
        Ok(Self { raw, vocab, info, meta, traits, is_in_main_memory, has_mtp, chat, tree })
    }

    pub(crate) fn raw(&self) -> *mut sys::llama_model {
        self.raw.as_ptr()
    }

    pub(crate) fn vocab(&self) -> &Vocab {
        &self.vocab
    }

    pub(crate) fn tree(&self) -> &Tree {
        self.tree.get_or_init(|| Tree::new(&self.vocab))
    }

    /// It was opened with the layers that guess ahead, if it has some.
    pub(crate) fn has_mtp(&self) -> bool {
        self.has_mtp
    }

    pub(crate) fn traits(&self) -> Traits {
        self.traits
    }

    pub(crate) fn is_in_main_memory(&self) -> bool {
        self.is_in_main_memory
    }

    pub(crate) fn chat(&self) -> Result<&Chat> {
        if self.chat.get().is_none() {
            // SAFETY: the model is loaded, and Drop takes the chat away before it.
            let chat = unsafe { Chat::new(self.raw.as_ptr()) }?;
            // Another thread may have been faster; then this one's is dropped unused.
            let _ = self.chat.set(chat);
        }
        self.chat.get().ok_or_else(|| error(Status::Failed, "no chat templates"))
    }
}

impl Model for LlamaModel {
    type Context = LlamaContext;

    fn info(&self) -> ModelInfo {
        self.info.clone()
    }

    fn meta(&self) -> &[(CString, CString)] {
        &self.meta
    }

    fn tokenize(&self, text: &[u8], add_special: bool, parse_special: bool) -> Result<Vec<Token>> {
        self.vocab.tokenize(text, add_special, parse_special)
    }

    fn token_piece(&self, token: Token, special: bool) -> Result<Piece> {
        self.vocab.piece(token, special)
    }

    fn detokenize(&self, tokens: &[Token], special: bool) -> Result<Vec<u8>> {
        self.vocab.detokenize(tokens, special)
    }

    fn token_is_end(&self, token: Token) -> bool {
        self.vocab.is_end(token)
    }

    fn context(self: &Arc<Self>, config: &ContextConfig) -> Result<LlamaContext> {
        LlamaContext::create(self, config)
    }
}

/// Says what is plainly wrong with a file in plainer words than llama.cpp does. Also used for adapters.
pub(crate) fn check_file(path: &Path) -> Result<()> {
    let shown = path.display();
    let mut file = std::fs::File::open(path)
        .map_err(|why| error(Status::NotFound, format!("cannot read `{shown}`: {why}")))?;
    if file.metadata().is_ok_and(|meta| meta.is_dir()) {
        return Err(error(Status::BadModel, format!("`{shown}` is a folder, not a GGUF file")));
    }
    let mut magic = [0; 4];
    match file.read_exact(&mut magic) {
        Ok(()) if magic == *b"GGUF" => Ok(()),
        Ok(()) => Err(error(
            Status::BadModel,
            format!("`{shown}` is not a GGUF file: it begins with `{}`", magic.escape_ascii()),
        )),
        Err(_) => Err(error(
            Status::BadModel,
            format!("`{shown}` is not a GGUF file: it has fewer than four bytes"),
        )),
    }
}

fn load_error(path: &Path, loaded: Captured) -> PluginError {
    let why = loaded.why();
    let status = if is_about_memory(&why) { Status::OutOfMemory } else { Status::BadModel };
    error(status, format!("cannot open `{}`: {}", path.display(), why))
}

/// llama.cpp has no status for it; these are the words of its allocation failures.
pub(crate) fn is_about_memory(why: &str) -> bool {
    ["bad_alloc", "failed to allocate", "unable to allocate", "out of memory"]
        .iter()
        .any(|words| why.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_no_models_are_named_as_such() {
        let folder =
            std::env::temp_dir().join(format!("hearth-llama-model-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let check = |name: &str, bytes: &[u8]| {
            std::fs::write(folder.join(name), bytes).unwrap();
            check_file(&folder.join(name))
        };
        assert!(check("good", b"GGUF....").is_ok());
        let error = check("zip", b"PK\x03\x04").unwrap_err();
        assert_eq!(error.status, Status::BadModel);
        assert!(error.message.ends_with("it begins with `PK\\x03\\x04`"), "{}", error.message);
        assert_eq!(check("empty", b"").unwrap_err().status, Status::BadModel);
        assert_eq!(check_file(&folder).unwrap_err().status, Status::BadModel);
        assert_eq!(check_file(&folder.join("absent")).unwrap_err().status, Status::NotFound);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn progress_never_goes_down_and_a_no_stays() {
        let mut seen = Vec::new();
        let mut report = |fraction: f32| {
            seen.push(fraction);
            seen.len() < 3
        };
        let mut progress = Progress { report: &mut report, highest: 0.0, cancelled: false };
        assert!(progress.step(0.5));
        assert!(progress.step(0.25));
        assert!(!progress.step(0.75));
        assert!(!progress.step(2.0));
        assert_eq!(seen, [0.5, 0.5, 0.75, 1.0]);
    }
}
