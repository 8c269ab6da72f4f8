//! Optional powers: chat templates, grammars, adapters, guesses. A plugin without one answers `Unsupported`.

use super::{Context, Model, call, filled};
use crate::raw::{self, Pos, Seq, Token};
use crate::types::{PluginError, Result, Status};
use smallvec::SmallVec;
use std::ffi::{CString, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

fn unsupported(what: &str) -> PluginError {
    PluginError::new(Status::Unsupported, format!("this backend cannot {what}"))
}

fn nul() -> PluginError {
    PluginError::new(Status::InvalidArgument, "the text has a NUL in it")
}

impl Model {
    fn chat(&self) -> Result<&'static raw::Chat> {
        self.plugin().extension(raw::EXT_CHAT).ok_or_else(|| unsupported("render chats"))
    }

    /// Renders a chat: a JSON request to a JSON answer, both described in the header.
    pub fn chat_render(&self, request: &str) -> Result<String> {
        let chat = self.chat()?;
        self.text(|answer, error| {
            // SAFETY: the model is open; the request has the length given.
            unsafe {
                (chat.render)(
                    self.raw(),
                    request.as_ptr().cast::<c_char>(),
                    request.len(),
                    answer,
                    error,
                )
            }
        })
    }

    /// Reads a generated answer: text to a JSON message, described in the header.
    pub fn chat_parse(&self, parser: &str, text: &str, partial: bool) -> Result<String> {
        let chat = self.chat()?;
        self.text(|message, error| {
            // SAFETY: the model is open; both texts have the lengths given.
            unsafe {
                (chat.parse)(
                    self.raw(),
                    parser.as_ptr().cast::<c_char>(),
                    parser.len(),
                    text.as_ptr().cast::<c_char>(),
                    text.len(),
                    partial,
                    message,
                    error,
                )
            }
        })
    }

    /// Takes text that the plugin allocated, and gives the bytes back.
    fn text(
        &self,
        body: impl FnOnce(*mut raw::Bytes, *mut raw::Error) -> raw::RawStatus,
    ) -> Result<String> {
        let mut bytes = raw::Bytes { data: std::ptr::null_mut(), len: 0 };
        call(|error| body(&raw mut bytes, error))?;
        let copy = if bytes.data.is_null() {
            Vec::new()
        } else {
            // SAFETY: on OK the plugin's bytes are ours until bytes_free.
            unsafe { std::slice::from_raw_parts(bytes.data, bytes.len) }.to_vec()
        };
        // SAFETY: given back once, right after the copy.
        unsafe { (self.entry().bytes_free)(bytes) };
        String::from_utf8(copy).map_err(|_| {
            PluginError::new(Status::Failed, "the plugin answered text that is not UTF-8")
        })
    }

    /// Compiles a GBNF grammar whose start rule is `root`.
    pub fn grammar(self: &Arc<Self>, text: &str, root: &str) -> Result<Grammar> {
        let table: &'static raw::GrammarExt = self
            .plugin()
            .extension(raw::EXT_GRAMMAR)
            .ok_or_else(|| unsupported("constrain by grammars"))?;
        let root = CString::new(root).map_err(|_| nul())?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the model is open; text has the length given and root is NUL-terminated.
        call(|error| unsafe {
            (table.create)(
                self.raw(),
                text.as_ptr().cast::<c_char>(),
                text.len(),
                root.as_ptr(),
                &raw mut handle,
                error,
            )
        })?;
        let handle = NonNull::new(handle)
            .ok_or_else(|| PluginError::new(Status::Failed, "the plugin made no grammar"))?;
        Ok(Grammar { handle, table, model: Arc::clone(self) })
    }

    /// Reads a LoRA adapter.
    pub fn adapter(self: &Arc<Self>, path: &Path) -> Result<Arc<Adapter>> {
        let table: &'static raw::Lora =
            self.plugin().extension(raw::EXT_LORA).ok_or_else(|| unsupported("apply adapters"))?;
        let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| nul())?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the model is open and the path NUL-terminated.
        call(|error| unsafe { (table.open)(self.raw(), path.as_ptr(), &raw mut handle, error) })?;
        let handle = NonNull::new(handle)
            .ok_or_else(|| PluginError::new(Status::Failed, "the plugin opened no adapter"))?;
        Ok(Arc::new(Adapter { handle, table, _model: Arc::clone(self) }))
    }
}

