//! Scenarios about contexts, decoding and logits.

use super::bench::{
    Bench, Step, batch, config, ensure, feed, must, must_fail, name, position, push,
};
use crate::host::Batch;
use crate::types::{BatchEntry, ContextConfig, FlashAttention, KvType, Status};
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) fn context_info(bench: &mut Bench) -> Step {
    let writer = bench.writer()?;
    // Threads are the plugin's choice here.
    let asked = ContextConfig { n_threads: 0, n_threads_batch: 0, ..config() };
    let context = must("context_create", writer.model.context(&asked))?;
    let info = context.info();
    ensure!(
        info.n_ctx >= asked.n_ctx,
        "{} cells, where {} were asked for",
        info.n_ctx,
        asked.n_ctx
    );
    ensure!(
        (1..=info.n_ctx).contains(&info.n_ctx_seq),
        "n_ctx_seq is {} of n_ctx {}",
        info.n_ctx_seq,
        info.n_ctx
    );
    ensure!(
        info.n_batch >= asked.n_batch,
        "n_batch is {}, where {} was asked for",
        info.n_batch,
        asked.n_batch
    );
    ensure!(
        (1..=info.n_batch).contains(&info.n_ubatch),
        "n_ubatch is {} of n_batch {}",
        info.n_ubatch,
        info.n_batch
    );
    ensure!(
        info.n_seq_max >= asked.n_seq_max,
        "{} sequences, where {} were asked for",
        info.n_seq_max,
        asked.n_seq_max
    );
    ensure!(info.n_threads >= 1, "n_threads is 0 after the plugin chose");
    Ok(())
}

pub(super) fn set_threads(bench: &mut Bench) -> Step {
    let writer = bench.writer()?;
    let mut context = writer.context()?;
    for (n, n_batch) in [(0, 1), (1, 0), (0, 0)] {
        must_fail(
            &format!("set_threads({n}, {n_batch})"),
            context.set_threads(n, n_batch),
            &[Status::InvalidArgument],
        )?;
    }
    must("set_threads(1, 1)", context.set_threads(1, 1))?;
    let logits = feed(&mut context, 0, 0, &writer.a)?;
    writer.same("decode with one thread", &logits, &writer.logits_after(&[&writer.a])?)
}

pub(super) fn repeatable(bench: &mut Bench) -> Step {
    let writer = bench.writer()?;
    let wanted = writer.logits_after(&[&writer.a])?;
    ensure!(wanted.iter().all(|logit| !logit.is_nan()), "a logit is not a number");
    let second = feed(&mut writer.context()?, 0, 0, &writer.a)?;
    writer.exactly_same("the same prompt in a second context", &second, &wanted)?;
    let (mut one, mut other) = (writer.context()?, writer.context()?);
    writer.exactly_same(
        "the same prompt in the last sequence",
        &feed(&mut one, 3, 0, &writer.a)?,
        &wanted,
    )?;
    feed(&mut other, 0, 0, &writer.b)?;
    writer.same(
        "the same prompt beside another sequence",
        &feed(&mut other, 1, 0, &writer.a)?,
        &wanted,
    )?;
    writer.same(
        "the next part while another context works",
        &feed(&mut one, 3, writer.a.len(), &writer.c)?,
        &{ writer.logits_after(&[&writer.a, &writer.c])? },
    )
}

pub(super) fn formats(bench: &mut Bench) -> Step {
    let writer = bench.writer()?;
    let wanted = writer.logits_after(&[&writer.a])?;
    for kv_type in [KvType::F16, KvType::F32, KvType::Q8_0, KvType::Q4_0] {
        for flash_attention in [FlashAttention::Auto, FlashAttention::Off, FlashAttention::On] {
            let asked = ContextConfig { kv_type, flash_attention, ..config() };
            let label = format!("KV memory of {kv_type:?}, flash attention {flash_attention:?}");
            let mut context = match writer.model.context(&asked) {
                Err(error) if error.status == Status::Unsupported => continue,
                made => must(&format!("context_create with {label}"), made)?,
            };
            let found = feed(&mut context, 0, 0, &writer.a)?;
            match kv_type {
                KvType::F16 | KvType::F32 => writer.same(&label, &found, &wanted)?,
                KvType::Q8_0 | KvType::Q4_0 => writer.alike(&label, &found, &wanted)?,
            }
        }
    }
    Ok(())
}

