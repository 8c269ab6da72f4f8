//! Writing a plugin in Rust: implement the traits, then `export_plugin!(MyBackend);`.
//!
//! The shims below the traits turn the C calls of the header into safe calls: they check pointers, write error
//! messages, answer BUFFER_TOO_SMALL, and stop a panic at the line. `backends/reference` is the complete example. A
//! plugin in C needs none of this.

mod contexts;
mod extensions;
mod images;
mod quantize;
mod shims;

use crate::raw::{self, Pos, Seq, Token};
use crate::types::{
    ContextConfig, ContextInfo, DeviceInfo, ImagePiece, LogLevel, ModelInfo, OpenParams, Piece,
    Pixels, Result,
};
use std::ffi::{CStr, CString};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub use extensions::{chat_table, grammar_table, lora_table, mtp_table, parts_table, rank_table};
pub use images::images_table;
pub use quantize::{QuantizeBackend, quantize_table};
pub use shims::plugin_table;

/// One plugin: constants and the calls that need no model.
pub trait Backend: Sized + 'static {
    /// `[a-z0-9-]+`, unique among plugins.
    const NAME: &'static CStr;
    /// The plugin's own version.
    const VERSION: &'static CStr;
    /// For a person, one line.
    const DESCRIPTION: &'static CStr;

    /// What `open` answers.
    type Model: Model;

    /// `hearth.chat/1`, made by [`chat_table`].
    const CHAT: Option<raw::Chat> = None;
    /// `hearth.grammar/1`, made by [`grammar_table`].
    const GRAMMAR: Option<raw::GrammarExt> = None;
    /// `hearth.lora/1`, made by [`lora_table`].
    const LORA: Option<raw::Lora> = None;
    /// `hearth.images/1`, made by [`images_table`].
    const IMAGES: Option<raw::Images> = None;
    /// `hearth.mtp/1`, made by [`mtp_table`].
    const MTP: Option<raw::Mtp> = None;
    /// `hearth.parts/1`, made by [`parts_table`].
    const PARTS: Option<raw::Parts> = None;
    /// `hearth.rank/1`, made by [`rank_table`].
    const RANK: Option<raw::Rank> = None;
    /// `hearth.quantize/1`, made by [`quantize_table`].
    const QUANTIZE: Option<raw::Quantize> = None;

    /// Prepares the process. Fast: no model, no device memory.
    fn init(log: HostLog) -> Result<()>;
    /// Undoes `init`.
    fn deinit();
    /// The devices found; an error says why there are none.
    fn devices() -> Result<Vec<DeviceInfo>>;
    /// Opens a model. `progress` answers false when the host wants it cancelled.
    fn open(params: &OpenParams, progress: &mut dyn FnMut(f32) -> bool) -> Result<Self::Model>;
}

/// An open model. Called from any thread.
pub trait Model: Send + Sync + Sized + 'static {
    /// What `context` answers.
    type Context: Context;

    /// Facts about it.
    fn info(&self) -> ModelInfo;
    /// Metadata of the file, in file order.
    fn meta(&self) -> &[(CString, CString)];
    /// Text to tokens.
    fn tokenize(&self, text: &[u8], add_special: bool, parse_special: bool) -> Result<Vec<Token>>;
    /// The bytes of one token inside a text.
    fn token_piece(&self, token: Token, special: bool) -> Result<Piece>;
    /// Tokens to the text they came from.
    fn detokenize(&self, tokens: &[Token], special: bool) -> Result<Vec<u8>>;
    /// Generating this token ends the text.
    fn token_is_end(&self, token: Token) -> bool;
    /// Creates KV memory and compute buffers.
    fn context(self: &Arc<Self>, config: &ContextConfig) -> Result<Self::Context>;
}

/// A step of work, as slices of equal length.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // The header documents every member.
pub struct BatchRef<'a> {
    pub tokens: &'a [Token],
    pub positions: &'a [Pos],
    pub sequences: &'a [Seq],
    pub outputs: &'a [u8],
}

/// KV memory. Called by one thread at a time, which may change.
pub trait Context: Send + 'static {
    /// Facts about it.
    fn info(&self) -> ContextInfo;
    /// Set by `decode_abort`, from any thread, to make a running decode answer `Cancelled`. `decode` clears it when it begins.
    fn abort_flag(&self) -> Arc<AtomicBool>;
    /// Threads to use from the next decode on.
    fn set_threads(&mut self, n_threads: u32, n_threads_batch: u32) -> Result<()>;
    /// Computes a batch.
    fn decode(&mut self, batch: BatchRef<'_>) -> Result<()>;
    /// Logits of one entry of the last decode.
    fn logits(&mut self, index: u32) -> Result<&mut [f32]>;
    /// An embedding of the last decode.
    fn embedding(&mut self, index: u32) -> Result<&[f32]>;
    /// Forgets positions; `p1` of -1 means to the end.
    fn seq_remove(&mut self, seq: Seq, p0: Pos, p1: Pos) -> Result<()>;
    /// Begins an empty sequence with another's start.
    fn seq_copy(&mut self, from: Seq, to: Seq, p0: Pos, p1: Pos) -> Result<()>;
    /// Moves positions.
    fn seq_shift(&mut self, seq: Seq, p0: Pos, p1: Pos, delta: Pos) -> Result<()>;
    /// Bytes that `seq_save` will write.
    fn seq_save_len(&mut self, seq: Seq) -> Result<usize>;
    /// Writes the sequence into a buffer of that length; answers the bytes written.
    fn seq_save(&mut self, seq: Seq, buffer: &mut [u8]) -> Result<usize>;
    /// Replaces the sequence by saved bytes.
    fn seq_load(&mut self, seq: Seq, data: &[u8]) -> Result<()>;
}

