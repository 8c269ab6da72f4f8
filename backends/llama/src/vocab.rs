//! Text to tokens and back. llama.cpp asserts on tokens out of range and throws on text that is not UTF-8, so both are
//! checked before.

use crate::shim::{
    error, guarded, hearth_shim_detokenize, hearth_shim_token_piece, hearth_shim_tokenize, invalid,
};
use hearth_abi::raw::Token;
use hearth_abi::{Piece, Result, Status};
use llama_cpp_sys_2 as sys;
use smallvec::SmallVec;
use std::ffi::c_char;

/// Tokens around a question and a text.
pub(crate) struct PairMarks {
    pub(crate) begin: Vec<Token>,
    pub(crate) between: Vec<Token>,
    pub(crate) end: Vec<Token>,
}

/// A model's vocabulary. Lives as long as the model that holds it.
#[derive(Debug)]
pub(crate) struct Vocab {
    raw: *const sys::llama_vocab,
    n_tokens: i32,
}

impl Vocab {
    /// `None` if the model's file has no vocabulary.
    ///
    /// # Safety
    /// `raw` is the vocabulary of a model that outlives the answer.
    pub(crate) unsafe fn new(raw: *const sys::llama_vocab) -> Option<Self> {
        // SAFETY: promised by the caller.
        let (kind, n_tokens) =
            unsafe { (sys::llama_vocab_type(raw), sys::llama_vocab_n_tokens(raw)) };
        (kind != sys::LLAMA_VOCAB_TYPE_NONE && n_tokens > 0).then_some(Self { raw, n_tokens })
    }

    pub(crate) fn raw(&self) -> *const sys::llama_vocab {
        self.raw
    }

    pub(crate) fn n_tokens(&self) -> u32 {
        self.n_tokens.unsigned_abs()
    }

    pub(crate) fn has(&self, token: Token) -> bool {
        (0..self.n_tokens).contains(&token)
    }

    pub(crate) fn check(&self, token: Token) -> Result<()> {
        if self.has(token) {
            return Ok(());
        }
        Err(invalid(format!("token {token} is not in the vocabulary of {} tokens", self.n_tokens)))
    }

    pub(crate) fn is_end(&self, token: Token) -> bool {
        // SAFETY: the vocabulary is alive, and the token is in it.
        self.has(token) && unsafe { sys::llama_vocab_is_eog(self.raw, token) }
    }

    pub(crate) fn bos(&self) -> Option<Token> {
        // SAFETY: the vocabulary is alive.
        let token = unsafe { sys::llama_vocab_bos(self.raw) };
        self.has(token).then_some(token)
    }

    pub(crate) fn eos(&self) -> Option<Token> {
        // SAFETY: the vocabulary is alive.
        let token = unsafe { sys::llama_vocab_eos(self.raw) };
        self.has(token).then_some(token)
    }

    pub(crate) fn adds_bos(&self) -> bool {
        // SAFETY: the vocabulary is alive.
        unsafe { sys::llama_vocab_get_add_bos(self.raw) }
    }

    /// What stands around the two texts of a pair.
    pub(crate) fn pair_marks(&self) -> PairMarks {
        // SAFETY: the vocabulary is alive.
        let (bos, eos, sep, adds_eos, adds_sep) = unsafe {
            (
                sys::llama_vocab_bos(self.raw),
                sys::llama_vocab_eos(self.raw),
                sys::llama_vocab_sep(self.raw),
                sys::llama_vocab_get_add_eos(self.raw),
                sys::llama_vocab_get_add_sep(self.raw),
            )
        };
        let eos = if self.has(eos) { eos } else { sep };
        let mark = |token, is_there: bool| Some(token).filter(|token| is_there && self.has(*token));
        let end = mark(eos, adds_eos);
        PairMarks {
            begin: mark(bos, self.adds_bos()).into_iter().collect(),
            between: end.into_iter().chain(mark(sep, adds_sep)).collect(),
            end: end.into_iter().collect(),
        }
    }

