//! A complete plugin without a model: the example for third parties, and what fast tests load.
//!
//! Tokens are bytes and a few control tokens. Logits are a fixed function of what stands in a sequence's KV memory, so
//! whoever loses a token, copies one too many or forgets to remove one gets another text. [`expected`] computes the
//! same text from the tokens alone, without any memory; a test compares the two.
//!
//! A model is a GGUF file of architecture `hearth-reference` that [`write_model`] makes in no time. Its metadata
//! ([`Settings`]) can ask for slowness, failure, a crash, a hang, or memory that cannot roll back. Nothing is ever
//! asked for through the prompt.
//!
//! All calls of the host are checked against the contract to the letter; what breaks it is answered
//! INVALID_ARGUMENT and logged as HOST_MISBEHAVING.

mod calls;
mod chat;
mod context;
mod export;
mod gguf;
mod grammar;
mod images;
mod memory;
mod model;
mod mtp;
mod quantize;
mod rank;
mod settings;
mod text;
pub mod vocab;

pub use gguf::{Value, write_adapter, write_model, write_projector};
pub use images::seen;
pub use settings::Settings;
pub use text::expected;

/// The plugin's entry, for processes that link it in instead of loading a file.
pub fn plugin() -> &'static hearth_abi::raw::Plugin {
    &export::hearth_plugin_entry
}
