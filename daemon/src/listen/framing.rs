//! Where one JSON value ends and the next begins.
//!
//! Objects and arrays are told apart by their brackets, outside of strings; whether they are JSON is the parser's to say.
//! Whatever else stands between them is refused up to the end of its line. A value over the limit is swallowed without
//! being kept, so that the connection stays usable.
//!
//! **Invariant.** No more than the limit is ever held, whatever comes in.

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// One object or array.
    Value(Vec<u8>),
    /// Bytes that begin no object or array.
    Garbage,
    /// A value longer than the limit.
    TooLong,
    /// The input or the message ended before a value did.
    Cut,
    /// A second value where there is room for one.
    Second,
    /// More than the user may send at the moment.
    Crowded,
}

#[derive(Debug)]
pub(super) struct Framer {
    limit: usize,
    buffer: Vec<u8>,
    /// Bytes before this are done with; the next `push` gives them up, all at once.
    start: usize,
    /// Bytes before this have been looked at.
    scanned: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
    skipping: Skip,
    /// Whether the message that is read has held anything yet.
    found: bool,
}

/// What a connection keeps between values.
const KEPT: usize = 16 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Skip {
    No,
    /// The rest of a line of garbage.
    Line,
    /// The rest of a value over the limit.
    Value,
}

impl Framer {
    pub(super) fn new(limit: usize) -> Self {
        let buffer = Vec::new();
        Self {
            limit,
            buffer,
            start: 0,
            scanned: 0,
            depth: 0,
            in_string: false,
            escaped: false,
            skipping: Skip::No,
            found: false,
        }
    }

    /// Takes bytes as they came; `next` then answers what they complete.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.buffer.shrink_to(KEPT);
            self.scanned -= self.start;
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes that are held.
    pub(super) fn held(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// True while a value has begun and not ended.
    pub(super) fn is_inside(&self) -> bool {
        self.depth > 0 && self.skipping == Skip::No
    }

    /// The end of a message, after which another may begin: whether it ended in the middle of a value, or before any.
    pub(super) fn end(&mut self) -> Option<Frame> {
        let cut = self.is_inside() || !self.found;
        *self = Self::new(self.limit);
        cut.then_some(Frame::Cut)
    }

    pub(super) fn next(&mut self) -> Option<Frame> {
        let frame = self.scan();
        self.found |= frame.is_some();
        frame
    }

    fn scan(&mut self) -> Option<Frame> {
        while let Some(byte) = self.buffer.get(self.scanned).copied() {
            self.scanned += 1;
            if self.skipping == Skip::Line {
                if byte == b'\n' {
                    self.skipping = Skip::No;
                }
                self.drop_scanned();
                continue;
            }
            if self.depth == 0 {
                match byte {
                    b' ' | b'\t' | b'\r' | b'\n' => self.drop_scanned(),
                    b'{' | b'[' => self.depth = 1,
                    _ => {
                        self.skipping = Skip::Line;
                        self.drop_scanned();
                        return Some(Frame::Garbage);
                    }
                }
                continue;
            }
            self.scan_inside(byte);
            if self.depth == 0 {
                let value = self.take_scanned();
                if self.skipping == Skip::Value {
                    self.skipping = Skip::No;
                } else {
                    return Some(Frame::Value(value));
                }
            } else if self.skipping == Skip::Value {
                self.drop_scanned();
            } else if self.scanned - self.start > self.limit {
                self.skipping = Skip::Value;
                self.drop_scanned();
                return Some(Frame::TooLong);
            }
        }
        None
    }

    fn scan_inside(&mut self, byte: u8) {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
        } else {
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth -= 1,
                _ => {}
            }
        }
    }

    fn take_scanned(&mut self) -> Vec<u8> {
        // Of a long value, which mostly comes alone, there is no second copy.
        if self.start == 0 && self.scanned == self.buffer.len() {
            self.scanned = 0;
            return std::mem::take(&mut self.buffer);
        }
        let value = self.buffer[self.start..self.scanned].to_vec();
        self.drop_scanned();
        value
    }

    fn drop_scanned(&mut self) {
        self.start = self.scanned;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames(limit: usize, chunks: &[&[u8]]) -> Vec<Frame> {
        let mut framer = Framer::new(limit);
        let mut found = Vec::new();
        for chunk in chunks {
            framer.push(chunk);
            found.extend(std::iter::from_fn(|| framer.next()));
            assert!(framer.buffer.len() <= limit + 1 + chunk.len());
        }
        found
    }

    fn value(text: &str) -> Frame {
        Frame::Value(text.as_bytes().to_vec())
    }

    #[test]
    fn values_need_no_newline_and_brackets_in_strings_do_not_count() {
        let text = br#"{"a":"}\"]"}[1] {"b":{}}"#;
        assert_eq!(
            frames(100, &[text]),
            [value(r#"{"a":"}\"]"}"#), value("[1]"), value(r#"{"b":{}}"#)]
        );
    }

    #[test]
    fn garbage_costs_its_line_and_no_more() {
        assert_eq!(frames(100, &[b"hello {\n{}\n"]), [Frame::Garbage, value("{}")]);
    }

    #[test]
    fn a_message_that_ends_in_a_value_or_holds_nothing_is_cut() {
        let mut framer = Framer::new(100);
        for (message, found) in [
            ("{\"a\":", None),
            ("", None),
            (" \n", None),
            ("{}", Some(value("{}"))),
            ("nonsense", Some(Frame::Garbage)),
        ] {
            framer.push(message.as_bytes());
            let first = framer.next();
            assert_eq!(first, found, "{message}");
            assert_eq!(framer.end(), found.is_none().then_some(Frame::Cut), "{message}");
        }
    }

    #[test]
    fn a_long_value_leaves_no_long_buffer_behind() {
        let long = format!("[\"{}\"]", "x".repeat(1 << 20));
        for after in ["", " ["] {
            let mut framer = Framer::new(2 << 20);
            framer.push((long.clone() + after).as_bytes());
            assert_eq!(framer.next(), Some(value(&long)));
            framer.push(b" ");
            assert!(framer.buffer.capacity() <= KEPT, "{}", framer.buffer.capacity());
        }
    }

    #[test]
    fn a_value_over_the_limit_is_swallowed_to_its_end() {
        let long = format!(r#"{{"a":"{}"}}{{"b":1}}"#, "x".repeat(1000));
        let chunks: Vec<&[u8]> = long.as_bytes().chunks(7).collect();
        assert_eq!(frames(100, &chunks), [Frame::TooLong, value(r#"{"b":1}"#)]);
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_makes_no_difference(bytes in prop::collection::vec(prop::sample::select(b"{}[]\"\\\n x1".to_vec()), 0..200), cut in 1_usize..20, limit in 4_usize..50) {
            let chunks: Vec<&[u8]> = bytes.chunks(cut).collect();
            prop_assert_eq!(frames(limit, &chunks), frames(limit, &[&bytes]));
        }
    }
}
