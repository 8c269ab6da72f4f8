//! Breaks an answer's lines between words while it streams.
//!
//! Text is shown at once, so a word that turns out not to fit is on the screen already: it is erased there and written again
//! on the next line. Code between fences, and words longer than a line, are left to the terminal: people copy them, and a
//! break that the terminal makes is not copied.

use std::fmt::Write as _;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

const TAB: usize = 8;

#[derive(Debug, Default)]
pub(crate) struct Wrap {
    /// Cells that are filled on the screen's line.
    column: usize,
    /// What follows the last place at which that line can be broken.
    word: String,
    start: LineStart,
    in_code: bool,
}

/// Whether the text's line opens or closes code, as three backticks at its start do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineStart {
    Backticks(u8),
    Over,
}

impl Default for LineStart {
    fn default() -> Self {
        Self::Backticks(0)
    }
}

impl Wrap {
    /// What to write for the next piece of text, on a terminal with so many columns.
    pub(crate) fn push(&mut self, text: &str, columns: usize) -> String {
        let mut shown = String::with_capacity(text.len());
        for c in text.chars() {
            self.watch_for_fence(c);
            match c {
                '\n' => {
                    self.column = 0;
                    self.word.clear();
                }
                _ if self.in_code => self.column += c.width().unwrap_or(0),
                ' ' | '\t' => {
                    self.word.clear();
                    // It would only begin the next line.
                    if self.column + 1 >= columns {
                        continue;
                    }
                    let width = if c == ' ' { 1 } else { TAB - self.column % TAB };
                    self.column = (self.column + width).min(columns - 1);
                }
                _ => self.make_room(c, columns, &mut shown),
            }
            shown.push(c);
        }
        shown
    }

    fn watch_for_fence(&mut self, c: char) {
        self.start = match (c, self.start) {
            ('\n', _) => LineStart::Backticks(0),
            ('`', LineStart::Backticks(2)) => {
                self.in_code = !self.in_code;
                LineStart::Over
            }
            ('`', LineStart::Backticks(n)) => LineStart::Backticks(n + 1),
            (' ', LineStart::Backticks(0)) => self.start,
            _ => LineStart::Over,
        };
    }

    /// Begins a line if `c` needs it. The last column stays free: behind it the cursor's place is not certain.
    fn make_room(&mut self, c: char, columns: usize, shown: &mut String) {
        let width = c.width().unwrap_or(0);
        // Chinese and its like have no spaces, and may be broken before any character.
        if width > 1 {
            self.word.clear();
        }
        let word = self.word.width();
        if self.column + width >= columns && self.column > word && word + width < columns {
            if word > 0 {
                let _ = write!(shown, "\x1b[{word}D\x1b[K");
            }
            shown.push('\n');
            shown.push_str(&self.word);
            self.column = word;
        } else if self.column + width > columns {
            // The terminal breaks it.
            self.column = 0;
            self.word.clear();
        }
        self.word.push(c);
        self.column += width;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZero;

    /// The screen's lines after the pieces came one after another.
    fn screen<'a>(pieces: impl IntoIterator<Item = &'a str>, columns: u16) -> Vec<String> {
        let [rows, width] = [24, columns].map(|n| NonZero::new(n).unwrap());
        let mut terminal = vt100::Parser::new(rows, width, 0);
        let mut wrap = Wrap::default();
        for piece in pieces {
            // The kernel does this to what a program writes.
            let shown = wrap.push(piece, usize::from(columns)).replace('\n', "\r\n");
            terminal.process(shown.as_bytes());
        }
        let mut lines: Vec<String> =
            terminal.screen().rows(0, columns).map(|line| line.trim_end().to_owned()).collect();
        lines.truncate(lines.iter().rposition(|line| !line.is_empty()).map_or(0, |at| at + 1));
        lines
    }

    #[track_caller]
    fn check(text: &str, columns: u16, expected: &[&str]) {
        assert_eq!(screen([text], columns), expected, "in one piece");
        let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        let ends = places.iter().copied().skip(1).chain([text.len()]);
        let pieces = places.iter().zip(ends).map(|(start, end)| &text[*start..end]);
        assert_eq!(screen(pieces, columns), expected, "character by character");
    }

    #[test]
    fn lines_break_between_words() {
        check("the quick brown fox jumps", 10, &["the quick", "brown fox", "jumps"]);
        check("1234 6789 x", 10, &["1234 6789", "x"]);
        check("1234  789 x\n\n- a", 10, &["1234  789", "x", "", "- a"]);
        check("123456789 \nx", 10, &["123456789", "x"]);
        check("a\tbc def", 12, &["a       bc", "def"]);
        check("one two", 200, &["one two"]);
    }

    #[test]
    fn the_terminal_breaks_words_longer_than_a_line() {
        check("see https://example.org now", 10, &["see", "https://ex", "ample.org", "now"]);
        check("https://ex ample", 10, &["https://ex", "ample"]);
        check(
            "0123456789012345678901234 6789 1",
            10,
            &["0123456789", "0123456789", "01234", "6789 1"],
        );
    }

    #[test]
    fn code_is_left_as_it_is() {
        check(
            "say:\n```sh\nlet x = 12345\n```\nthe quick brown",
            10,
            &["say:", "```sh", "let x = 12", "345", "```", "the quick", "brown"],
        );
        check("a `b` ``c`` d ```e``` f", 12, &["a `b` ``c``", "d ```e``` f"]);
    }

    #[test]
    fn wide_characters_count_twice_and_break_anywhere() {
        check("- 日本語の文章です", 10, &["- 日本語", "の文章で", "す"]);
        check("naïve cafe\u{301} ok", 12, &["naïve cafe\u{301}", "ok"]);
    }

    #[test]
    fn a_terminal_that_is_nearly_no_terminal() {
        for columns in 0..3 {
            let shown = Wrap::default().push("ab cd\n日", columns);
            assert!(shown.contains('a') && shown.contains('日'), "{shown:?}");
        }
    }
}
