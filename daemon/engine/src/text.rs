//! From token bytes to text: whole UTF-8 characters, and stop texts that may lie across token borders.
//!
//! **Invariant.** What was emitted, plus what is held back, is the whole text so far; what is held back is either the
//! start of a character or a proper prefix of a stop text.

/// Collects the bytes of one answer.
#[derive(Debug)]
pub(crate) struct TextOut {
    /// The start of a character whose other bytes have not come.
    partial: Vec<u8>,
    /// Whole characters that may be the start of a stop text.
    held: String,
    /// What the last call releases.
    out: String,
    stops: Vec<String>,
    /// The stop text that ended the answer.
    stop: Option<String>,
}

impl TextOut {
    pub(crate) fn new(stops: Vec<String>) -> Self {
        let stops = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        Self { partial: Vec::new(), held: String::new(), out: String::new(), stops, stop: None }
    }

    /// Takes the bytes of one token. Answers the text to emit, and whether a stop text ended the answer.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> (&str, bool) {
        self.out.clear();
        self.partial.extend_from_slice(bytes);
        self.take_whole_characters();
        let found = |stop: &String| Some((self.held.find(stop.as_str())?, stop.clone()));
        if let Some((at, stop)) = self.stops.iter().filter_map(found).min_by_key(|(at, _)| *at) {
            self.stop = Some(stop);
            self.out.push_str(&self.held[..at]);
            self.held.clear();
            self.partial.clear();
            return (&self.out, true);
        }
        let keep = self.possible_stop_start();
        let emit = self.held.len() - keep;
        self.out.push_str(&self.held[..emit]);
        self.held.drain(..emit);
        (&self.out, false)
    }

    /// Releases everything held back, when the answer ends for another reason than a stop text.
    pub(crate) fn finish(&mut self) -> &str {
        self.out.clear();
        self.out.push_str(&self.held);
        self.out.push_str(&String::from_utf8_lossy(&self.partial));
        self.held.clear();
        self.partial.clear();
        &self.out
    }

    /// The stop text that ended the answer: of several that begin at the same place, the one that was given first.
    pub(crate) fn stop(&self) -> Option<&str> {
        self.stop.as_deref()
    }

    /// Moves whole characters from `partial` to `held`. Bytes that can never become one turn into U+FFFD.
    fn take_whole_characters(&mut self) {
        let mut rest = self.partial.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    self.held.push_str(text);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (whole, broken) = rest.split_at(error.valid_up_to());
                    self.held.push_str(std::str::from_utf8(whole).unwrap_or_default());
                    rest = broken;
                    match error.error_len() {
                        Some(len) => {
                            self.held.push(char::REPLACEMENT_CHARACTER);
                            rest = &rest[len..];
                        }
                        None => break,
                    }
                }
            }
        }
        let left = rest.len();
        let done = self.partial.len() - left;
        self.partial.drain(..done);
    }

    /// Bytes at the end of `held` that are a proper prefix of some stop text.
    fn possible_stop_start(&self) -> usize {
        self.stops
            .iter()
            .flat_map(|stop| {
                (1..stop.len())
                    .rev()
                    .filter(|len| stop.is_char_boundary(*len))
                    .map(move |len| &stop[..len])
            })
            .filter(|prefix| self.held.ends_with(prefix))
            .map(str::len)
            .max()
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(stops: &[&str], pieces: &[&[u8]]) -> (String, bool) {
        let mut text = TextOut::new(stops.iter().map(ToString::to_string).collect());
        let mut all = String::new();
        for piece in pieces {
            let (emit, stopped) = text.push(piece);
            all.push_str(emit);
            if stopped {
                return (all, true);
            }
        }
        all.push_str(text.finish());
        (all, false)
    }

    #[test]
    fn a_character_over_two_tokens_comes_out_whole() {
        let euro = "€".as_bytes();
        let mut text = TextOut::new(vec![]);
        assert_eq!(text.push(&euro[..1]), ("", false));
        assert_eq!(text.push(&euro[1..]), ("€", false));
    }

    #[test]
    fn a_stop_over_three_tokens_is_found_and_not_emitted() {
        assert_eq!(run(&["</s>"], &[b"hi<", b"/", b"s>more"]), ("hi".into(), true));
    }

    #[test]
    fn a_false_start_of_a_stop_is_emitted() {
        assert_eq!(run(&["abcd"], &[b"xab", b"cx", b"ab"]), ("xabcxab".into(), false));
    }

    #[test]
    fn the_stop_that_comes_first_is_the_one_that_ended_the_answer() {
        for (stops, named) in
            [(["c", "b"], Some("b")), (["bc", "b"], Some("bc")), (["x", "abx"], None)]
        {
            let mut text = TextOut::new(stops.map(String::from).to_vec());
            assert_eq!(text.push(b"abc").1, named.is_some());
            assert_eq!(text.stop(), named);
        }
    }

    #[test]
    fn bytes_that_are_no_text_become_replacement_characters() {
        assert_eq!(run(&[], &[b"a\xff", b"b\xe2\x82"]), ("a\u{fffd}b\u{fffd}".into(), false));
    }

    proptest! {
        #[test]
        fn cutting_a_text_into_tokens_changes_nothing(text in "[ab€<]{0,40}", cuts in prop::collection::vec(1_usize..5, 0..60), stop in "[ab€<]{1,4}") {
            let mut pieces = Vec::new();
            let mut rest = text.as_bytes();
            for cut in cuts {
                let (piece, left) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = left;
            }
            pieces.push(rest);
            let expected = match text.find(&stop) {
                Some(at) => (text[..at].to_string(), true),
                None => (text.clone(), false),
            };
            prop_assert_eq!(run(&[&stop], &pieces), expected);
        }
    }
}