/// A compiled grammar and its state.
#[derive(Debug)]
pub struct Grammar {
    handle: NonNull<raw::Grammar>,
    table: &'static raw::GrammarExt,
    model: Arc<Model>,
}

// SAFETY: its calls come from any thread, one at a time by `&mut self`.
unsafe impl Send for Grammar {}

impl Grammar {
    /// Tokens of the model's vocabulary.
    pub fn n_vocab(&self) -> u32 {
        self.model.info().n_vocab
    }

    /// Sets logits to minus infinity where the token of the same index may not come next.
    pub fn mask(&mut self, tokens: &[Token], logits: &mut [f32]) -> Result<()> {
        if tokens.len() != logits.len() {
            return Err(PluginError::new(
                Status::InvalidArgument,
                "tokens and logits differ in length",
            ));
        }
        // SAFETY: a live grammar; both arrays have the length given.
        call(|error| unsafe {
            (self.table.mask)(
                self.handle.as_ptr(),
                tokens.as_ptr(),
                logits.as_mut_ptr(),
                tokens.len(),
                error,
            )
        })
    }

    /// Takes the token that was chosen.
    pub fn accept(&mut self, token: Token) -> Result<()> {
        // SAFETY: a live grammar.
        call(|error| unsafe { (self.table.accept)(self.handle.as_ptr(), token, error) })
    }

    /// Takes text that was not chosen as tokens. What does not fit is refused and changes nothing.
    pub fn accept_text(&mut self, text: &[u8]) -> Result<()> {
        // SAFETY: a live grammar; the text has the length given.
        call(|error| unsafe {
            let (text, len) = (text.as_ptr().cast::<c_char>(), text.len());
            (self.table.accept_text)(self.handle.as_ptr(), text, len, error)
        })
    }
}

impl Drop for Grammar {
    fn drop(&mut self) {
        // SAFETY: created once, and the model is still open.
        unsafe { (self.table.destroy)(self.handle.as_ptr()) }
    }
}

/// An open LoRA adapter.
#[derive(Debug)]
pub struct Adapter {
    handle: NonNull<raw::Adapter>,
    table: &'static raw::Lora,
    _model: Arc<Model>,
}

// SAFETY: an adapter is constant once open; attaching is the engine thread's, by `&mut Context`.
unsafe impl Send for Adapter {}
// SAFETY: as above.
unsafe impl Sync for Adapter {}

impl Context {
    /// Replaces the adapters applied from the next decode on.
    pub fn attach(&mut self, adapters: &[(Arc<Adapter>, f32)]) -> Result<()> {
        let table: &'static raw::Lora = self
            .model()
            .plugin()
            .extension(raw::EXT_LORA)
            .ok_or_else(|| unsupported("apply adapters"))?;
        let handles: Vec<_> = adapters.iter().map(|(adapter, _)| adapter.handle.as_ptr()).collect();
        let scales: Vec<_> = adapters.iter().map(|(_, scale)| *scale).collect();
        let raw = self.raw();
        // SAFETY: a live context; the adapters are open, and both arrays have the length given.
        call(|error| unsafe {
            (table.attach)(raw, handles.as_ptr(), scales.as_ptr(), handles.len(), error)
        })?;
        // Kept, so that no adapter is closed while attached.
        self.set_attached(adapters.iter().map(|(adapter, _)| Arc::clone(adapter)).collect());
        Ok(())
    }
}

