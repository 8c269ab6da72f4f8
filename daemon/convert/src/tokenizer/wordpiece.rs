//! WordPiece, as BERT cuts words.

use hearth_gguf::Value;

use super::json::TokenizerJson;
use super::{Kind, special, write_tokens};
use crate::arch::Source;
use crate::error::ConvertError;
use crate::metadata::Metadata;

/// llama.cpp cuts text for all WordPiece models in one way and reads no name of it; this is what
/// its converter writes for BERT's English vocabulary.
const PRE: &str = "jina-v2-en";

pub(crate) fn write(source: &Source, metadata: &mut Metadata) -> Result<(), ConvertError> {
    let tokenizer = TokenizerJson::need(&source.folder)?;
    if tokenizer.model.kind.as_deref() != Some("WordPiece") {
        let kind = tokenizer.model.kind.as_deref().unwrap_or_default();
        return Err(ConvertError::unsupported("a tokenizer of the kind", kind));
    }
    let mut tokens = tokenizer.tokens(source)?;
    for token in tokens.iter_mut().filter(|token| token.kind != Kind::Control) {
        // What begins a word is marked, not what goes on with it.
        token.text = match token.text.strip_prefix("##") {
            Some(rest) => rest.to_owned(),
            None => format!("\u{2581}{}", token.text),
        };
    }
    let n_types = source.config.count(&["type_vocab_size"])?.unwrap_or(1);
    let n_types = u32::try_from(n_types)
        .map_err(|_| source.config.invalid(format!("{n_types} types of tokens")))?;
    metadata.set("tokenizer.ggml.token_type_count", Value::U32(n_types));
    let n_tokens = tokens.len();
    write_tokens("bert", PRE, tokens, false, metadata);
    special::write(source, Some(&tokenizer), Some(n_tokens), metadata)
}
