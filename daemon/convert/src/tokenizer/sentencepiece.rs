//! SentencePiece: pieces with scores, from `tokenizer.model` or from what `tokenizer.json` kept.

use serde_json::Value;

use super::json::TokenizerJson;
use super::{Kind, Token, added, check_count, special, write_tokens};
use crate::arch::Source;
use crate::error::ConvertError;
use crate::folder::{Folder, Object};
use crate::metadata::Metadata;

const FILE: &str = "tokenizer.model";
/// The largest known, of 262,144 tokens, has 4.7 MB.
const MAX_BYTES: u64 = 64 << 20;
/// What is not found by merging pieces.
const ADDED_SCORE: f32 = -1000.0;

/// `false` if there is no `tokenizer.model`.
pub(crate) fn write(source: &Source, metadata: &mut Metadata) -> Result<bool, ConvertError> {
    let Some(mut tokens) = read(source)? else { return Ok(false) };
    let config = source.folder.object("tokenizer_config.json")?.unwrap_or_default();
    for (id, text, is_special) in added_tokens(&config) {
        let (kind, text) = added(text, is_special);
        replace(&mut tokens, id, &text, kind);
    }
    let tokenizer = TokenizerJson::read(&source.folder)?;
    finish(source, tokenizer.as_ref(), tokens, metadata)
}

/// As llama.cpp's converter has it for Phi 3, whose added tokens take the space around them.
pub(crate) fn write_phi(source: &Source, metadata: &mut Metadata) -> Result<bool, ConvertError> {
    let Some(mut tokens) = read(source)? else { return Ok(false) };
    let config = source.folder.object("tokenizer_config.json")?.unwrap_or_default();
    let tokenizer = TokenizerJson::read(&source.folder)?;
    let of_json = tokenizer.iter().flat_map(|tokenizer| &tokenizer.added_tokens);
    let of_json = of_json.map(|token| (token.id, token.content.as_str(), token.special));
    for (id, text, is_special) in added_tokens(&config).chain(of_json) {
        let kind = if is_special { Kind::Control } else { Kind::UserDefined };
        replace(&mut tokens, id, text, kind);
    }
    finish(source, tokenizer.as_ref(), tokens, metadata)
}

/// From a `tokenizer.json` made of such a model; `false` if it is of another kind.
///
/// It has no scores, and llama.cpp's converter gives all tokens the same, which cuts text otherwise.
/// But the merges are in the order of the scores that they were made of, and only that order counts.
pub(crate) fn write_from_json(
    source: &Source,
    metadata: &mut Metadata,
) -> Result<bool, ConvertError> {
    let Some(tokenizer) = TokenizerJson::read(&source.folder)? else { return Ok(false) };
    let decoder = tokenizer.decoder.as_ref().and_then(|decoder| decoder.get("type")?.as_str());
    if tokenizer.model.kind.as_deref() != Some("BPE")
        || !tokenizer.model.byte_fallback
        || decoder != Some("Sequence")
    {
        return Ok(false);
    }
    let mut tokens = tokenizer.tokens(source)?;
    let ranks = tokenizer.model.merges.ranks();
    for token in &mut tokens {
        let rank = ranks.get(token.text.as_str()).filter(|_| token.kind == Kind::Normal);
        token.score = rank.map_or(ADDED_SCORE, |&rank| -(rank as f32));
        if token.kind == Kind::Normal && is_byte(&token.text) {
            token.kind = Kind::Byte;
        }
    }
    finish(source, Some(&tokenizer), tokens, metadata)
}

fn finish(
    source: &Source,
    tokenizer: Option<&TokenizerJson>,
    tokens: Vec<Token>,
    metadata: &mut Metadata,
) -> Result<bool, ConvertError> {
    let n_tokens = tokens.len();
    write_tokens("llama", "default", tokens, true, metadata);
    special::write(source, tokenizer, Some(n_tokens), metadata)?;
    Ok(true)
}

