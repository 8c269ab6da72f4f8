//! Go's `text/template`, as the templates of Ollama's models use it.
//!
//! A [`Template`] is parsed from text with a set of [`Functions`] and rendered with a [`Value`]. What Go decides by types it
//! decides here by the kinds of `Value`: a map without a key answers nothing, a struct without a field is an error, a
//! value with methods prints as they say. Output is the same as Go's to the byte; `tests/go/` holds what Go 1.26 wrote.
//!
//! Text is UTF-8 throughout, so what would yield other bytes (`"\xff"`, a slice that cuts a character) is an error here.
//! Complex numbers, hexadecimal floats, and `printf` with `%[1]d`, `%*d` and `%#v` are errors too.
//!
//! Templates come from strangers: source, nesting, steps and the bytes produced are bounded, and nothing panics.

mod error;
mod escape;
mod exec;
mod float;
mod format;
mod functions;
mod json;
mod lex;
pub mod node;
mod number;
mod parse;
mod quote;
mod template;
mod value;

pub use error::TemplateError;
pub use functions::{Function, Functions};
pub use json::to_json;
pub use template::Template;
pub use value::{Field, List, Map, Method, Methods, Struct, Typed, Value};

/// Blocks, parentheses and templates inside each other, when parsed and when rendered.
const MAX_DEPTH: usize = 200;
/// The longest template, in bytes.
const MAX_SOURCE: usize = 1 << 20;
/// In scope at one place.
const MAX_VARIABLES: usize = 500;
/// Nodes, commands and rounds of loops in one rendering: a few seconds.
const MAX_STEPS: usize = 20_000_000;
/// Everything that one rendering writes, strings that are thrown away included.
const MAX_BYTES: usize = 64 << 20;
