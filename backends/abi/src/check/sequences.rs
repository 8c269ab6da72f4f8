//! Scenarios about copying, shifting and saving sequences.

use super::bench::{
    Bench, Step, call, ensure, failed, feed, must, must_fail, name, not_applicable, position,
};
use super::vocabulary::try_capacities;
use crate::host::Context;
use crate::types::Status;

pub(super) fn copy(bench: &mut Bench) -> Step {
    let writer = bench.writer()?;
    let mut context = writer.context()?;
    let n = writer.a.len();
    feed(&mut context, 0, 0, &writer.a)?;
    must("seq_copy", context.seq_copy(0, 1, None))?;
    let wanted = writer.logits_after(&[&writer.a, &writer.b])?;
    writer.same("the copy", &feed(&mut context, 1, n, &writer.b)?, &wanted)?;
    let wanted = writer.logits_after(&[&writer.a, &writer.c])?;
    writer.same(
        "the source after its copy went on",
        &feed(&mut context, 0, n, &writer.c)?,
        &wanted,
    )?;
    must("seq_remove of the source", context.seq_remove(0, 0, None))?;
    feed(&mut context, 0, 0, &writer.b)?;
    let wanted = writer.logits_after(&[&writer.a, &writer.b, &writer.c])?;
    let found = feed(&mut context, 1, n + writer.b.len(), &writer.c)?;
    writer.same("the copy after its source was removed", &found, &wanted)
}

pub(super) fn copy_part(bench: &mut Bench) -> Step {
    let writer = bench.writer()?;
    let mut context = writer.context()?;
    let (n, part) = (writer.a.len(), writer.a.len() / 2);
    feed(&mut context, 0, 0, &writer.a)?;
    let can = context.info().can_copy_part;
    match context.seq_copy(0, 2, Some(position(part))) {
        Ok(()) => {
            let wanted = writer.logits_after(&[&writer.a[..part], &writer.b])?;
            writer.same("the copied start", &feed(&mut context, 2, part, &writer.b)?, &wanted)?;
        }
        Err(error) if error.status == Status::Unsupported => {
            ensure!(
                !can,
                "the memory says it can copy part of a sequence, and answered UNSUPPORTED: {}",
                error.message
            );
        }
        Err(error) => {
            return failed(format!("seq_copy answered {}: {}", name(error.status), error.message));
        }
    }
    let wanted = writer.logits_after(&[&writer.a, &writer.c])?;
    writer.same("the source", &feed(&mut context, 0, n, &writer.c)?, &wanted)
}

pub(super) fn shift(bench: &mut Bench) -> Step {
    let writer = bench.writer()?;
    let mut context = writer.context()?;
    let n = writer.a.len();
    feed(&mut context, 0, 0, &writer.a)?;
    feed(&mut context, 1, 0, &writer.b)?;
    if !context.info().can_shift {
        let answer = context.seq_shift(0, 0, position(n), 1);
        must_fail("seq_shift", answer, &[Status::Unsupported])?;
        let wanted = writer.logits_after(&[&writer.a, &writer.c])?;
        return writer.same(
            "going on after UNSUPPORTED",
            &feed(&mut context, 0, n, &writer.c)?,
            &wanted,
        );
    }
    match context.seq_remove(0, 4, Some(8)) {
        Ok(()) => {}
        Err(error) if error.status == Status::Unsupported => {
            return not_applicable("this memory can shift, but not remove what is in the middle");
        }
        Err(error) => {
            return failed(format!(
                "seq_remove answered {}: {}",
                name(error.status),
                error.message
            ));
        }
    }
    must("seq_shift", context.seq_shift(0, 8, position(n), -4))?;
    // What was computed with the removed tokens keeps a trace of them in most engines, so there is nothing to compare.
    let logits = feed(&mut context, 0, n - 4, &writer.c)?;
    ensure!(logits.iter().all(|logit| !logit.is_nan()), "a logit after seq_shift is not a number");
    let wanted = writer.logits_after(&[&writer.b, &writer.c])?;
    writer.same(
        "the sequence beside it",
        &feed(&mut context, 1, writer.b.len(), &writer.c)?,
        &wanted,
    )
}

