//! Where an answer's reasoning is, and ending it.
//!
//! A reasoning model writes its thoughts between two texts of its own, such as `<think>` and `</think>`, before the answer.
//! They are recognised in the text, not in tokens, because the same text can be spelled by different tokens. When the
//! thoughts have had their tokens, the closing text is put into the model's mouth, and it goes on with the answer.
//!
//! Where a constraint holds for the answer, every token is either of the thoughts or of the answer: one that would end the
//! thoughts and begin the answer is not taken, but the border alone is spelled. What may become the thoughts' beginning and
//! does not is the answer's, if the constraint takes it; otherwise the thoughts have to begin, since it was said already.

use hearth_abi::raw::Token;

/// How a model reasons, and how much of that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thinking {
    /// The text before the thoughts; empty if the prompt ends with it.
    pub start: String,
    /// Texts that end them.
    pub ends: Vec<String>,
    /// One of these, in tokens.
    pub closing: Vec<Token>,
    /// Most tokens of thoughts; `None`: as many as it likes.
    pub max_tokens: Option<u32>,
    /// The request's constraint covers the thoughts as well; otherwise the answer alone.
    pub is_constrained: bool,
}

/// What a token would be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// A part of the thoughts, or of what may begin them.
    Thoughts,
    /// The thoughts end with so many bytes of it, and the answer begins with the rest.
    Both(usize),
    /// A part of the answer, to which the constraint holds.
    Answer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// What was written may become `start`.
    Before,
    Inside,
    Over,
}

/// The thoughts of one answer while it grows.
#[derive(Debug)]
pub(crate) struct Thoughts {
    thinking: Thinking,
    stage: Stage,
    /// The end of the text, as far as a border may lie in it.
    text: Vec<u8>,
    n_tokens: u32,
    /// They have to end whatever they had.
    is_closing: bool,
    /// Tokens of the closing text that were put in already.
    n_closed: usize,
    /// Tokens so far of what may become `start`.
    n_undecided: usize,
}

impl Thoughts {
    pub(crate) fn new(thinking: Thinking) -> Self {
        let stage = if thinking.start.is_empty() { Stage::Inside } else { Stage::Before };
        Self {
            thinking,
            stage,
            text: Vec::new(),
            n_tokens: 0,
            is_closing: false,
            n_closed: 0,
            n_undecided: 0,
        }
    }

    /// What comes next is a part of the answer, whatever it is.
    pub(crate) fn are_over(&self) -> bool {
        self.stage == Stage::Over || self.thinking.is_constrained
    }

    /// What a token of this text would be.
    pub(crate) fn part(&mut self, piece: &[u8]) -> Part {
        if self.are_over() {
            return Part::Answer;
        }
        let n_before = self.text.len();
        self.text.extend_from_slice(piece);
        let part = match self.stage {
            Stage::Before => {
                let written = self.text.trim_ascii_start();
                let start = self.thinking.start.as_bytes();
                let may_think = start.starts_with(written) || written.starts_with(start);
                if may_think { Part::Thoughts } else { Part::Answer }
            }
            _ => match self.end_in(&self.text) {
                Some(end) if end < self.text.len() => Part::Both(end.saturating_sub(n_before)),
                _ => Part::Thoughts,
            },
        };
        self.text.truncate(n_before);
        part
    }

    /// Where the first text that ends them ends.
    fn end_in(&self, text: &[u8]) -> Option<usize> {
        let ends = self.thinking.ends.iter().filter(|end| !end.is_empty());
        let found = |end: &String| {
            let at = text.windows(end.len()).position(|part| part == end.as_bytes())?;
            Some(at + end.len())
        };
        ends.filter_map(found).min()
    }

    /// How many of the last tokens may be the beginning of thoughts or of the answer.
    pub(crate) fn n_undecided(&self) -> usize {
        if self.thinking.is_constrained { 0 } else { self.n_undecided }
    }

    /// What is left to write of the text before them.
    pub(crate) fn rest_of_start(&self) -> &[u8] {
        let written = self.text.trim_ascii_start().len();
        self.thinking.start.as_bytes().get(written..).unwrap_or_default()
    }

    /// There are none: what is undecided was the answer's.
    pub(crate) fn give_way(&mut self) {
        (self.stage, self.n_undecided) = (Stage::Over, 0);
    }

    /// The tokens that have to come next, if the thoughts have to end.
    pub(crate) fn forced(&self) -> &[Token] {
        let had_all = self.thinking.max_tokens.is_some_and(|max| self.n_tokens >= max);
        if self.stage == Stage::Inside && (had_all || self.is_closing) {
            return self.thinking.closing.get(self.n_closed..).unwrap_or_default();
        }
        &[]
    }

