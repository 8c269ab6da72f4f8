//! The line between `hearthd` and its inference backends.
//!
//! `include/hearth_plugin.h` is the contract. [`raw`] mirrors it, [`host`] loads plugins and wraps their calls, [`author`]
//! is for plugins written in Rust, and [`check`] tries a plugin against the contract. This crate and
//! `hearth-protocol` are the project's two API boundaries.
//!
//! Nothing here knows llama.cpp, scheduling or a wire format.

pub mod author;
pub mod check;
pub mod host;
#[cfg(target_os = "macos")]
pub mod launchd;
pub mod raw;
mod types;

pub use types::{
    BatchEntry, ContextConfig, ContextInfo, DeviceInfo, DeviceKind, FlashAttention, ImagePiece,
    ImageSpan, KvType, LogLevel, ModelInfo, OpenParams, Piece, Pixels, PluginError, Pooling,
    QuantizeParams, Result, Status,
};
