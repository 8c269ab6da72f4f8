//! Scenarios about facts, metadata, tokens and text.

use super::bench::{Bench, Step, call, ensure, must, must_fail, not_applicable, refused};
use crate::host::Model;
use crate::raw::{self, Token};
use crate::types::{Result, Status};
use std::collections::HashSet;
use std::ffi::c_char;

const TEXTS: [&str; 9] = [
    "Hello, world!",
    "  two  spaces, a\ttab and\n\na blank line\n",
    "Grüße aus Köln, naïve café",
    "日本語のテキスト и русский текст",
    "👩‍👩‍👧‍👦 emoji 🏳️‍🌈 with joiners",
    "e\u{301} combining",
    "fn main() { println!(\"{}\", 1 << 3); }",
    "",
    "a\0b",
];

pub(super) fn info(bench: &mut Bench) -> Step {
    let model = bench.model()?;
    let info = model.info();
    let n_vocab = i64::from(info.n_vocab);
    ensure!(info.can_generate || info.can_embed, "the model can neither generate nor embed");
    ensure!(info.n_vocab > 0 && info.n_ctx_train > 0, "n_vocab and n_ctx_train must not be 0");
    ensure!(info.n_embd > 0, "n_embd must not be 0");
    for (what, token) in [("bos_token", info.bos_token), ("eos_token", info.eos_token)] {
        ensure!(
            token.is_none_or(|token| i64::from(token) < n_vocab),
            "{what} {token:?} is no token"
        );
    }
    ensure!(!info.add_bos || info.bos_token.is_some(), "add_bos is set, and there is no bos_token");
    for (what, text) in [("architecture", &info.architecture), ("description", &info.description)] {
        ensure!(!text.is_empty(), "the {what} is empty");
        ensure!(!text.contains(char::REPLACEMENT_CHARACTER), "the {what} is not UTF-8: `{text}`");
    }
    Ok(())
}

pub(super) fn metadata(bench: &mut Bench) -> Step {
    let model = bench.model()?;
    let meta = must("model_meta", model.meta())?;
    let mut keys = HashSet::new();
    for (key, _) in &meta {
        ensure!(!key.is_empty(), "a metadata key is empty");
        ensure!(keys.insert(key), "the metadata key `{key}` stands twice");
    }
    ensure!(
        must("model_meta", model.meta())? == meta,
        "metadata is not the same at the second look"
    );
    Ok(())
}

pub(super) fn metadata_range(bench: &mut Bench) -> Step {
    let model = bench.model()?;
    let entry = bench.plugin.entry();
    // SAFETY: the model is open.
    let count = unsafe { (entry.model_meta_count)(model.raw()) };
    for index in [count, u32::MAX] {
        let (mut key, mut value) = (std::ptr::null(), std::ptr::null());
        // SAFETY: the model is open; both out-parameters are ours.
        let answer = call(|error| unsafe {
            (entry.model_meta)(model.raw(), index, &raw mut key, &raw mut value, error)
        });
        must_fail(
            &format!("model_meta({index})"),
            answer,
            &[Status::InvalidArgument, Status::NotFound],
        )?;
    }
    Ok(())
}

fn tokens_of(model: &Model, text: &str) -> Step<Vec<Token>> {
    let tokens = must(&format!("tokenize of {text:?}"), model.tokenize(text, false, false))?;
    let is_token =
        |token: &Token| u32::try_from(*token).is_ok_and(|token| token < model.info().n_vocab);
    ensure!(tokens.iter().all(is_token), "tokenize of {text:?} gave a number that is no token");
    Ok(tokens)
}

pub(super) fn round_trip(bench: &mut Bench) -> Step {
    let model = bench.model()?;
    ensure!(tokens_of(&model, "")?.is_empty(), "no text gave tokens");
    if !model.info().can_generate {
        return not_applicable("tokenizers of models that do not generate may normalise the text");
    }
    for text in TEXTS {
        let back = must("detokenize", model.detokenize(&tokens_of(&model, text)?, false))?;
        let shown = String::from_utf8_lossy(&back);
        ensure!(back == text.as_bytes(), "{text:?} came back as {shown:?}");
    }
    Ok(())
}

pub(super) fn special(bench: &mut Bench) -> Step {
    let model = bench.model()?;
    let info = model.info();
    let plain = tokens_of(&model, TEXTS[0])?;
    let with_special = must("tokenize", model.tokenize(TEXTS[0], true, false))?;
    if let Some(bos) = info.bos_token.filter(|_| info.add_bos) {
        ensure!(
            with_special.first() == Some(&bos),
            "add_bos is set, and add_special does not begin with bos_token"
        );
        ensure!(plain.first() != Some(&bos), "a text without add_special begins with bos_token");
    }
    let Some(eos) = info.eos_token else {
        return not_applicable("this vocabulary has no eos_token to spell out");
    };
    ensure!(model.token_is_end(eos), "eos_token does not end a text");
    let piece = must("token_piece", model.token_piece(eos, false))?;
    ensure!(
        piece.is_empty(),
        "the control token {eos} yields {} bytes without `special`",
        piece.len()
    );
    let spelled = must("token_piece", model.token_piece(eos, true))?;
    let Ok(spelled) = String::from_utf8(spelled.into_vec()) else {
        return not_applicable("eos_token has no readable spelling");
    };
    let text = format!("one{spelled}two");
    let read = must("tokenize", model.tokenize(&text, false, true))?;
    ensure!(
        spelled.is_empty() || read.contains(&eos),
        "parse_special does not read `{spelled}` as token {eos}"
    );
    let unread = tokens_of(&model, &text)?;
    ensure!(!unread.contains(&eos), "`{spelled}` is read as token {eos} without parse_special");
    Ok(())
}

