//! Byte-level BPE, as GPT-2 began it.

use hearth_gguf::Value;

use super::json::TokenizerJson;
use super::{pre, special, write_tokens};
use crate::arch::Source;
use crate::error::ConvertError;
use crate::metadata::Metadata;

pub(crate) fn write(source: &Source, metadata: &mut Metadata) -> Result<(), ConvertError> {
    let tokenizer = TokenizerJson::need(&source.folder)?;
    let kind = tokenizer.model.kind.as_deref().unwrap_or("BPE");
    if kind != "BPE" || tokenizer.model.byte_fallback {
        return Err(ConvertError::unsupported("a tokenizer of the kind", kind));
    }
    let pre = pre::detect(&tokenizer)?;
    let tokens = tokenizer.tokens(source)?;
    write_tokens("gpt2", pre, tokens, false, metadata);
    let merges = tokenizer.model.merges.texts();
    if !merges.is_empty() {
        metadata.set("tokenizer.ggml.merges", Value::Texts(merges));
    }
    special::write(source, Some(&tokenizer), None, metadata)
}
