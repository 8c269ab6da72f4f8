//! Tokenizers, as llama.cpp's vocabularies: tokens with their kinds, merges or scores, and which of
//! them are special.

pub(crate) mod bpe;
mod json;
mod pre;
pub(crate) mod sentencepiece;
mod special;
pub(crate) mod wordpiece;

use hearth_gguf::Value;

use crate::error::ConvertError;
use crate::metadata::Metadata;

/// The largest known vocabulary, XLM-V's, has 901,629.
const MAX_TOKENS: u64 = 1 << 20;

/// llama.h's `llama_token_attr`, as GGUF numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

#[derive(Debug, Clone, PartialEq)]
struct Token {
    text: String,
    score: f32,
    kind: Kind,
}

impl Token {
    /// A place in the model's vocabulary that no text leads to.
    fn unused(id: usize) -> Self {
        Self { text: format!("[PAD{id}]"), score: -10_000.0, kind: Kind::Unused }
    }
}

fn write_tokens(
    model: &str,
    pre: &str,
    tokens: Vec<Token>,
    with_scores: bool,
    metadata: &mut Metadata,
) {
    let kinds = tokens.iter().map(|token| token.kind as i32).collect();
    let scores = tokens.iter().map(|token| token.score).collect();
    let texts = tokens.into_iter().map(|token| token.text).collect();
    metadata.text("tokenizer.ggml.model", model);
    metadata.text("tokenizer.ggml.pre", pre);
    metadata.set("tokenizer.ggml.tokens", Value::Texts(texts));
    if with_scores {
        metadata.set("tokenizer.ggml.scores", Value::F32s(scores));
    }
    metadata.set("tokenizer.ggml.token_type", Value::I32s(kinds));
}

fn check_count(count: u64) -> Result<usize, ConvertError> {
    usize::try_from(count).ok().filter(|_| (1..=MAX_TOKENS).contains(&count)).ok_or_else(|| {
        ConvertError::Unsupported { what: format!("a vocabulary of {count} tokens") }
    })
}

/// Some models do not mark as special what is no text.
fn looks_special(text: &str) -> bool {
    ["<pad>", "<mask>", "<2mass>", "[@BOS@]"].contains(&text)
        || (text.starts_with("<|") && text.ends_with("|>"))
        || (text.starts_with("<｜") && text.ends_with("｜>"))
        || (text.starts_with("<unused") && text.ends_with('>'))
}

/// The kind and the text of a token that was added to a trained vocabulary.
fn added(text: &str, is_special: bool) -> (Kind, String) {
    if is_special || looks_special(text) {
        (Kind::Control, text.to_owned())
    } else {
        // As the text to be looked at has it.
        (Kind::UserDefined, text.replace('\u{2581}', " "))
    }
}
