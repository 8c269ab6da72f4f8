//! Where an answer's reasoning is, and ending it.
//!
//! A reasoning model writes its thoughts between two texts of its own, such as `<think>` and `</think>`, before the answer.
//! They are recognised in the text, not in tokens, because the same text can be spelled by different tokens. When the
//! thoughts have had their tokens, the closing text is put into the model's mouth, and it goes on with the answer.

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
}

impl Thoughts {
    pub(crate) fn new(thinking: Thinking) -> Self {
        let stage = if thinking.start.is_empty() { Stage::Inside } else { Stage::Before };
        Self { thinking, stage, text: Vec::new(), n_tokens: 0, is_closing: false, n_closed: 0 }
    }

    /// A token of this text would be one of the answer, to which the constraint holds.
    pub(crate) fn would_answer(&self, piece: &[u8]) -> bool {
        match self.stage {
            _ if self.thinking.is_constrained => true,
            Stage::Over => true,
            Stage::Inside => false,
            Stage::Before => {
                let text = [self.text.as_slice(), piece].concat();
                let written = text.trim_ascii_start();
                let start = self.thinking.start.as_bytes();
                !start.starts_with(written) && !written.starts_with(start)
            }
        }
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
                let written = self.text.trim_ascii_start();
                let start = self.thinking.start.as_bytes();
                if let Some(thoughts) = written.strip_prefix(start) {
                    self.text = thoughts.to_vec();
                    self.stage = Stage::Inside;
                } else if !start.starts_with(written) {
                    self.stage = Stage::Over;
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
                let holds = |end: &String| {
                    !end.is_empty()
                        && self.text.windows(end.len()).any(|part| part == end.as_bytes())
                };
                if all_in || self.thinking.ends.iter().any(holds) {
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
            assert!(!thoughts.would_answer(b"x") || thoughts.stage == Stage::Before, "{piece}");
        }
        thoughts.take(1, b">The answer");
        assert!(thoughts.would_answer(b"x"));
    }

    #[test]
    fn an_answer_without_thoughts_is_one_from_the_start() {
        let mut thoughts = thoughts("<think>", Some(0));
        assert!(thoughts.forced().is_empty());
        assert!(thoughts.would_answer(b"<b>") && !thoughts.would_answer(b" <th"));
        thoughts.take(1, b"<b>");
        assert!(thoughts.would_answer(b"<think>"));
        assert!(thoughts.forced().is_empty());
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
        assert!(thoughts.would_answer(b"x"));
        assert!(thoughts.forced().is_empty());
    }
}
