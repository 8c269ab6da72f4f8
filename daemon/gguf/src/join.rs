//! One file made of the parts that `llama-gguf-split` makes of one.
//!
//! The first part has all of the metadata, and each has some of the tensors. The same parts always make the same file, which
//! is what the split one was but for alignment and the order of its keys.

use crate::{Gguf, GgufError, Writer};
use std::collections::HashSet;
use std::io::{Read, Seek, SeekFrom, Write};

const CHUNK_BYTES: usize = 1 << 20;
/// What is true of a part, and not of the whole. Tensors are aligned as in most files.
const OF_PARTS: [&str; 4] = ["split.no", "split.count", "split.tensors.count", "general.alignment"];

/// Writes the whole file. The parts may come in any order.
pub fn join<F: Read + Seek, W: Write>(parts: &mut [F], out: W) -> Result<W, GgufError> {
    let headers: Result<Vec<Gguf>, GgufError> = parts.iter_mut().map(Gguf::read).collect();
    let mut parts: Vec<(Gguf, &mut F)> = std::iter::zip(headers?, parts).collect();
    parts.sort_by_key(|(gguf, _)| gguf.split());
    let n_parts = parts.len() as u64;
    for (no, (gguf, _)) in (0..).zip(&parts) {
        if gguf.split() != Some((no, n_parts)) {
            let reason = format!("part {} of {n_parts} is not among them", no + 1);
            return Err(GgufError::invalid("the split model", reason));
        }
    }
    let Some((first, file)) = parts.first_mut() else {
        return Err(GgufError::invalid("the split model", "it has no parts"));
    };
    let (mut n_keys, mut keys) = (0, Vec::new());
    for ((key, _), span) in std::iter::zip(&first.metadata, &first.spans) {
        if !OF_PARTS.contains(&key.as_str()) {
            file.seek(SeekFrom::Start(span.start))?;
            file.take(span.end - span.start).read_to_end(&mut keys)?;
            n_keys += 1;
        }
    }
    let tensors: Vec<_> = parts.iter().flat_map(|(gguf, _)| gguf.tensors.iter().cloned()).collect();
    let n_names = tensors.iter().map(|tensor| &tensor.name).collect::<HashSet<_>>().len();
    let n_tensors = tensors.len() as u64;
    let belongs = |gguf: &Gguf| gguf.number("split.tensors.count").is_none_or(|n| n == n_tensors);
    if n_names != tensors.len() || !parts.iter().all(|(gguf, _)| belongs(gguf)) {
        return Err(GgufError::invalid("the split model", "its parts do not belong together"));
    }
    let mut writer = Writer::with_keys(out, n_keys, &keys, &tensors)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    for (gguf, file) in &mut parts {
        for tensor in &gguf.tensors {
            file.seek(SeekFrom::Start(gguf.data_offset + tensor.offset))?;
            let mut n_left = tensor.n_bytes;
            while n_left > 0 {
                let len = usize::try_from(n_left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
                file.read_exact(&mut chunk[..len])?;
                writer.write(&chunk[..len])?;
                n_left -= len as u64;
            }
        }
    }
    Ok(writer.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GgufValue;
    use crate::testing::{self, split};
    use std::io::Cursor;

    fn joined(parts: &[Vec<u8>]) -> Result<Vec<u8>, GgufError> {
        let mut parts: Vec<_> = parts.iter().map(Cursor::new).collect();
        join(&mut parts, Vec::new())
    }

    /// Everything but where it lies: the keys, and the tensors' data.
    type Content = (Vec<(String, GgufValue)>, Vec<(String, Vec<u8>)>);

    fn content(bytes: &[u8]) -> Content {
        let gguf = Gguf::read(&mut Cursor::new(bytes)).unwrap();
        let tensors = gguf.tensors.iter().map(|tensor| {
            let start = usize::try_from(gguf.data_offset + tensor.offset).unwrap();
            let end = start + usize::try_from(tensor.n_bytes).unwrap();
            (tensor.name.clone(), bytes[start..end].to_vec())
        });
        let keys = gguf.metadata.iter().filter(|(key, _)| key != "general.alignment");
        (keys.cloned().collect(), tensors.collect())
    }

    #[test]
    fn parts_in_any_order_make_what_was_split() {
        let aligned = testing::Writer::new().alignment(64).text("general.architecture", "llama");
        let aligned = aligned.tensor("first", &[5], 0, 20).tensor("second", &[7], 0, 28);
        for whole in [testing::Writer::model(), aligned] {
            let whole = whole.tensor("third", &[3, 3], 0, 36).bytes();
            let mut parts = split(&whole, 3);
            let made = joined(&parts).unwrap();
            assert_eq!(content(&made), content(&whole));
            // Of five some have no tensors.
            assert_eq!(joined(&split(&whole, 5)).unwrap(), made);
            parts.reverse();
            assert_eq!(joined(&parts).unwrap(), made);
        }
    }

    #[test]
    fn parts_that_are_no_whole_are_refused() {
        let whole = testing::Writer::model().bytes();
        let parts = split(&whole, 2);
        let other = split(&testing::Writer::model().tensor("third", &[3], 0, 12).bytes(), 2);
        for parts in [
            &[][..],
            &parts[..1],
            &[parts[0].clone(), parts[0].clone()],
            &[parts[0].clone(), other[1].clone()],
            &[whole],
        ] {
            assert!(joined(parts).is_err());
        }
    }
}