    /// They have begun, and an answer is still to come.
    pub(crate) fn are_open(&self) -> bool {
        self.stage == Stage::Inside && !self.thinking.is_constrained
    }

    /// Ends them before their time.
    pub(crate) fn close(&mut self) {
        self.is_closing = true;
    }

    /// Takes the text of a token that was chosen.
    pub(crate) fn take(&mut self, token: Token, piece: &[u8]) {
        let was_forced = self.forced().first() == Some(&token);
        match self.stage {
            Stage::Over => {}
            Stage::Before => {
                self.text.extend_from_slice(piece);
                self.n_undecided += 1;
                let written = self.text.trim_ascii_start();
                let start = self.thinking.start.as_bytes();
                if let Some(thoughts) = written.strip_prefix(start) {
                    self.text = thoughts.to_vec();
                    let is_over = self.end_in(&self.text).is_some();
                    self.stage = if is_over { Stage::Over } else { Stage::Inside };
                    self.n_undecided = 0;
                } else if !start.starts_with(written) {
                    self.give_way();
                }
            }
            Stage::Inside => {
                self.text.extend_from_slice(piece);
                if was_forced {
                    self.n_closed += 1;
                } else {
                    self.n_tokens += 1;
                }
                let all_in = self.n_closed == self.thinking.closing.len() && was_forced;
                if all_in || self.end_in(&self.text).is_some() {
                    self.stage = Stage::Over;
                    self.text = Vec::new();
                } else {
                    let longest = self.thinking.ends.iter().map(String::len).max().unwrap_or(0);
                    let n_old = self.text.len().saturating_sub(longest);
                    self.text.drain(..n_old);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thoughts(start: &str, max_tokens: Option<u32>) -> Thoughts {
        let ends = vec!["</think>".to_string()];
        Thoughts::new(Thinking {
            start: start.into(),
            ends,
            closing: vec![7, 8],
            max_tokens,
            is_constrained: false,
        })
    }

    #[test]
    fn borders_are_found_however_they_are_cut() {
        let mut thoughts = thoughts("<think>", None);
        for piece in ["\n", "<thi", "nk>a", "b</", "think"] {
            thoughts.take(1, piece.as_bytes());
            assert!(thoughts.part(b"x") == Part::Thoughts || thoughts.stage == Stage::Before);
        }
        assert_eq!(thoughts.part(b">"), Part::Thoughts);
        assert_eq!(thoughts.part(b">The answer"), Part::Both(1));
        assert_eq!(thoughts.part(b">>a</think>b"), Part::Both(1));
        assert_eq!(thoughts.part(b"</think>b"), Part::Both(8));
        thoughts.take(1, b">The answer");
        assert_eq!(thoughts.part(b"x"), Part::Answer);
    }

    #[test]
    fn an_answer_without_thoughts_is_one_from_the_start() {
        let mut thoughts = thoughts("<think>", Some(0));
        assert!(thoughts.forced().is_empty());
        assert_eq!(thoughts.part(b"<b>"), Part::Answer);
        assert_eq!(thoughts.part(b" <th"), Part::Thoughts);
        thoughts.take(1, b"<b>");
        assert_eq!(thoughts.part(b"<think>"), Part::Answer);
        assert!(thoughts.forced().is_empty());
    }

    #[test]
    fn what_may_begin_thoughts_is_undecided() {
        let mut thoughts = thoughts("<think>", None);
        for (piece, rest) in [("\n", "<think>"), ("<t", "hink>"), ("hin", "k>")] {
            thoughts.take(1, piece.as_bytes());
            assert_eq!(thoughts.rest_of_start(), rest.as_bytes());
        }
        assert_eq!(thoughts.n_undecided(), 3);
        thoughts.take(1, b"k>");
        assert_eq!((thoughts.n_undecided(), thoughts.stage), (0, Stage::Inside));
    }

    #[test]
    fn thoughts_that_had_their_tokens_are_closed() {
        let mut thoughts = thoughts("", Some(2));
        for _ in 0..2 {
            assert!(thoughts.forced().is_empty());
            thoughts.take(1, b"hm ");
        }
        assert_eq!(thoughts.forced(), [7, 8]);
        thoughts.take(7, b"</");
        assert_eq!(thoughts.forced(), [8]);
        thoughts.take(8, b"think>");
        assert!(thoughts.are_over());
        assert!(thoughts.forced().is_empty());
    }
}
