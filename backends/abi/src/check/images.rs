//! Scenarios about images. The images are made here; the projector is given, as the model is.

use super::bench::{
    Bench, Scratch, Step, Stop, config, ensure, feed, must, must_fail, not_applicable, position,
    rms,
};
use crate::host::{Context, Image, Model, Projector};
use crate::raw::{Pos, Seq, Token};
use crate::types::{ContextConfig, ImagePiece, ImageSpan, Pixels, Status};
use std::sync::Arc;

const WIDTH: u32 = 96;
const HEIGHT: u32 = 64;

pub(super) fn projector(bench: &mut Bench) -> Step {
    let model = bench.model()?;
    let scratch = Scratch::new()?;
    let missing = model.projector(&scratch.0.join("missing.gguf"), 1);
    if missing.as_ref().is_err_and(|error| error.status == Status::Unsupported) {
        return not_applicable("this plugin reads no images");
    }
    must_fail("open of a missing projector", missing, &[Status::NotFound, Status::BadModel])?;
    let noise = scratch.file("noise.gguf", &[0x5a; 4096])?;
    must_fail("open of noise as a projector", model.projector(&noise, 1), &[Status::BadModel])?;
    let own = model.projector(bench.model_path()?, 1);
    must_fail("open of the model as a projector", own, &[Status::BadModel])
}

fn open(bench: &mut Bench) -> Step<(Arc<Model>, Arc<Projector>)> {
    let model = bench.model()?;
    let path = bench.projector_path.as_deref();
    let path = path.ok_or_else(|| Stop::NotApplicable("no projector was given".to_owned()))?;
    let projector = must("projector_open", model.projector(path, 1))?;
    Ok((model, projector))
}

/// Stripes that are so wide.
fn stripes(projector: &Arc<Projector>, width: u32) -> Step<Image> {
    let row = (0..WIDTH)
        .flat_map(|x| if (x / width).is_multiple_of(2) { [230, 40, 20] } else { [10, 90, 250] });
    let rgb = row.collect::<Vec<u8>>().repeat(HEIGHT as usize);
    let Some(pixels) = Pixels::new(&rgb, WIDTH, HEIGHT) else {
        return not_applicable("the image has another size than its pixels");
    };
    must("image_create", projector.image(pixels))
}

fn spans(image: &Image) -> impl Iterator<Item = (usize, ImageSpan)> {
    image.pieces().iter().enumerate().filter_map(|(index, piece)| match piece {
        ImagePiece::Span(span) => Some((index, *span)),
        ImagePiece::Tokens(_) => None,
    })
}

/// A context with room for a few copies of the image.
fn context(model: &Arc<Model>, image: &Image) -> Step<Context> {
    let n_cells: u32 = spans(image).map(|(_, span)| span.n_cells).sum();
    let config = config();
    let (n_ctx, n_batch) = (config.n_ctx + 3 * n_cells, config.n_batch.max(n_cells));
    let config = ContextConfig { n_ctx, n_batch, n_ubatch: n_batch, ..config };
    must("context_create", model.context(&config))
}

/// Puts `before`, the image and `behind` into a sequence. Answers its length before `behind`, and the logits at its end.
fn see(
    context: &mut Context,
    seq: Seq,
    image: &Image,
    [before, behind]: [&[Token]; 2],
) -> Step<(Pos, Vec<f32>)> {
    let mut length = before.len();
    feed(context, seq, 0, before)?;
    for (index, piece) in image.pieces().iter().enumerate() {
        match piece {
            ImagePiece::Tokens(tokens) => {
                feed(context, seq, length, tokens)?;
                length += tokens.len();
            }
            ImagePiece::Span(span) => {
                let embeddings = must("encode", image.encode(index))?;
                must("append", context.append(image, index, &embeddings, seq, position(length)))?;
                length += span.n_positions as usize;
            }
        }
    }
    Ok((position(length), feed(context, seq, length, behind)?))
}

