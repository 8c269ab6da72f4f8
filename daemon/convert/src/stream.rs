//! The data: read, changed, encoded and written in pieces of about a MiB.

use std::io::Write;
use std::ops::ControlFlow;

use hearth_gguf::Writer;

use crate::ConvertProgress;
use crate::error::ConvertError;
use crate::metadata::Metadata;
use crate::output::Encoder;
use crate::plan::{Data, PlannedTensor, Transform};
use crate::safetensors::StoredTensor;

/// How much is read between two reports, and so how soon a cancel is seen. Whole blocks of all
/// types that are written.
const PIECE_BYTES: u64 = 1 << 20;
/// The longest row of a matrix whose rows change places.
const MAX_ROW_BYTES: u64 = PIECE_BYTES / 2;

pub(crate) fn write<W: Write>(
    metadata: &Metadata,
    tensors: &[PlannedTensor],
    out: W,
    progress: &mut dyn FnMut(ConvertProgress) -> ControlFlow<()>,
) -> Result<W, ConvertError> {
    // The writer refuses what overflows.
    let bytes_total =
        tensors.iter().fold(0_u64, |total, tensor| total.saturating_add(tensor.info.n_bytes));
    let mut report = |bytes_done| match progress(ConvertProgress { bytes_done, bytes_total }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(ConvertError::Cancelled),
    };
    report(0)?;
    let infos: Vec<_> = tensors.iter().map(|tensor| tensor.info.clone()).collect();
    let mut writer = Writer::new(out, metadata.pairs(), &infos)?;
    let mut bytes_done = 0;
    for tensor in tensors {
        let mut put = |bytes: &[u8]| {
            writer.write(bytes).map_err(ConvertError::Write)?;
            bytes_done += bytes.len() as u64;
            report(bytes_done)
        };
        match &tensor.data {
            Data::Computed(values) => {
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                put(&bytes)?;
            }
            Data::Stored(stored, transform) => {
                let add_one = *transform == Transform::AddOne;
                let mut encoder = Encoder::new(stored.dtype()?, tensor.info.tensor_type, add_one);
                let mut encoded = Vec::new();
                let mut put = |piece: &[u8]| {
                    encoder.encode(piece, &mut encoded);
                    put(&encoded)
                };
                match transform {
                    Transform::Same | Transform::AddOne => in_order(stored, &mut put)?,
                    Transform::Interleave(n_heads) => interleaved(stored, *n_heads, &mut put)?,
                }
            }
        }
    }
    writer.finish().map_err(ConvertError::Write)
}

type Put<'p> = dyn FnMut(&[u8]) -> Result<(), ConvertError> + 'p;

fn in_order(stored: &StoredTensor, put: &mut Put<'_>) -> Result<(), ConvertError> {
    let mut buffer = vec![0; fitting(stored.n_bytes.min(PIECE_BYTES))];
    let mut offset = 0;
    while offset < stored.n_bytes {
        let len = PIECE_BYTES.min(stored.n_bytes - offset);
        let piece = &mut buffer[..fitting(len)];
        stored.read(offset, piece)?;
        put(piece)?;
        offset += len;
    }
    Ok(())
}

/// Row by row from the first and the second half of each head in turn, some rows at a time.
fn interleaved(stored: &StoredTensor, n_heads: u64, put: &mut Put<'_>) -> Result<(), ConvertError> {
    let n_rows = stored.shape.first().copied().unwrap_or(1).max(1);
    let row_bytes = stored.n_bytes / n_rows;
    if row_bytes > MAX_ROW_BYTES {
        return Err(stored.invalid("has rows too long to be rearranged"));
    }
    let half_rows = n_rows / n_heads / 2;
    if row_bytes == 0 || half_rows == 0 {
        return Ok(());
    }
    let rows_at_once = (PIECE_BYTES / 2 / row_bytes).min(half_rows);
    let mut first = vec![0; fitting(rows_at_once * row_bytes)];
    let mut second = first.clone();
    let mut piece = Vec::with_capacity(first.len() * 2);
    for head in 0..n_heads {
        let mut row = 0;
        while row < half_rows {
            let n_rows = rows_at_once.min(half_rows - row);
            let begin = (head * 2 * half_rows + row) * row_bytes;
            let len = fitting(n_rows * row_bytes);
            stored.read(begin, &mut first[..len])?;
            stored.read(begin + half_rows * row_bytes, &mut second[..len])?;
            piece.clear();
            let row_len = fitting(row_bytes);
            for (first, second) in first[..len].chunks(row_len).zip(second[..len].chunks(row_len)) {
                piece.extend_from_slice(first);
                piece.extend_from_slice(second);
            }
            put(&piece)?;
            row += n_rows;
        }
    }
    Ok(())
}

/// At most `PIECE_BYTES`.
fn fitting(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
