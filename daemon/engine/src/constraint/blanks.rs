//! The blanks of an answer in JSON, as far as they can be foreseen.
//!
//! A schema leaves open whether blanks stand between two of its parts. An answer that broke its lines does so again.

/// Blanks that are kept in mind. A schema allows no more.
const LONGEST: usize = 40;
/// Pairs of signs that are kept in mind. JSON has fewer.
const MOST: usize = 64;

/// Which blanks stood last between two bytes, of which the first is a sign.
#[derive(Debug, Default)]
pub(super) struct Blanks {
    seen: Vec<([u8; 2], Vec<u8>)>,
    /// The last byte that is no blank, and the blanks since.
    last: u8,
    since: Vec<u8>,
}

impl Blanks {
    /// Takes a piece of the answer.
    pub(super) fn take(&mut self, piece: &[u8]) {
        for byte in piece {
            if !byte.is_ascii_whitespace() {
                self.learn([self.last, *byte]);
                self.last = *byte;
                self.since.clear();
            } else if self.since.len() < LONGEST {
                self.since.push(*byte);
            }
        }
    }

    fn learn(&mut self, pair: [u8; 2]) {
        if !pair[0].is_ascii_punctuation() {
            return;
        }
        if let Some((_, blanks)) = self.seen.iter_mut().find(|(seen, _)| *seen == pair) {
            blanks.clone_from(&self.since);
        } else if self.seen.len() < MOST {
            self.seen.push((pair, self.since.clone()));
        }
    }

    /// The blanks that are still to come before `next`, if `text` comes first. `None` where none can be foreseen.
    pub(super) fn before(&self, next: u8, text: &[u8]) -> Option<&[u8]> {
        let (last, since) = match text.last() {
            Some(last) => (*last, [].as_slice()),
            None => (self.last, self.since.as_slice()),
        };
        let all = match self.seen.iter().find(|(seen, _)| *seen == [last, next]) {
            Some((_, blanks)) => blanks,
            // The commonest way, until another is seen.
            None if b":,".contains(&last) => b" ".as_slice(),
            None => &[],
        };
        // Behind a letter or a digit it is open whether more of them come.
        let is_sign = last.is_ascii_punctuation();
        is_sign.then(|| all.strip_prefix(since).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_come_as_they_came() {
        let mut blanks = Blanks::default();
        assert_eq!(blanks.before(b'"', b"\"a\":"), Some(&b" "[..]));
        assert_eq!(blanks.before(b'"', b"{"), Some(&b""[..]));
        assert_eq!(blanks.before(b'"', b"7"), None);
        for piece in ["{", "\n ", " \"a", "\":", "\"x, y\"", ",\n"] {
            blanks.take(piece.as_bytes());
        }
        assert_eq!(blanks.before(b'"', b"{"), Some(&b"\n  "[..]));
        assert_eq!(blanks.before(b'"', b":"), Some(&b""[..]));
        assert_eq!(blanks.before(b'7', b":"), Some(&b" "[..]));
        for piece in ["\t\"b\": ", "{\n"] {
            blanks.take(piece.as_bytes());
        }
        // A part of them is there already.
        assert_eq!(blanks.before(b'"', b""), Some(&b"  "[..]));
        assert_eq!(blanks.before(b'"', b"7,"), Some(&b"\n\t"[..]));
        blanks.take(b" \t");
        assert_eq!(blanks.before(b'"', b""), Some(&b""[..]));
    }
}