pub(super) fn shift_shared(bench: &mut Bench) -> Step {
    let writer = bench.writer()?;
    let mut context = writer.context()?;
    let n = writer.a.len();
    let info = context.info();
    if !info.can_shift || !info.can_roll_back {
        return not_applicable("this memory cannot be shifted");
    }
    feed(&mut context, 0, 0, &writer.a)?;
    must("seq_copy", context.seq_copy(0, 1, None))?;
    must("seq_remove", context.seq_remove(1, 4, Some(8)))?;
    let answer = context.seq_shift(1, 8, position(n), -4);
    must_fail("seq_shift of what is shared", answer, &[Status::Unsupported])?;
    // Its own end may move, whatever stands before it.
    must("seq_remove", context.seq_remove(1, 4, None))?;
    feed(&mut context, 1, 4, &writer.b)?;
    let end = 4 + writer.b.len();
    must("seq_remove", context.seq_remove(1, 4, Some(5)))?;
    must("seq_shift behind what is shared", context.seq_shift(1, 5, position(end), -1))?;
    feed(&mut context, 1, end - 1, &writer.c)?;
    let wanted = writer.logits_after(&[&writer.a, &writer.c])?;
    writer.same("the other sequence", &feed(&mut context, 0, n, &writer.c)?, &wanted)
}

pub(super) fn save(bench: &mut Bench) -> Step {
    let writer = bench.writer()?;
    let mut context = writer.context()?;
    let n = writer.a.len();
    feed(&mut context, 0, 0, &writer.a)?;
    if !context.info().can_save {
        must_fail("seq_save", context.seq_save(0), &[Status::Unsupported])?;
        return must_fail("seq_load", context.seq_load(1, &[0; 64]), &[Status::Unsupported]);
    }
    let saved = must("seq_save", context.seq_save(0))?;
    let (entry, handle) = (bench.plugin.entry(), context.raw());
    try_capacities("seq_save", 0, saved.len(), |buffer, capacity, n_out, error| {
        // SAFETY: the context lives; the buffer has the capacity given.
        unsafe { (entry.seq_save)(handle, 0, buffer, capacity, n_out, error) }
    })?;
    let wanted = writer.logits_after(&[&writer.a, &writer.c])?;
    feed(&mut context, 2, 0, &writer.b)?;
    must("seq_load over another sequence", context.seq_load(2, &saved))?;
    writer.same("a loaded sequence", &feed(&mut context, 2, n, &writer.c)?, &wanted)?;
    writer.same("the saved sequence", &feed(&mut context, 0, n, &writer.c)?, &wanted)?;
    let mut other = writer.context()?;
    feed(&mut other, 0, 0, &writer.b)?;
    must("seq_load in another context", other.seq_load(1, &saved))?;
    writer.same(
        "a sequence loaded in another context",
        &feed(&mut other, 1, n, &writer.c)?,
        &wanted,
    )
}

pub(super) fn load_damaged(bench: &mut Bench) -> Step {
    let writer = bench.writer()?;
    let mut context = writer.context()?;
    if !context.info().can_save {
        return not_applicable("this memory cannot be saved");
    }
    feed(&mut context, 0, 0, &writer.a)?;
    let saved = must("seq_save", context.seq_save(0))?;
    let flipped = |index: usize| {
        let mut bytes = saved.clone();
        bytes[index] ^= 0x10;
        bytes
    };
    let cases = [
        ("no bytes", Vec::new()),
        ("half of the bytes", saved[..saved.len() / 2].to_vec()),
        ("all bytes but the last", saved[..saved.len() - 1].to_vec()),
        ("a byte too many", [saved.as_slice(), &[0]].concat()),
        ("a flipped bit at the start", flipped(0)),
        ("a flipped bit in the middle", flipped(saved.len() / 2)),
        ("a flipped bit at the end", flipped(saved.len() - 1)),
        ("zeros", vec![0; saved.len()]),
    ];
    let wanted = writer.logits_after(&[&writer.b])?;
    for (what, bytes) in &cases {
        feed(&mut context, 1, 0, &writer.b[..6])?;
        must_fail(
            &format!("seq_load of {what}"),
            context.seq_load(1, bytes),
            &[Status::InvalidArgument],
        )?;
        // Only an empty sequence takes position 0.
        let found = feed(&mut context, 1, 0, &writer.b)?;
        writer.same(&format!("a prompt after seq_load of {what}"), &found, &wanted)?;
        must("seq_remove", context.seq_remove(1, 0, None))?;
    }
    let answer = call(|error| {
        // SAFETY: the context lives; no bytes are announced, so none are read.
        unsafe { (bench.plugin.entry().seq_load)(context.raw(), 1, std::ptr::null(), 0, error) }
    });
    must_fail("seq_load of null", answer, &[Status::InvalidArgument])?;
    let wanted = writer.logits_after(&[&writer.a, &writer.c])?;
    writer.same("the saved sequence", &feed(&mut context, 0, writer.a.len(), &writer.c)?, &wanted)
}

