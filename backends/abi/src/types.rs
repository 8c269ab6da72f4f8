//! Plain Rust types for both sides of the line: what a plugin written in Rust answers, and what the host reads.
//!
//! They carry the same facts as the structs in `raw`, without pointers. None of them is ever sent over a wire.

use crate::raw;
use smallvec::SmallVec;
use std::path::PathBuf;

/// Why a call failed. The numbers are the header's `HEARTH_*` statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Status {
    /// The caller broke the contract; nothing was changed.
    InvalidArgument = 1,
    /// This model or memory cannot do it; nothing was changed.
    Unsupported = 2,
    /// Resolved inside the wrappers, which call again with a larger buffer.
    BufferTooSmall = 3,
    /// A file or device does not exist or cannot be read.
    NotFound = 4,
    /// The file is not a model this plugin can run.
    BadModel = 5,
    /// RAM or device memory.
    OutOfMemory = 6,
    /// No room in the context for this batch; nothing was changed.
    NoKvSpace = 7,
    /// The host asked for it.
    Cancelled = 8,
    /// Anything else; the context must be destroyed.
    Failed = 9,
}

impl Status {
    /// A number that is none of ours counts as `Failed`: the plugin is newer or broken.
    pub fn from_raw(raw: raw::RawStatus) -> Self {
        match raw {
            1 => Self::InvalidArgument,
            2 => Self::Unsupported,
            3 => Self::BufferTooSmall,
            4 => Self::NotFound,
            5 => Self::BadModel,
            6 => Self::OutOfMemory,
            7 => Self::NoKvSpace,
            8 => Self::Cancelled,
            _ => Self::Failed,
        }
    }
}

/// A failed call: what kind, and one sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PluginError {
    /// The kind, for deciding what to do next.
    pub status: Status,
    /// Lower case, no full stop.
    pub message: String,
}

impl PluginError {
    /// An error with this status and text.
    pub fn new(status: Status, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

/// What every fallible call answers.
pub type Result<T> = std::result::Result<T, PluginError>;

/// What sort of hardware a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum DeviceKind {
    /// The processor and its RAM.
    Cpu = 0,
    /// A card with memory of its own.
    Gpu = 1,
    /// A graphics unit that shares the processor's RAM.
    IntegratedGpu = 2,
    /// A helper for parts of the work, such as a BLAS library.
    Accelerator = 3,
}

impl DeviceKind {
    pub(crate) fn from_raw(raw: i32) -> Self {
        match raw {
            0 => Self::Cpu,
            1 => Self::Gpu,
            2 => Self::IntegratedGpu,
            _ => Self::Accelerator,
        }
    }
}

/// Hardware that a plugin can run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// See [`DeviceKind`].
    pub kind: DeviceKind,
    /// Bytes; 0 when unknown.
    pub memory_total: u64,
    /// Bytes; 0 when unknown.
    pub memory_free: u64,
    /// Stable over restarts of the same machine.
    pub id: String,
    /// For a person.
    pub name: String,
    /// What was chosen and why; may be empty.
    pub detail: String,
}

/// How to open a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenParams {
    /// The model's first file.
    pub path: PathBuf,
    /// `None`: as many as fit.
    pub n_gpu_layers: Option<u32>,
    /// Map the file instead of reading it.
    pub use_mmap: bool,
    /// Keep the weights from being swapped out.
    pub use_mlock: bool,
    /// No weights: only tokenizing works.
    pub vocab_only: bool,
    /// With the layers that only guess ahead, where the model has some.
    pub with_mtp: bool,
}

impl OpenParams {
    /// The defaults for a file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            n_gpu_layers: None,
            use_mmap: true,
            use_mlock: false,
            vocab_only: false,
            with_mtp: false,
        }
    }
}

/// What a model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// It writes text.
    pub can_generate: bool,
    /// It yields embeddings.
    pub can_embed: bool,
    /// The file carries a chat template.
    pub has_chat_template: bool,
    /// Tokens are `0..n_vocab`.
    pub n_vocab: u32,
    /// Longest text the model was trained on, in tokens.
    pub n_ctx_train: u32,
    /// Length of one embedding.
    pub n_embd: u32,
    /// Number of layers.
    pub n_layer: u32,
    /// Number of weights.
    pub n_params: u64,
    /// Bytes of the weights as stored.
    pub size_bytes: u64,
    /// Begins a text.
    pub bos_token: Option<raw::Token>,
    /// Ends a text.
    pub eos_token: Option<raw::Token>,
    /// Tokenizing with `add_special` begins with `bos_token`.
    pub add_bos: bool,
    /// Such as `llama`.
    pub architecture: String,
    /// For a person.
    pub description: String,
}

/// How token embeddings become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Pooling {
    /// They do not: one embedding per token.
    None = 0,
    /// What the model's file says; `Mean` when it says nothing.
    Model = 1,
    /// Their mean.
    Mean = 2,
    /// The first token's.
    Cls = 3,
    /// The last token's.
    Last = 4,
}

/// Number format of the KV memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
#[allow(missing_docs)] // The names are the formats' own.
pub enum KvType {
    F16 = 0,
    Q8_0 = 1,
    Q4_0 = 2,
    F32 = 3,
}