pub(super) fn images(bench: &mut Bench) -> Step {
    let (model, projector) = open(bench)?;
    let writer = bench.writer()?;
    let (wide, narrow) = (stripes(&projector, 32)?, stripes(&projector, 7)?);
    ensure!(spans(&wide).next().is_some(), "the image has no span");
    let again = stripes(&projector, 32)?;
    ensure!(again.pieces() == wide.pieces(), "the same image has other pieces");
    for (index, _) in spans(&wide) {
        let embeddings = must("encode", wide.encode(index))?;
        ensure!(
            embeddings.iter().all(|value| value.is_finite()),
            "an embedding has a number that is not finite"
        );
        let same = must("encode", again.encode(index))?;
        ensure!(embeddings == same, "the same image has other embeddings");
    }
    let mut context = context(&model, &wide)?;
    let parts = [&*writer.a, &*writer.c];
    let (behind, seen) = see(&mut context, 0, &wide, parts)?;
    feed(&mut context, 1, 0, &writer.b)?;
    let (_, elsewhere) = see(&mut context, 2, &again, parts)?;
    writer.same("text behind the same image in another sequence", &elsewhere, &seen)?;
    must("seq_remove", context.seq_remove(2, 0, None))?;
    let (_, other) = see(&mut context, 2, &narrow, parts)?;
    let (same, different) = (rms(&elsewhere, &seen), rms(&other, &seen));
    ensure!(
        different > same,
        "the logits behind another image are {different} away, and those behind the same one {same}"
    );
    must("seq_remove", context.seq_remove(2, 0, None))?;
    if context.info().can_roll_back {
        must("seq_remove behind an image", context.seq_remove(0, behind, None))?;
        let start = usize::try_from(behind).unwrap_or(0);
        let once_more = feed(&mut context, 0, start, &writer.c)?;
        writer.same("text behind an image, cut off and put there again", &once_more, &seen)?;
    }
    if context.info().can_copy_part {
        must("seq_copy up to behind an image", context.seq_copy(0, 2, Some(behind)))?;
        let start = usize::try_from(behind).unwrap_or(0);
        let copied = feed(&mut context, 2, start, &writer.c)?;
        writer.same("text behind a copied image", &copied, &seen)?;
        must("seq_remove", context.seq_remove(2, 0, None))?;
    }
    if context.info().can_save {
        let saved = must("seq_save", context.seq_save(0))?;
        must("seq_load", context.seq_load(2, &saved))?;
        let next = usize::try_from(behind).unwrap_or(0) + writer.c.len();
        let (kept, loaded) =
            (feed(&mut context, 0, next, &writer.c)?, feed(&mut context, 2, next, &writer.c)?);
        writer.same("text behind an image that was saved and loaded", &loaded, &kept)?;
    }
    Ok(())
}

pub(super) fn refused(bench: &mut Bench) -> Step {
    let (model, projector) = open(bench)?;
    let writer = bench.writer()?;
    let image = stripes(&projector, 32)?;
    let Some((index, _)) = spans(&image).next() else {
        return not_applicable("the image has no span");
    };
    let embeddings = must("encode", image.encode(index))?;
    let mut context = context(&model, &image)?;
    feed(&mut context, 0, 0, &writer.a)?;
    let wrong = [Status::InvalidArgument];
    let end = position(writer.a.len());
    for (what, seq, at) in [
        ("append to a sequence that does not exist", 99, 0),
        ("append behind the end", 0, end + 1),
        ("append before the end", 0, end - 1),
    ] {
        must_fail(what, context.append(&image, index, &embeddings, seq, at), &wrong)?;
    }
    let short = &embeddings[..embeddings.len() - 1];
    must_fail("append of too little", context.append(&image, index, short, 0, end), &wrong)?;
    must_fail(
        "append of a piece that does not exist",
        context.append(&image, 99, &embeddings, 0, end),
        &wrong,
    )?;
    let logits = feed(&mut context, 0, writer.a.len(), &writer.c)?;
    let wanted = writer.logits_after(&[&writer.a, &writer.c])?;
    writer.same("text behind what was refused", &logits, &wanted)
}
