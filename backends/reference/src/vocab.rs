//! Bytes and a few control tokens.
//!
//! Token `n` below 256 is the byte `n`. Above stand the control tokens, then as many unused ones as the model's
//! `extra_tokens` says, for tests that need a large vocabulary.

use hearth_abi::Piece;
use hearth_abi::raw::Token;

/// Begins a text.
pub const BOS: Token = 256;
/// Ends a text.
pub const EOS: Token = 257;
/// Begins a system message.
pub const SYSTEM: Token = 258;
/// Begins a user's message.
pub const USER: Token = 259;
/// Begins an answer.
pub const ASSISTANT: Token = 260;
/// Begins a tool's result.
pub const TOOL: Token = 261;
/// Ends a message, and so an answer.
pub const END: Token = 262;

/// Bytes and control tokens; a model's `extra_tokens` come on top.
pub const N_BASE: u32 = 263;

const SPELLINGS: [(&str, Token); 7] = [
    ("<|bos|>", BOS),
    ("<|eos|>", EOS),
    ("<|system|>", SYSTEM),
    ("<|user|>", USER),
    ("<|assistant|>", ASSISTANT),
    ("<|tool|>", TOOL),
    ("<|end|>", END),
];

/// How a control token is written, `None` for a byte.
pub fn spelling(token: Token) -> Option<String> {
    match SPELLINGS.iter().find(|(_, control)| *control == token) {
        Some((text, _)) => Some((*text).to_owned()),
        None if token < 256 => None,
        None => Some(format!("<|extra{token}|>")),
    }
}

/// Text to tokens; `parse_special` reads spelled-out control tokens as such.
pub fn tokenize(text: &[u8], parse_special: bool) -> Vec<Token> {
    let mut tokens = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        let control = SPELLINGS
            .iter()
            .find(|(spelled, _)| parse_special && rest.starts_with(spelled.as_bytes()));
        if let Some((spelled, token)) = control {
            tokens.push(*token);
            rest = &rest[spelled.len()..];
        } else {
            tokens.push(Token::from(*byte));
            rest = after;
        }
    }
    tokens
}

/// The bytes of a token; control tokens have some only when `special`.
pub fn piece(token: Token, special: bool) -> Piece {
    match u8::try_from(token) {
        Ok(byte) => Piece::from_slice(&[byte]),
        Err(_) if special => spelling(token).unwrap_or_default().into_bytes().into(),
        Err(_) => Piece::new(),
    }
}

/// Generating this token ends the text.
pub fn is_end(token: Token) -> bool {
    token == EOS || token == END
}