/// Whether softmax is computed in pieces, without a matrix of all scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum FlashAttention {
    /// The plugin chooses.
    Auto = 0,
    /// Never.
    Off = 1,
    /// Always.
    On = 2,
}

/// How to create a context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextConfig {
    /// KV cells, shared by all sequences.
    pub n_ctx: u32,
    /// Most tokens in one decode.
    pub n_batch: u32,
    /// Most tokens computed at once inside it.
    pub n_ubatch: u32,
    /// Sequences `0..n_seq_max` exist.
    pub n_seq_max: u32,
    /// While decoding single tokens; 0: the plugin chooses.
    pub n_threads: u32,
    /// While decoding prompts; 0: the plugin chooses.
    pub n_threads_batch: u32,
    /// `Some`: the context yields embeddings instead of logits.
    pub embeddings: Option<Pooling>,
    /// Number format of the KV memory.
    pub kv_type: KvType,
    /// See [`FlashAttention`].
    pub flash_attention: FlashAttention,
}

impl ContextConfig {
    /// For one sequence of so many tokens, which may all come in one decode; the rest is as in most contexts.
    pub fn single(n_ctx: u32) -> Self {
        Self {
            n_ctx,
            n_batch: n_ctx,
            n_ubatch: n_ctx,
            n_seq_max: 1,
            n_threads: 0,
            n_threads_batch: 0,
            embeddings: None,
            kv_type: KvType::F16,
            flash_attention: FlashAttention::Auto,
        }
    }
}

/// What a context can do and how large it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextInfo {
    /// `seq_remove(seq, p0 > 0, -1)` works for every `p0`.
    pub can_roll_back: bool,
    /// `seq_shift` works.
    pub can_shift: bool,
    /// `seq_copy` works for less than the whole sequence.
    pub can_copy_part: bool,
    /// `seq_save` and `seq_load` work.
    pub can_save: bool,
    /// `part_save` and `part_load` work.
    pub can_save_part: bool,
    /// Cells really there; may be more than asked for.
    pub n_ctx: u32,
    /// Most tokens one sequence may hold.
    pub n_ctx_seq: u32,
    /// Most tokens in one decode.
    pub n_batch: u32,
    /// Most tokens computed at once inside it.
    pub n_ubatch: u32,
    /// Sequences `0..n_seq_max` exist.
    pub n_seq_max: u32,
    /// While decoding single tokens.
    pub n_threads: u32,
    /// Bytes for KV and compute buffers; 0 when unknown.
    pub memory_bytes: u64,
}

/// One entry of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchEntry {
    /// The token to compute.
    pub token: raw::Token,
    /// Its place in its sequence.
    pub position: raw::Pos,
    /// The sequence it is appended to.
    pub sequence: raw::Seq,
    /// Its logits or embedding will be read.
    pub output: bool,
}

/// The bytes of one token. Few tokens have more than fit without an allocation.
pub type Piece = SmallVec<[u8; 32]>;

/// How bad a log line is. The last names the culprit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
#[allow(missing_docs)] // The names say it.
pub enum LogLevel {
    Debug = 0,
    Info = 1,
    Warn = 2,
    Error = 3,
    HostMisbehaving = 4,
}

impl LogLevel {
    pub(crate) fn from_raw(raw: i32) -> Self {
        match raw {
            0 => Self::Debug,
            1 => Self::Info,
            2 => Self::Warn,
            4 => Self::HostMisbehaving,
            _ => Self::Error,
        }
    }
}

/// What to make smaller, and how. The header documents every member.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct QuantizeParams {
    pub input: PathBuf,
    pub output: PathBuf,
    pub type_name: String,
    pub imatrix: Option<PathBuf>,
    pub n_threads: u32,
    pub requantize: bool,
}

/// An image's pixels: three bytes each (red, green, blue), row by row from the top.
#[derive(Clone, Copy)]
pub struct Pixels<'a> {
    rgb: &'a [u8],
    width: u32,
    height: u32,
}

impl std::fmt::Debug for Pixels<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pixels({} x {})", self.width, self.height)
    }
}

impl<'a> Pixels<'a> {
    /// `None` unless there are as many bytes as the size says, and at least one pixel.
    pub fn new(rgb: &'a [u8], width: u32, height: u32) -> Option<Self> {
        let n_bytes = (width as usize).checked_mul(height as usize)?.checked_mul(3)?;
        (n_bytes > 0 && rgb.len() == n_bytes).then_some(Self { rgb, width, height })
    }

    /// The bytes.
    pub fn rgb(&self) -> &'a [u8] {
        self.rgb
    }

    /// Pixels of a row.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.height
    }
}

/// A part of an image as a prompt has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImagePiece {
    /// What the model wants around its images, at least one.
    Tokens(Vec<raw::Token>),
    /// Embeddings in the place of tokens.
    Span(ImageSpan),
}

/// The room that a span of embeddings takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageSpan {
    /// Cells of the KV memory, at least 1.
    pub n_cells: u32,
    /// Positions of its sequence, at least 1 and at most as many.
    pub n_positions: u32,
    /// Length of all embeddings together.
    pub n_floats: u32,
}