pub(super) fn in_parts(bench: &mut Bench) -> Step {
    let writer = bench.writer()?;
    let wanted = writer.logits_after(&[&writer.a, &writer.c])?;
    let mut context = writer.context()?;
    feed(&mut context, 0, 0, &writer.a)?;
    writer.same(
        "a prompt in two parts",
        &feed(&mut context, 0, writer.a.len(), &writer.c)?,
        &wanted,
    )?;
    let mut last = Vec::new();
    for (index, token) in writer.a.iter().chain(&writer.c).enumerate() {
        last = feed(&mut context, 1, index, &[*token])?;
    }
    writer.same("a prompt token by token", &last, &wanted)
}

pub(super) fn outputs(bench: &mut Bench) -> Step {
    let writer = bench.writer()?;
    let n = writer.a.len();
    let marked = [2, n / 2, n - 1];
    let mut batch = Batch::default();
    for (index, token) in writer.a.iter().enumerate() {
        let output = marked.contains(&index);
        batch.push(BatchEntry { token: *token, position: position(index), sequence: 0, output });
    }
    let mut context = writer.context()?;
    must("decode", context.decode(&batch))?;
    for index in marked {
        let wanted = writer.logits_after(&[&writer.a[..=index]])?;
        let logits = must("logits", context.logits(index))?;
        writer.same(&format!("entry {index}"), logits, &wanted)?;
        // The host may change them in place, which must not show in the other rows.
        logits.fill(0.0);
    }
    Ok(())
}

pub(super) fn logits_range(bench: &mut Bench) -> Step {
    let writer = bench.writer()?;
    let mut context = writer.context()?;
    let wrong = [Status::InvalidArgument];
    must_fail("logits before any decode", context.logits(0).map(|_| ()), &wrong)?;
    must("decode", context.decode(&batch(0, 0, &writer.a)))?;
    must_fail("logits of an unmarked entry", context.logits(0).map(|_| ()), &wrong)?;
    must_fail("logits beyond the batch", context.logits(writer.a.len()).map(|_| ()), &wrong)?;
    must_fail("logits(2^32 - 1)", context.logits(u32::MAX as usize).map(|_| ()), &wrong)
}

pub(super) fn mixed_batch(bench: &mut Bench) -> Step {
    let writer = bench.writer()?;
    let n = writer.a.len().min(writer.b.len());
    let mut mixed = Batch::default();
    for (index, (a, b)) in writer.a.iter().zip(&writer.b).enumerate() {
        let last = if index + 1 == n { 0..1 } else { 0..0 };
        push(&mut mixed, 0, index, &[*a], last.clone());
        push(&mut mixed, 1, index, &[*b], last);
    }
    let mut context = writer.context()?;
    must("decode", context.decode(&mixed))?;
    let (a, b) = (&writer.a[..n], &writer.b[..n]);
    writer.same(
        "one of two prompts",
        must("logits", context.logits(2 * n - 2))?,
        &writer.logits_after(&[a])?,
    )?;
    writer.same(
        "the other",
        must("logits", context.logits(2 * n - 1))?,
        &writer.logits_after(&[b])?,
    )?;
    // One sequence takes a single token while another, new one takes a prompt: the engine's everyday step.
    let mut step = Batch::default();
    push(&mut step, 0, n, &writer.c[..1], 0..1);
    push(&mut step, 2, 0, &writer.b, writer.b.len() - 1..writer.b.len());
    must("decode", context.decode(&step))?;
    let wanted = writer.logits_after(&[a, &writer.c[..1]])?;
    writer.same("a single token beside a prompt", must("logits", context.logits(0))?, &wanted)?;
    let wanted = writer.logits_after(&[&writer.b])?;
    writer.same(
        "a prompt beside a single token",
        must("logits", context.logits(writer.b.len()))?,
        &wanted,
    )
}