fn replace(tokens: &mut [Token], id: u64, text: &str, kind: Kind) {
    // Ids beyond the model's vocabulary occur, and mean nothing.
    if let Some(token) = usize::try_from(id).ok().and_then(|id| tokens.get_mut(id)) {
        *token = Token { text: text.to_owned(), score: ADDED_SCORE, kind };
    }
}

fn added_tokens(config: &Object) -> impl Iterator<Item = (u64, &str, bool)> {
    let decoder = config.get("added_tokens_decoder").and_then(Value::as_object);
    decoder.into_iter().flatten().filter_map(|(id, token)| {
        let is_special = token.get("special").and_then(Value::as_bool).unwrap_or(false);
        Some((id.parse().ok()?, token.get("content")?.as_str()?, is_special))
    })
}

fn is_byte(text: &str) -> bool {
    let digits = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}

/// The pieces, and unused tokens up to the size of the model's vocabulary.
fn read(source: &Source) -> Result<Option<Vec<Token>>, ConvertError> {
    let folder = &source.folder;
    let Some(bytes) = folder.bytes(FILE, MAX_BYTES)? else { return Ok(None) };
    let pieces = pieces(&bytes).ok_or_else(|| {
        ConvertError::invalid(&folder.path(FILE), "it is not a SentencePiece model")
    })?;
    let n_tokens = match source.config.count(&["vocab_size"])? {
        Some(n_tokens) => check_count(n_tokens)?,
        None => check_count(pieces.len() as u64)?,
    };
    let mut tokens = pieces;
    tokens.truncate(n_tokens);
    tokens.extend((tokens.len()..n_tokens).map(Token::unused));
    for (text, id) in added_file(folder)? {
        replace(&mut tokens, id, &text, Kind::UserDefined);
    }
    Ok(Some(tokens))
}

fn added_file(folder: &Folder) -> Result<Vec<(String, u64)>, ConvertError> {
    let tokens = folder.object("added_tokens.json")?.unwrap_or_default();
    Ok(tokens.into_iter().filter_map(|(text, id)| Some((text, id.as_u64()?))).collect())
}

/// Of sentencepiece_model.proto: `repeated SentencePiece pieces = 1`, in which `string piece = 1`,
/// `float score = 2` and `Type type = 3`.
fn pieces(mut model: &[u8]) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    while let Some((number, field)) = next_field(&mut model)? {
        let (1, Field::Bytes(mut piece)) = (number, field) else { continue };
        let mut token = Token { text: String::new(), score: 0.0, kind: Kind::Normal };
        while let Some((number, field)) = next_field(&mut piece)? {
            match (number, field) {
                (1, Field::Bytes(text)) => token.text = String::from_utf8(text.to_vec()).ok()?,
                (2, Field::Fixed32(bytes)) => token.score = f32::from_le_bytes(bytes),
                (3, Field::Varint(kind)) => {
                    token.kind = match kind {
                        2 => Kind::Unknown,
                        3 => Kind::Control,
                        5 => Kind::Unused,
                        6 => Kind::Byte,
                        _ => Kind::Normal,
                    }
                }
                _ => {}
            }
        }
        tokens.push(token);
    }
    Some(tokens).filter(|tokens| !tokens.is_empty())
}

/// A field of a protobuf message.
enum Field<'m> {
    Varint(u64),
    Fixed32([u8; 4]),
    Bytes(&'m [u8]),
    /// Of a type that is not read.
    Other,
}

/// `Some(None)` at the end, `None` if there is no field.
#[expect(clippy::option_option, reason = "the end and an error are two things")]
fn next_field<'m>(message: &mut &'m [u8]) -> Option<Option<(u64, Field<'m>)>> {
    if message.is_empty() {
        return Some(None);
    }
    let tag = varint(message)?;
    let field = match tag & 7 {
        0 => Field::Varint(varint(message)?),
        1 => {
            message.split_off(..8)?;
            Field::Other
        }
        2 => {
            let len = usize::try_from(varint(message)?).ok()?;
            Field::Bytes(message.split_off(..len)?)
        }
        5 => Field::Fixed32(message.split_off(..4)?.try_into().ok()?),
        _ => return None,
    };
    Some(Some((tag >> 3, field)))
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *message.split_off_first()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}