    pub(crate) fn tokenize(
        &self,
        text: &[u8],
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<Token>> {
        let text = std::str::from_utf8(text).map_err(|problem| {
            invalid(format!("the text is not UTF-8 from byte {} on", problem.valid_up_to()))
        })?;
        let text_len = len_of(text.len(), "the text")?;
        let tokens = filled(text.len() + 8, 0, |tokens, capacity| {
            let mut answer = 0;
            // SAFETY: the vocabulary is alive; text and tokens have the lengths given.
            guarded(|message| unsafe {
                hearth_shim_tokenize(
                    self.raw,
                    text.as_ptr().cast::<c_char>(),
                    text_len,
                    tokens,
                    capacity,
                    add_special,
                    parse_special,
                    &raw mut answer,
                    message,
                )
            })
            .map(|()| answer)
        });
        tokens.map(SmallVec::into_vec)
    }

    pub(crate) fn piece(&self, token: Token, special: bool) -> Result<Piece> {
        self.check(token)?;
        filled(32, 0_u8, |buffer, capacity| {
            let mut answer = 0;
            // SAFETY: the token is in the vocabulary; the buffer has the capacity given.
            guarded(|message| unsafe {
                let buffer = buffer.cast::<c_char>();
                hearth_shim_token_piece(
                    self.raw,
                    token,
                    buffer,
                    capacity,
                    special,
                    &raw mut answer,
                    message,
                )
            })
            .map(|()| answer)
        })
    }

    pub(crate) fn detokenize(&self, tokens: &[Token], special: bool) -> Result<Vec<u8>> {
        for token in tokens {
            self.check(*token)?;
        }
        let n_tokens = len_of(tokens.len(), "the list of tokens")?;
        let text = filled(tokens.len() * 8 + 32, 0_u8, |buffer, capacity| {
            let mut answer = 0;
            // SAFETY: all tokens are in the vocabulary; tokens and buffer have the lengths given.
            guarded(|message| unsafe {
                hearth_shim_detokenize(
                    self.raw,
                    tokens.as_ptr(),
                    n_tokens,
                    buffer.cast::<c_char>(),
                    capacity,
                    !special,
                    special,
                    &raw mut answer,
                    message,
                )
            })
            .map(|()| answer)
        });
        text.map(SmallVec::into_vec)
    }
}

fn len_of(len: usize, what: &str) -> Result<i32> {
    i32::try_from(len).map_err(|_| invalid(format!("{what} is too long ({len})")))
}

/// Calls `body(buffer, capacity)`, which answers the number written, or minus the number needed.
fn filled<T: Copy>(
    first_capacity: usize,
    empty: T,
    mut body: impl FnMut(*mut T, i32) -> std::result::Result<i32, String>,
) -> Result<SmallVec<[T; 32]>> {
    let mut buffer = SmallVec::from_elem(empty, first_capacity);
    for _ in 0..2 {
        let capacity = len_of(buffer.len(), "the answer")?;
        let answer = body(buffer.as_mut_ptr(), capacity).map_err(invalid)?;
        let size = answer.unsigned_abs() as usize;
        if answer >= 0 {
            buffer.truncate(size);
            return Ok(buffer);
        }
        if answer == i32::MIN {
            break;
        }
        buffer.resize(size, empty);
    }
    Err(error(Status::Failed, "llama.cpp gives impossible buffer sizes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_grows_to_what_is_needed() {
        let mut capacities = Vec::new();
        let answer = filled(2, 0_u8, |buffer, capacity| {
            capacities.push(capacity);
            if capacity < 5 {
                return Ok(-5);
            }
            // SAFETY: the buffer has at least five elements.
            unsafe { std::ptr::copy_nonoverlapping(b"hello".as_ptr(), buffer, 5) };
            Ok(5)
        });
        assert_eq!(answer.unwrap().as_slice(), b"hello");
        assert_eq!(capacities, [2, 5]);
    }

    #[test]
    fn impossible_sizes_end() {
        assert_eq!(filled(1, 0_u8, |_, _| Ok(i32::MIN)).unwrap_err().status, Status::Failed);
        assert_eq!(
            filled(1, 0_u8, |_, capacity| Ok(-capacity - 1)).unwrap_err().status,
            Status::Failed
        );
        assert_eq!(
            filled(1, 0_u8, |_, _| Err("thrown".into())).unwrap_err().status,
            Status::InvalidArgument
        );
    }
}