pub(super) fn refused(bench: &mut Bench) -> Step {
    let writer = bench.writer()?;
    let mut context = writer.context()?;
    let n = writer.a.len();
    feed(&mut context, 0, 0, &writer.a)?;
    let (n_seq_max, n_batch) = (context.info().n_seq_max, context.info().n_batch as usize);
    let n_vocab = i32::try_from(writer.model.info().n_vocab).unwrap_or(i32::MAX);
    let token = writer.c[0];
    let one = |seq: i32, from: usize, token: i32| batch(seq, from, &[token]);
    let mut torn = batch(0, n, &writer.c[..2]);
    push(&mut torn, 0, n + 3, &writer.c[2..3], 0..1);
    let mut late = batch(1, 0, &writer.b[..4]);
    push(&mut late, 0, n + 1, &[token], 0..1);
    let too_long: Vec<_> = writer.c.iter().copied().cycle().take(n_batch + 1).collect();
    let cases = [
        ("a gap before the batch", one(0, n + 1, token)),
        ("a position that is taken", one(0, n - 1, token)),
        ("position 0 of a sequence that has it", one(0, 0, token)),
        ("an empty sequence that begins at position 1", one(1, 1, token)),
        ("a gap inside the batch", torn),
        ("a good sequence and then a bad one", late),
        ("a sequence that is negative", one(-1, 0, token)),
        (
            "a sequence beyond n_seq_max",
            one(i32::try_from(n_seq_max).unwrap_or(i32::MAX), 0, token),
        ),
        ("a token that is negative", one(0, n, -1)),
        ("a token beyond n_vocab", one(0, n, n_vocab)),
        ("an empty batch", Batch::default()),
        ("a batch longer than n_batch", batch(0, n, &too_long)),
    ];
    for (what, case) in &cases {
        must_fail(&format!("decode of {what}"), context.decode(case), &[Status::InvalidArgument])?;
    }
    let wanted = writer.logits_after(&[&writer.a, &writer.c])?;
    writer.same("after refused batches", &feed(&mut context, 0, n, &writer.c)?, &wanted)?;
    let wanted = writer.logits_after(&[&writer.b])?;
    writer.same("a sequence of a refused batch", &feed(&mut context, 1, 0, &writer.b)?, &wanted)
}

pub(super) fn abort(bench: &mut Bench) -> Step {
    let writer = bench.writer()?;
    let wanted = writer.logits_after(&[&writer.a])?;
    let mut context = writer.context()?;
    let aborter = context.aborter();
    aborter.abort();
    writer.exactly_same(
        "a decode after an idle abort",
        &feed(&mut context, 0, 0, &writer.a)?,
        &wanted,
    )?;
    let n = (context.info().n_batch as usize).min(context.info().n_ctx as usize - writer.a.len());
    let prompt: Vec<_> = writer.b.iter().copied().cycle().take(n).collect();
    let is_over = AtomicBool::new(false);
    let answer = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                aborter.abort();
                std::thread::yield_now();
            }
        });
        let answer = context.decode(&batch(1, 0, &prompt));
        is_over.store(true, Ordering::Relaxed);
        answer
    });
    if let Err(error) = &answer {
        ensure!(
            error.status == Status::Cancelled,
            "an aborted decode answered {}, not CANCELLED: {}",
            name(error.status),
            error.message
        );
    }
    must("seq_remove after an aborted decode", context.seq_remove(1, 0, None))?;
    writer.same(
        "a prompt after an aborted decode",
        &feed(&mut context, 1, 0, &writer.a)?,
        &wanted,
    )?;
    let wanted = writer.logits_after(&[&writer.a, &writer.c])?;
    writer.same(
        "a sequence beside an aborted one",
        &feed(&mut context, 0, writer.a.len(), &writer.c)?,
        &wanted,
    )
}
