//! From where on a lazy constraint holds.

use super::ConstraintError;
use regex::bytes::Regex;

/// Of the text behind a trigger's start. No format's trigger is as long.
const LONGEST: usize = 256;

/// What is looked for in an answer while it grows.
#[derive(Debug)]
pub struct Triggers {
    patterns: Vec<Regex>,
    /// The answer so far.
    text: Vec<u8>,
    /// No trigger begins before this.
    from: usize,
}

impl Triggers {
    /// Texts, and regular expressions whose first group that is not empty is the trigger, or all of it.
    pub fn new(words: &[String], patterns: &[String]) -> Result<Self, ConstraintError> {
        let patterns = words.iter().map(|word| regex::escape(word)).chain(patterns.iter().cloned());
        let patterns = patterns.map(|pattern| Regex::new(&pattern)).collect::<Result<_, _>>();
        let patterns = patterns.map_err(|error| ConstraintError(error.to_string()))?;
        Ok(Self { patterns, text: Vec::new(), from: 0 })
    }

    /// Takes a token's text. True once a trigger is there and `begin` takes all text from its start on.
    pub(super) fn take(&mut self, piece: &[u8], mut begin: impl FnMut(&[u8]) -> bool) -> bool {
        self.text.extend_from_slice(piece);
        while let Some(start) = self.patterns.iter().filter_map(|pattern| self.find(pattern)).min()
        {
            if begin(&self.text[start..]) {
                return true;
            }
            self.from = start + 1;
        }
        self.from = self.from.max(self.text.len().saturating_sub(LONGEST));
        false
    }

    /// Where a trigger starts.
    fn find(&self, pattern: &Regex) -> Option<usize> {
        let found = pattern.captures_at(&self.text, self.from)?;
        let group = found.iter().skip(1).flatten().find(|group| !group.is_empty());
        group.or(found.get(0)).map(|part| part.start())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the constraint begins with if the answer comes in these pieces, and after how many.
    fn begun(words: &[&str], patterns: &[&str], pieces: &[&str]) -> Option<(String, usize)> {
        let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut triggers = Triggers::new(&owned(words), &owned(patterns)).unwrap();
        let mut begun = String::new();
        let at = pieces.iter().position(|piece| {
            triggers.take(piece.as_bytes(), |text| {
                begun = String::from_utf8(text.to_vec()).unwrap();
                !begun.starts_with("<call>no")
            })
        });
        at.map(|at| (begun, at + 1))
    }

    #[test]
    fn a_trigger_is_found_however_it_is_cut() {
        for pieces in [&["a <call>x"][..], &["a", " <", "ca", "ll>x"], &["a <call", ">x"]] {
            let found = begun(&["<call>", "[CALL]"], &[], pieces);
            assert_eq!(found, Some(("<call>x".into(), pieces.len())));
        }
        let long = "<cal".repeat(500);
        assert_eq!(begun(&["<call>"], &[], &[&long, "l>"]), Some(("<call>".into(), 2)));
        assert_eq!(begun(&["<call>"], &[], &["<call", " >", "call>"]), None);
    }

    #[test]
    fn a_pattern_says_which_part_is_the_trigger() {
        let patterns = [r"^\s+to$", r"<start>assistant(\s+to)"];
        assert_eq!(begun(&[], &patterns, &[" ", "to"]), Some((" to".into(), 2)));
        assert_eq!(begun(&[], &patterns, &["x", " to"]), None);
        let found = begun(&[], &patterns, &["hm<start>", "assistant", " to=f"]);
        assert_eq!(found, Some((" to=f".into(), 3)));
        assert!(Triggers::new(&[], &["(".into()]).is_err());
    }

    #[test]
    fn what_only_looks_like_a_trigger_does_not_hide_the_next() {
        let pieces = ["<call>no", " and <call>", "yes"];
        assert_eq!(begun(&["<call>"], &[], &pieces), Some(("<call>".into(), 2)));
    }
}
