//! llama.cpp as a Hearth backend.
//!
//! Everything a llama plugin does is here; the plugins themselves (`backends/cpu` and its siblings) are cdylibs of a few
//! lines that implement [`Engine`] and export [`LlamaBackend`]. They share one libllama and one set of ggml modules in
//! one folder, and a process holds one of them.
//!
//! llama.cpp is C++ and throws; no exception may reach Rust, so every call that can throw goes through the C++ shim
//! (`shim/engine.h`), and chats go through it because llama.cpp has no C interface to them (`shim/chat.h`). What it
//! aborts on (bad tokens, positions, sequences) is checked before the call.
//!
//! Contexts are raw pointers from llama-cpp-sys-2 and not llama-cpp-2's `LlamaContext<'a>`, which borrows its model and
//! so cannot stand in a handle beside it.

mod build_id;
mod chat;
mod context;
mod facts;
mod grammar;
mod images;
#[cfg(target_arch = "x86_64")]
mod kernels;
mod linked;
mod log;
mod lora;
mod memory;
mod model;
mod modules;
mod quantize;
mod rank;
mod shim;
mod threads;
mod tree;
mod vocab;

use hearth_abi::author::{
    Backend, HostLog, chat_table, grammar_table, images_table, lora_table, mtp_table, parts_table,
    quantize_table, rank_table,
};
use hearth_abi::{DeviceInfo, OpenParams, Result, raw};
use std::ffi::CStr;
use std::marker::PhantomData;

pub use context::LlamaContext;
pub use grammar::LlamaGrammar;
pub use images::{LlamaImage, LlamaProjector};
pub use lora::LlamaAdapter;
pub use model::LlamaModel;

/// What tells one llama plugin from another.
pub trait Engine: 'static {
    /// The plugin's name, such as `cpu`.
    const NAME: &'static CStr;
    /// For a person, one line.
    const DESCRIPTION: &'static CStr;
    /// The family of ggml modules whose devices it offers: `cpu` for `libggml-cpu-*.so`, `cuda` for `libggml-cuda.so`.
    const FAMILY: &'static str;
}

/// The backend that an [`Engine`] makes.
#[derive(Debug)]
pub struct LlamaBackend<E>(PhantomData<E>);

impl<E: Engine> Backend for LlamaBackend<E> {
    const NAME: &'static CStr = E::NAME;
    const VERSION: &'static CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => panic!("a version has no NUL in it"),
        };
    const DESCRIPTION: &'static CStr = E::DESCRIPTION;

    type Model = LlamaModel;

    const CHAT: Option<raw::Chat> = Some(chat_table::<LlamaModel>());
    const GRAMMAR: Option<raw::GrammarExt> = Some(grammar_table::<LlamaModel>());
    const IMAGES: Option<raw::Images> = Some(images_table::<LlamaModel>());
    const PARTS: Option<raw::Parts> = Some(parts_table::<LlamaContext>());
    const MTP: Option<raw::Mtp> = Some(mtp_table::<LlamaContext>());
    const RANK: Option<raw::Rank> = Some(rank_table::<LlamaModel>());
    const LORA: Option<raw::Lora> = Some(lora_table::<LlamaModel>());
    const QUANTIZE: Option<raw::Quantize> = Some(quantize_table::<Self>());

    fn init(host: HostLog) -> Result<()> {
        log::start(host);
        Ok(())
    }

    fn deinit() {
        log::stop();
    }

    fn devices() -> Result<Vec<DeviceInfo>> {
        Ok(modules::loaded(E::FAMILY)?.describe())
    }

    fn open(params: &OpenParams, progress: &mut dyn FnMut(f32) -> bool) -> Result<LlamaModel> {
        LlamaModel::open(params, modules::loaded(E::FAMILY)?, progress)
    }
}