impl Context {
    fn mtp(&self) -> Result<&'static raw::Mtp> {
        let plugin = self.model().plugin();
        plugin.extension(raw::EXT_MTP).ok_or_else(|| unsupported("guess ahead by itself"))
    }

    /// Keeps what guessing ahead needs, from the first decode on. Answers for how many tokens in a row guesses are good.
    pub fn begin_mtp(&mut self) -> Result<usize> {
        let (table, raw) = (self.mtp()?, self.raw());
        let mut n_most = 0;
        // SAFETY: a live context; the out-parameter is ours.
        call(|error| unsafe { (table.begin)(raw, &raw mut n_most, error) })?;
        Ok(n_most as usize)
    }

    /// Guesses for each sequence `n_guesses` tokens that follow its `next`, one sequence after the other; -1 from where on there
    /// is no guess.
    pub fn draft(
        &mut self,
        sequences: &[Seq],
        next: &[Token],
        n_guesses: usize,
        guesses: &mut Vec<Token>,
    ) -> Result<()> {
        if sequences.len() != next.len() {
            return Err(PluginError::new(
                Status::InvalidArgument,
                "sequences and tokens differ in length",
            ));
        }
        guesses.clear();
        guesses.resize(sequences.len() * n_guesses, -1);
        let (table, raw) = (self.mtp()?, self.raw());
        // SAFETY: a live context; both arrays have the length given, and the guesses have room for n_guesses of each.
        call(|error| unsafe {
            let (sequences, next, n) = (sequences.as_ptr(), next.as_ptr(), sequences.len());
            (table.draft)(raw, sequences, next, n, n_guesses, guesses.as_mut_ptr(), error)
        })
    }
}

impl Context {
    fn parts(&self) -> Result<&'static raw::Parts> {
        let plugin = self.model().plugin();
        plugin.extension(raw::EXT_PARTS).ok_or_else(|| unsupported("save part of a sequence"))
    }

    /// Serialises positions of a sequence from `p0` up to `p1`.
    pub fn part_save(&mut self, seq: Seq, p0: Pos, p1: Pos) -> Result<Vec<u8>> {
        let (table, raw) = (self.parts()?, self.raw());
        let saved = filled(0, |buffer, capacity, n_out, error| {
            // SAFETY: a live context; the buffer has the capacity given.
            unsafe { (table.save)(raw, seq, p0, p1, buffer, capacity, n_out, error) }
        });
        saved.map(SmallVec::into_vec)
    }

    /// Appends saved positions to a sequence that ends where they begin.
    pub fn part_load(&mut self, seq: Seq, data: &[u8]) -> Result<()> {
        let (table, raw) = (self.parts()?, self.raw());
        // SAFETY: a live context; data has the length given.
        call(|error| unsafe { (table.load)(raw, seq, data.as_ptr(), data.len(), error) })
    }
}

impl Model {
    /// What a model that ranks texts reads of a question and one of them; its score is their embedding's one number. UNSUPPORTED
    /// for any other model.
    pub fn tokenize_pair(&self, query: &str, text: &str) -> Result<Vec<Token>> {
        let table: &raw::Rank =
            self.plugin().extension(raw::EXT_RANK).ok_or_else(|| unsupported("rank texts"))?;
        let most = query.len() + text.len() + 16;
        let tokens = filled(most, |tokens, capacity, n_out, error| {
            // SAFETY: the handle is open; texts and tokens have the lengths given.
            unsafe {
                (table.tokenize)(
                    self.raw(),
                    query.as_ptr().cast(),
                    query.len(),
                    text.as_ptr().cast(),
                    text.len(),
                    tokens,
                    capacity,
                    n_out,
                    error,
                )
            }
        });
        tokens.map(SmallVec::into_vec)
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        // SAFETY: opened once; contexts keep an Arc of what they have attached.
        unsafe { (self.table.close)(self.handle.as_ptr()) }
    }
}
