//! Scenarios about room in the KV memory and taking it back.

use super::bench::{
    Bench, Step, Writer, batch, ensure, failed, feed, must, must_fail, name, not_applicable,
    position,
};
use crate::host::Context;
use crate::raw::{Seq, Token};
use crate::types::Status;

/// Any number of tokens, not the same everywhere.
fn many(writer: &Writer, n: usize) -> Vec<Token> {
    writer.a.iter().chain(&writer.b).chain(&writer.c).copied().cycle().take(n).collect()
}

/// Decodes a long prompt in batches that fit.
fn feed_long(context: &mut Context, seq: Seq, tokens: &[Token]) -> Step {
    let n_batch = context.info().n_batch as usize;
    for (index, part) in tokens.chunks(n_batch).enumerate() {
        feed(context, seq, index * n_batch, part)?;
    }
    Ok(())
}

pub(super) fn full(bench: &mut Bench) -> Step {
    let writer = bench.writer()?;
    let mut context = writer.context()?;
    let n_ctx = context.info().n_ctx as usize;
    let half = n_ctx / 2;
    if (context.info().n_ctx_seq as usize) < n_ctx - half + 2 {
        return not_applicable("every sequence has cells of its own here, so they are never short");
    }
    let (first, second) = (many(&writer, half), many(&writer, n_ctx - half - 2));
    feed_long(&mut context, 0, &first)?;
    feed_long(&mut context, 1, &second)?;
    // Two cells are left.
    let next = &writer.c[..3];
    let answer = context.decode(&batch(1, second.len(), next));
    must_fail("decode of 3 tokens into 2 cells", answer, &[Status::NoKvSpace])?;
    let filled = feed(&mut context, 1, second.len(), &next[..2])?;
    let answer = context.decode(&batch(0, half, &next[..1]));
    must_fail("decode into full memory", answer, &[Status::NoKvSpace])?;
    must("seq_remove of a sequence in full memory", context.seq_remove(1, 0, None))?;
    feed_long(&mut context, 1, &second)?;
    let again = feed(&mut context, 1, second.len(), &next[..2])?;
    writer.same("the same prompt after memory was full", &again, &filled)?;
    must("seq_remove", context.seq_remove(1, 0, None))?;
    let mut other = writer.context()?;
    feed_long(&mut other, 0, &first)?;
    let wanted = feed(&mut other, 0, half, &writer.c)?;
    writer.same(
        "the other sequence after memory was full",
        &feed(&mut context, 0, half, &writer.c)?,
        &wanted,
    )
}

pub(super) fn remove_all(bench: &mut Bench) -> Step {
    let writer = bench.writer()?;
    let mut context = writer.context()?;
    must("seq_remove of an empty sequence", context.seq_remove(0, 0, None))?;
    let wanted = writer.logits_after(&[&writer.b])?;
    let n_rounds = context.info().n_ctx as usize / writer.a.len() + 2;
    for _ in 0..n_rounds.min(64) {
        feed(&mut context, 0, 0, &writer.a)?;
        must("seq_remove of a whole sequence", context.seq_remove(0, 0, None))?;
    }
    writer.same(
        "a prompt after another was removed",
        &feed(&mut context, 0, 0, &writer.b)?,
        &wanted,
    )?;
    must("seq_remove with an exact end", context.seq_remove(0, 0, Some(position(writer.b.len()))))?;
    writer.same("a prompt after itself was removed", &feed(&mut context, 0, 0, &writer.b)?, &wanted)
}

pub(super) fn roll_back(bench: &mut Bench) -> Step {
    let writer = bench.writer()?;
    let mut context = writer.context()?;
    let n = writer.a.len();
    let can = context.info().can_roll_back;
    feed(&mut context, 0, 0, &writer.a)?;
    // A second sequence, which must not be touched.
    feed(&mut context, 1, 0, &writer.b)?;
    feed(&mut context, 0, n, &writer.b)?;
    match context.seq_remove(0, position(n), None) {
        Ok(()) => {
            let wanted = writer.logits_after(&[&writer.a, &writer.c])?;
            let found = feed(&mut context, 0, n, &writer.c)?;
            writer.same("other tokens in place of removed ones", &found, &wanted)?;
        }
        Err(error) if error.status == Status::Unsupported => {
            ensure!(
                !can,
                "the memory says it can roll back, and answered UNSUPPORTED: {}",
                error.message
            );
            let wanted = writer.logits_after(&[&writer.a, &writer.b, &writer.c])?;
            let found = feed(&mut context, 0, n + writer.b.len(), &writer.c)?;
            writer.same("going on after UNSUPPORTED", &found, &wanted)?;
        }
        Err(error) => {
            return failed(format!(
                "seq_remove answered {}: {}",
                name(error.status),
                error.message
            ));
        }
    }
    if can {
        let length = n + writer.c.len();
        must("seq_remove of nothing", context.seq_remove(0, position(length), None))?;
        must("seq_remove of one token", context.seq_remove(0, position(length - 1), None))?;
        let wanted = writer.logits_after(&[&writer.a, &writer.c])?;
        let last = &writer.c[writer.c.len() - 1..];
        writer.same(
            "the last token once more",
            &feed(&mut context, 0, length - 1, last)?,
            &wanted,
        )?;
        must("seq_remove of all but one token", context.seq_remove(0, 1, None))?;
        let wanted = writer.logits_after(&[&writer.a[..1], &writer.b])?;
        writer.same(
            "all but one token replaced",
            &feed(&mut context, 0, 1, &writer.b)?,
            &wanted,
        )?;
    }
    let wanted = writer.logits_after(&[&writer.b, &writer.c])?;
    writer.same(
        "the sequence beside it",
        &feed(&mut context, 1, writer.b.len(), &writer.c)?,
        &wanted,
    )
}