/// Calls with room for nothing, one too few, and exactly enough, or more.
pub(super) fn try_capacities<T: Copy + PartialEq>(
    what: &str,
    blank: T,
    n: usize,
    mut body: impl FnMut(*mut T, usize, *mut usize, *mut raw::Error) -> raw::RawStatus,
) -> Step {
    for capacity in [0, n.saturating_sub(1), n, n + 3] {
        let mut buffer = vec![blank; n + 8];
        let mut n_out = usize::MAX;
        let answer: Result<()> =
            call(|error| body(buffer.as_mut_ptr(), capacity, &raw mut n_out, error));
        ensure!(
            buffer[capacity..].iter().all(|item| *item == blank),
            "{what} wrote beyond a capacity of {capacity}"
        );
        if capacity < n {
            must_fail(
                &format!("{what} with room for {capacity} of {n}"),
                answer,
                &[Status::BufferTooSmall],
            )?;
        } else {
            must(&format!("{what} with room for {capacity}, where {n} are needed"), answer)?;
        }
        ensure!(n_out == n, "{what} with room for {capacity} set n_out to {n_out}, not {n}");
    }
    Ok(())
}

pub(super) fn short_buffers(bench: &mut Bench) -> Step {
    let model = bench.model()?;
    let entry = bench.plugin.entry();
    let text = "a text, long enough for several tokens";
    let tokens = tokens_of(&model, text)?;
    try_capacities("tokenize", i32::MIN, tokens.len(), |buffer, capacity, n_out, error| {
        let start = text.as_ptr().cast::<c_char>();
        // SAFETY: the model is open; text and buffer have the lengths given.
        unsafe {
            (entry.tokenize)(
                model.raw(),
                start,
                text.len(),
                false,
                false,
                buffer,
                capacity,
                n_out,
                error,
            )
        }
    })?;
    let whole = must("detokenize", model.detokenize(&tokens, false))?;
    try_capacities("detokenize", 0x7f, whole.len(), |buffer, capacity, n_out, error| {
        let (start, n) = (tokens.as_ptr(), tokens.len());
        // SAFETY: the model is open; tokens and buffer have the lengths given.
        unsafe { (entry.detokenize)(model.raw(), start, n, false, buffer, capacity, n_out, error) }
    })?;
    let longest = tokens
        .iter()
        .copied()
        .max_by_key(|token| model.token_piece(*token, false).map_or(0, |p| p.len()));
    let Some(token) = longest else { return not_applicable("the text has no tokens") };
    let piece = must("token_piece", model.token_piece(token, false))?;
    try_capacities("token_piece", 0x7f, piece.len(), |buffer, capacity, n_out, error| {
        // SAFETY: the model is open; the buffer has the capacity given.
        unsafe { (entry.token_piece)(model.raw(), token, false, buffer, capacity, n_out, error) }
    })
}

pub(super) fn pieces(bench: &mut Bench) -> Step {
    let model = bench.model()?;
    for text in TEXTS {
        let tokens = tokens_of(&model, text)?;
        let mut joined = Vec::new();
        for token in &tokens {
            joined.extend(must("token_piece", model.token_piece(*token, false))?);
        }
        let whole = must("detokenize", model.detokenize(&tokens, false))?;
        // detokenize takes away what tokenize put in front, which is at most a space.
        let is_whole = joined == whole || joined.strip_prefix(b" ") == Some(&whole);
        let (joined, whole) = (String::from_utf8_lossy(&joined), String::from_utf8_lossy(&whole));
        ensure!(
            is_whole || !model.info().can_generate,
            "the pieces make {joined:?}, and detokenize {whole:?}"
        );
    }
    Ok(())
}

pub(super) fn token_range(bench: &mut Bench) -> Step {
    let model = bench.model()?;
    let n_vocab =
        Token::try_from(model.info().n_vocab).map_err(|_| refused("n_vocab is beyond any token"));
    let n_vocab = must("model_info", n_vocab)?;
    let wrong = [-1, n_vocab, Token::MAX, Token::MIN];
    for token in wrong {
        must_fail(
            &format!("token_piece({token})"),
            model.token_piece(token, true),
            &[Status::InvalidArgument],
        )?;
        must_fail(
            &format!("detokenize({token})"),
            model.detokenize(&[token], true),
            &[Status::InvalidArgument],
        )?;
        ensure!(
            !model.token_is_end(token),
            "`{token}` is no token, and token_is_end is true for it"
        );
    }
    for token in 0..n_vocab {
        must(&format!("token_piece({token})"), model.token_piece(token, true))?;
    }
    Ok(())
}
