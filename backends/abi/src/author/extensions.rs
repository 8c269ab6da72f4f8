//! The C side of the optional powers, as [`shims`](super::shims) is for the rest.

use super::contexts::{context, fill};
use super::shims::{copy_out, guard, into_bytes, model, slice, struct_size};
use super::{
    ChatModel, Grammar, GrammarModel, LoraModel, Model, MtpContext, PartsContext, RankModel,
};
use crate::raw::{self, Pos, Seq, Token};
use crate::types::{PluginError, Result, Status};
use std::ffi::{CStr, OsStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// `hearth.chat/1` of a model type.
pub const fn chat_table<M: ChatModel>() -> raw::Chat {
    raw::Chat { struct_size: struct_size::<raw::Chat>(), render: render::<M>, parse: parse::<M> }
}

/// `hearth.grammar/1` of a model type.
pub const fn grammar_table<M: GrammarModel>() -> raw::GrammarExt {
    raw::GrammarExt {
        struct_size: struct_size::<raw::GrammarExt>(),
        create: grammar_create::<M>,
        destroy: grammar_destroy::<M>,
        mask: grammar_mask::<M>,
        accept: grammar_accept::<M>,
        accept_text: grammar_accept_text::<M>,
    }
}

/// `hearth.lora/1` of a model type.
pub const fn lora_table<M: LoraModel>() -> raw::Lora {
    raw::Lora {
        struct_size: struct_size::<raw::Lora>(),
        open: lora_open::<M>,
        close: lora_close::<M>,
        attach: lora_attach::<M>,
    }
}

/// `hearth.mtp/1` of a context type.
pub const fn mtp_table<C: MtpContext>() -> raw::Mtp {
    raw::Mtp {
        struct_size: struct_size::<raw::Mtp>(),
        begin: mtp_begin::<C>,
        draft: mtp_draft::<C>,
    }
}

/// `hearth.parts/1` of a context type.
pub const fn parts_table<C: PartsContext>() -> raw::Parts {
    raw::Parts {
        struct_size: struct_size::<raw::Parts>(),
        save: part_save::<C>,
        load: part_load::<C>,
    }
}

/// `hearth.rank/1` of a model type.
pub const fn rank_table<M: RankModel>() -> raw::Rank {
    raw::Rank { struct_size: struct_size::<raw::Rank>(), tokenize: rank_tokenize::<M> }
}

/// # Safety
/// As [`slice`].
unsafe fn text<'a>(data: *const c_char, len: usize) -> Result<&'a str> {
    // SAFETY: promised by the caller.
    let bytes = unsafe { slice(data.cast::<u8>(), len)? };
    std::str::from_utf8(bytes)
        .map_err(|_| PluginError::new(Status::InvalidArgument, "the text is not UTF-8"))
}

fn null() -> PluginError {
    PluginError::new(Status::InvalidArgument, "null pointer")
}

unsafe extern "C" fn render<M: ChatModel>(
    handle: *const raw::Model,
    request: *const c_char,
    request_len: usize,
    answer: *mut raw::Bytes,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: an open model of ours; the rest is lent by the host for the call.
    unsafe {
        guard(error, || {
            let answer = answer.as_mut().ok_or_else(null)?;
            *answer = into_bytes(model::<M>(handle)?.render(text(request, request_len)?)?);
            Ok(())
        })
    }
}

unsafe extern "C" fn parse<M: ChatModel>(
    handle: *const raw::Model,
    parser: *const c_char,
    parser_len: usize,
    generated: *const c_char,
    generated_len: usize,
    partial: bool,
    message: *mut raw::Bytes,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: an open model of ours; the rest is lent by the host for the call.
    unsafe {
        guard(error, || {
            let message = message.as_mut().ok_or_else(null)?;
            let parser = text(parser, parser_len)?;
            *message = into_bytes(model::<M>(handle)?.parse(
                parser,
                text(generated, generated_len)?,
                partial,
            )?);
            Ok(())
        })
    }
}

unsafe extern "C" fn grammar_create<M: GrammarModel>(
    handle: *const raw::Model,
    source: *const c_char,
    source_len: usize,
    root: *const c_char,
    grammar: *mut *mut raw::Grammar,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: an open model of ours; root is NUL-terminated; the rest is lent by the host for the call.
    unsafe {
        guard(error, || {
            let out = grammar.as_mut().ok_or_else(null)?;
            *out = std::ptr::null_mut();
            if root.is_null() {
                return Err(null());
            }
            let root = CStr::from_ptr(root).to_str().map_err(|_| null())?;
            let created = model::<M>(handle)?.grammar(text(source, source_len)?, root)?;
            *out = Box::into_raw(Box::new(created)).cast::<raw::Grammar>();
            Ok(())
        })
    }
}

unsafe extern "C" fn grammar_destroy<M: GrammarModel>(handle: *mut raw::Grammar) {
    if !handle.is_null() {
        // SAFETY: grammar_create made it by Box::into_raw, and the host destroys it once.
        let boxed = unsafe { Box::from_raw(handle.cast::<M::Grammar>()) };
        let _ = catch_unwind(AssertUnwindSafe(|| drop(boxed)));
    }
}

unsafe extern "C" fn grammar_mask<M: GrammarModel>(
    handle: *mut raw::Grammar,
    tokens: *const Token,
    logits: *mut f32,
    n: usize,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: a grammar of ours on the engine thread; both arrays have n entries and do not overlap.
    unsafe {
        guard(error, || {
            let grammar = handle.cast::<M::Grammar>().as_mut().ok_or_else(null)?;
            if n == 0 {
                return Ok(());
            }
            if logits.is_null() {
                return Err(null());
            }
            grammar.mask(slice(tokens, n)?, std::slice::from_raw_parts_mut(logits, n))
        })
    }
}

unsafe extern "C" fn grammar_accept<M: GrammarModel>(
    handle: *mut raw::Grammar,
    token: Token,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: a grammar of ours on the engine thread.
    unsafe { guard(error, || handle.cast::<M::Grammar>().as_mut().ok_or_else(null)?.accept(token)) }
}

unsafe extern "C" fn grammar_accept_text<M: GrammarModel>(
    handle: *mut raw::Grammar,
    taken: *const c_char,
    taken_len: usize,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: a grammar of ours on the engine thread; the text is lent by the host for the call.
    unsafe {
        guard(error, || {
            let grammar = handle.cast::<M::Grammar>().as_mut().ok_or_else(null)?;
            grammar.accept_text(slice(taken.cast::<u8>(), taken_len)?)
        })
    }
}

unsafe extern "C" fn lora_open<M: LoraModel>(
    handle: *mut raw::Model,
    path: *const c_char,
    adapter: *mut *mut raw::Adapter,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: an open model of ours; path is NUL-terminated; adapter is the host's.
    unsafe {
        guard(error, || {
            let out = adapter.as_mut().ok_or_else(null)?;
            *out = std::ptr::null_mut();
            if path.is_null() {
                return Err(null());
            }
            let path = Path::new(OsStr::from_bytes(CStr::from_ptr(path).to_bytes()));
            *out =
                Box::into_raw(Box::new(model::<M>(handle)?.adapter(path)?)).cast::<raw::Adapter>();
            Ok(())
        })
    }
}

unsafe extern "C" fn lora_close<M: LoraModel>(handle: *mut raw::Adapter) {
    if !handle.is_null() {
        // SAFETY: lora_open made it by Box::into_raw, and the host closes it once.
        let boxed = unsafe { Box::from_raw(handle.cast::<M::Adapter>()) };
        let _ = catch_unwind(AssertUnwindSafe(|| drop(boxed)));
    }
}

unsafe extern "C" fn lora_attach<M: LoraModel>(
    handle: *mut raw::Context,
    adapters: *const *mut raw::Adapter,
    scales: *const f32,
    n: usize,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: a context of ours on the engine thread; both arrays have n entries, the adapters are open ones of ours.
    unsafe {
        guard(error, || {
            let adapters = slice(adapters, n)?
                .iter()
                .map(|adapter| adapter.cast::<M::Adapter>().cast_const().as_ref().ok_or_else(null))
                .collect::<Result<Vec<_>>>()?;
            let pairs: Vec<_> =
                adapters.into_iter().zip(slice(scales, n)?.iter().copied()).collect();
            M::attach(context::<<M as Model>::Context>(handle)?, &pairs)
        })
    }
}

unsafe extern "C" fn mtp_begin<C: MtpContext>(
    handle: *mut raw::Context,
    n_most: *mut u32,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: a context of ours on the engine thread; n_most is the host's.
    unsafe {
        guard(error, || {
            *n_most.as_mut().ok_or_else(null)? = context::<C>(handle)?.begin()?;
            Ok(())
        })
    }
}

unsafe extern "C" fn part_save<C: PartsContext>(
    handle: *mut raw::Context,
    seq: Seq,
    p0: Pos,
    p1: Pos,
    buffer: *mut u8,
    capacity: usize,
    n_out: *mut usize,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: a context of ours on the engine thread; buffer has room for capacity bytes, and n_out is the host's.
    unsafe {
        guard(error, || {
            let context = context::<C>(handle)?;
            let needed = context.part_save_len(seq, p0, p1)?;
            fill(buffer, capacity, n_out, needed, |buffer| context.part_save(seq, p0, p1, buffer))
        })
    }
}

unsafe extern "C" fn part_load<C: PartsContext>(
    handle: *mut raw::Context,
    seq: Seq,
    data: *const u8,
    len: usize,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: a context of ours on the engine thread; data has len bytes.
    unsafe { guard(error, || context::<C>(handle)?.part_load(seq, slice(data, len)?)) }
}

unsafe extern "C" fn mtp_draft<C: MtpContext>(
    handle: *mut raw::Context,
    sequences: *const Seq,
    tokens: *const Token,
    n: usize,
    n_guesses: usize,
    guesses: *mut Token,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: a context of ours on the engine thread; both arrays have n entries, and there is room for n_guesses of each.
    unsafe {
        guard(error, || {
            let (sequences, tokens) = (slice(sequences, n)?, slice(tokens, n)?);
            let len = n.checked_mul(n_guesses).filter(|len| *len > 0).ok_or_else(null)?;
            if guesses.is_null() {
                return Err(null());
            }
            // The host's room may never have been written; a &mut [Token] over it must not expose that.
            (0..len).for_each(|at| guesses.add(at).write(-1));
            let guesses = std::slice::from_raw_parts_mut(guesses, len);
            context::<C>(handle)?.draft(sequences, tokens, n_guesses, guesses)
        })
    }
}

unsafe extern "C" fn rank_tokenize<M: RankModel>(
    handle: *const raw::Model,
    query: *const c_char,
    query_len: usize,
    document: *const c_char,
    document_len: usize,
    tokens: *mut Token,
    capacity: usize,
    n_out: *mut usize,
    error: *mut raw::Error,
) -> raw::RawStatus {
    // SAFETY: an open model of ours; texts and tokens are the host's, with the lengths given.
    unsafe {
        guard(error, || {
            let (query, document) = (text(query, query_len)?, text(document, document_len)?);
            let found = model::<M>(handle)?.tokenize_pair(query, document)?;
            copy_out(&found, tokens, capacity, n_out)
        })
    }
}