pub(super) fn save_parts(bench: &mut Bench) -> Step {
    let writer = bench.writer()?;
    let mut context = writer.context()?;
    let (n, part) = (writer.a.len(), writer.a.len() / 2);
    feed(&mut context, 0, 0, &writer.a)?;
    if !context.info().can_save_part {
        let answer = context.part_save(0, 0, position(part));
        must_fail("saving a part", answer, &[Status::Unsupported])?;
        return must_fail("loading one", context.part_load(1, &[0; 64]), &[Status::Unsupported]);
    }
    let [first, last] = two_parts(&mut context, part, n)?;
    let wanted = writer.logits_after(&[&writer.a, &writer.c])?;
    let mut other = writer.context()?;
    // Other sequences lie before and between the parts.
    feed(&mut other, 1, 0, &writer.b)?;
    must("loading the first part", other.part_load(2, &first))?;
    feed(&mut other, 0, 0, &writer.b)?;
    must("loading the last part", other.part_load(2, &last))?;
    writer.same("the loaded parts", &feed(&mut other, 2, n, &writer.c)?, &wanted)?;
    writer.same("the saved sequence", &feed(&mut context, 0, n, &writer.c)?, &wanted)?;
    // A part goes on in another way too.
    must("loading the first part", other.part_load(3, &first))?;
    let found = feed(&mut other, 3, part, &writer.b)?;
    let wanted = writer.logits_after(&[&writer.a[..part], &writer.b])?;
    writer.same("the first part alone", &found, &wanted)
}

fn two_parts(context: &mut Context, at: usize, n: usize) -> Step<[Vec<u8>; 2]> {
    let (at, n) = (position(at), position(n));
    Ok([
        must("saving the first part", context.part_save(0, 0, at))?,
        must("saving the last part", context.part_save(0, at, n))?,
    ])
}

pub(super) fn load_misfits(bench: &mut Bench) -> Step {
    let writer = bench.writer()?;
    let mut context = writer.context()?;
    if !context.info().can_save_part {
        return not_applicable("this memory cannot be saved in parts");
    }
    let (n, part) = (writer.a.len(), writer.a.len() / 2);
    feed(&mut context, 0, 0, &writer.a)?;
    let [first, last] = two_parts(&mut context, part, n)?;
    let (at, end) = (position(part), position(n));
    for (p0, p1) in [(-1, at), (at, at), (at, 0), (0, end + 1)] {
        let answer = context.part_save(0, p0, p1);
        must_fail(&format!("saving {p0} to {p1}"), answer, &[Status::InvalidArgument])?;
    }
    let whole = must("seq_save", context.seq_save(0))?;
    let damaged = |at: usize| {
        let mut bytes = last.clone();
        bytes[at] ^= 0x10;
        bytes
    };
    must("loading the first part", context.part_load(1, &first))?;
    for (what, bytes) in [
        ("the first part again", first.as_slice()),
        ("no bytes", &[]),
        ("half of the bytes", &last[..last.len() / 2]),
        ("a flipped bit in the middle", &damaged(last.len() / 2)),
        ("a flipped bit at the end", &damaged(last.len() - 1)),
        ("a whole sequence", &whole),
    ] {
        let answer = context.part_load(1, bytes);
        must_fail(&format!("loading {what}"), answer, &[Status::InvalidArgument])?;
    }
    let answer = context.seq_load(2, &last);
    must_fail("loading a part as a whole", answer, &[Status::InvalidArgument])?;
    must("loading the last part", context.part_load(1, &last))?;
    let wanted = writer.logits_after(&[&writer.a, &writer.c])?;
    writer.same("the loaded parts", &feed(&mut context, 1, n, &writer.c)?, &wanted)
}