/// `hearth.chat/1`
pub trait ChatModel: Model {
    /// A JSON request to a JSON answer, as the header says.
    fn render(&self, request: &str) -> Result<String>;
    /// Generated text to a JSON message, as the header says.
    fn parse(&self, parser: &str, text: &str, partial: bool) -> Result<String>;
}

/// `hearth.grammar/1`
pub trait GrammarModel: Model {
    /// A compiled grammar and its state.
    type Grammar: Grammar;
    /// Compiles GBNF.
    fn grammar(self: &Arc<Self>, text: &str, root: &str) -> Result<Self::Grammar>;
}

/// A constraint on what may come next.
pub trait Grammar: Send + 'static {
    /// Minus infinity for what may not.
    fn mask(&mut self, tokens: &[Token], logits: &mut [f32]) -> Result<()>;
    /// Takes the token that was chosen.
    fn accept(&mut self, token: Token) -> Result<()>;
    /// Takes text. What does not fit is refused and changes nothing.
    fn accept_text(&mut self, text: &[u8]) -> Result<()>;
}

/// `hearth.lora/1`
pub trait LoraModel: Model {
    /// An open adapter.
    type Adapter: Send + Sync + 'static;
    /// Reads an adapter.
    fn adapter(self: &Arc<Self>, path: &std::path::Path) -> Result<Self::Adapter>;
    /// Replaces the adapters a context applies.
    fn attach(context: &mut Self::Context, adapters: &[(&Self::Adapter, f32)]) -> Result<()>;
}

/// `hearth.images/1`
pub trait ImageModel: Model {
    /// What makes embeddings of images for one model.
    type Projector: Send + Sync + 'static;
    /// An image, cut and scaled.
    type Image: Send + Sync + 'static;
    /// Opens a projector; 0 threads: it chooses.
    fn projector(
        self: &Arc<Self>,
        path: &std::path::Path,
        n_threads: u32,
    ) -> Result<Self::Projector>;
    /// Cuts and scales an image.
    fn image(projector: &Arc<Self::Projector>, pixels: Pixels<'_>) -> Result<Self::Image>;
    /// What it is in a prompt.
    fn pieces(image: &Self::Image) -> &[ImagePiece];
    /// Computes the embeddings of a span. Called by one thread at a time for one projector.
    fn encode(image: &Self::Image, index: usize, embeddings: &mut [f32]) -> Result<()>;
    /// Appends a span to a sequence.
    fn append(
        context: &mut Self::Context,
        image: &Self::Image,
        index: usize,
        embeddings: &[f32],
        seq: Seq,
        position: Pos,
    ) -> Result<()>;
}

/// `hearth.mtp/1`
pub trait MtpContext: Context {
    /// Keeps what guessing needs from now on; answers how many tokens in a row guesses are good for.
    fn begin(&mut self) -> Result<u32>;
    /// Guesses `n_guesses` tokens for each sequence behind the token of the same index, -1 where there is no guess.
    fn draft(
        &mut self,
        sequences: &[Seq],
        tokens: &[Token],
        n_guesses: usize,
        guesses: &mut [Token],
    ) -> Result<()>;
}

/// `hearth.parts/1`
pub trait PartsContext: Context {
    /// Bytes that `part_save` will write.
    fn part_save_len(&mut self, seq: Seq, p0: Pos, p1: Pos) -> Result<usize>;
    /// Writes positions from `p0` up to `p1` into a buffer of `part_save_len` bytes, and answers how many it took.
    fn part_save(&mut self, seq: Seq, p0: Pos, p1: Pos, buffer: &mut [u8]) -> Result<usize>;
    /// Appends them to a sequence that ends at `p0`.
    fn part_load(&mut self, seq: Seq, data: &[u8]) -> Result<()>;
}

/// `hearth.rank/1`
pub trait RankModel: Model {
    /// What the model reads of a question and a text to say how well they go together.
    fn tokenize_pair(&self, query: &str, text: &str) -> Result<Vec<Token>>;
}

/// The host's log, for as long as the plugin is initialised.
#[derive(Debug, Clone, Copy)]
pub struct HostLog {
    host_data: *mut std::ffi::c_void,
    log: unsafe extern "C" fn(*mut std::ffi::c_void, i32, *const std::ffi::c_char),
}

// SAFETY: the header lets `log` be called from any thread with the same host_data.
unsafe impl Send for HostLog {}
// SAFETY: as above.
unsafe impl Sync for HostLog {}

impl HostLog {
    /// One line, without a newline. Never prompts or generated text.
    pub fn log(&self, level: LogLevel, text: &str) {
        let text = CString::new(text.replace('\0', "?")).unwrap_or_default();
        // SAFETY: host_data and log came together from init, and the caller holds them only until deinit.
        unsafe { (self.log)(self.host_data, level as i32, text.as_ptr()) }
    }
}

/// Exports `hearth_plugin_entry` for a [`Backend`].
#[macro_export]
macro_rules! export_plugin {
    ($backend:ty) => {
        /// The plugin's one exported symbol.
        // SAFETY: the name is the ABI's and no other symbol of this library has it.
        #[unsafe(no_mangle)]
        #[allow(non_upper_case_globals)] // The name is the ABI's.
        pub static hearth_plugin_entry: $crate::raw::Plugin =
            $crate::author::plugin_table::<$backend>();
    };
}
