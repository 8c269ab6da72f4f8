//! DRY: a token that would continue a repetition loses the more of its logit the longer that repetition already is.
//!
//! A repetition is an end of the text that also stands earlier in it. Sequence breakers are texts that end one: nothing up
//! to the last breaker counts. They are looked for in the text itself, across tokens.

use super::logit_of;
use hearth_abi::Piece;
use hearth_abi::host::Model;
use hearth_abi::raw::Token;
use std::collections::HashMap;
use std::sync::Arc;

/// How repetitions are punished: `multiplier * base ^ (length - allowed_length)` off the logit.
#[derive(Debug, Clone)]
pub struct Dry {
    /// Off the logit of a token that continues the shortest repetition that is punished.
    pub multiplier: f32,
    /// Times so much for each token that the repetition is longer.
    pub base: f32,
    /// Repetitions shorter than this are not punished.
    pub allowed_length: u32,
    /// How many recent tokens are searched for repetitions.
    pub last_n: u32,
    /// What ends a repetition.
    pub breakers: Breakers,
}

/// Texts that end a repetition, and the vocabulary to find them with.
#[derive(Debug, Clone)]
pub struct Breakers {
    texts: Arc<[Vec<u8>]>,
    pieces: Pieces,
}

#[derive(Debug, Clone)]
enum Pieces {
    Of(Arc<Model>),
    /// Token `n` is the byte `n`.
    #[cfg(test)]
    Bytes,
}

impl Breakers {
    /// These texts in a model's vocabulary. Empty ones are passed over.
    pub fn new(model: &Arc<Model>, texts: &[String]) -> Self {
        Self::of(Pieces::Of(Arc::clone(model)), texts)
    }

    fn of(pieces: Pieces, texts: &[String]) -> Self {
        let texts = texts.iter().filter(|text| !text.is_empty());
        Self { texts: texts.map(|text| text.as_bytes().to_vec()).collect(), pieces }
    }

    fn piece(&self, token: Token) -> Piece {
        match &self.pieces {
            Pieces::Of(model) => model.token_piece(token, false).unwrap_or_default(),
            #[cfg(test)]
            Pieces::Bytes => u8::try_from(token).into_iter().collect(),
        }
    }

    /// Some breaker stands in the text and ends after its first `from` bytes.
    fn end_in(&self, text: &[u8], from: usize) -> bool {
        self.texts.iter().any(|breaker| {
            let first = (from + 1).saturating_sub(breaker.len());
            text[first..].windows(breaker.len()).any(|window| window == breaker)
        })
    }
}

/// The recent text of one sequence.
#[derive(Debug, Clone)]
pub(super) struct Repetitions {
    dry: Dry,
    /// At least the last `last_n` tokens, if there were so many.
    recent: Vec<Token>,
    /// Tokens since the last breaker.
    since_breaker: usize,
    /// The last bytes of the text, one fewer than the longest breaker has.
    tail: Vec<u8>,
    /// For each place in `recent`, from the end: how long what ends there is the same as the end of all.
    lengths: Vec<usize>,
    /// The longest repetition that each token would continue.
    longest: HashMap<Token, usize>,
}

impl Repetitions {
    /// `None` if nothing is punished.
    pub(super) fn new(dry: Option<&Dry>, prompt: &[Token]) -> Option<Self> {
        let dry = dry.filter(|dry| dry.multiplier > 0.0 && dry.base >= 1.0 && dry.last_n > 0)?;
        let mut repetitions = Self {
            dry: dry.clone(),
            recent: Vec::new(),
            since_breaker: 0,
            tail: Vec::new(),
            lengths: Vec::new(),
            longest: HashMap::new(),
        };
        let first = prompt.len().saturating_sub(dry.last_n as usize);
        prompt[first..].iter().for_each(|token| repetitions.accept(*token));
        Some(repetitions)
    }

    pub(super) fn accept(&mut self, token: Token) {
        let last_n = self.dry.last_n as usize;
        if self.recent.len() >= 2 * last_n {
            self.recent.drain(..last_n);
        }
        self.recent.push(token);
        let piece = self.dry.breakers.piece(token);
        let before = self.tail.len();
        self.tail.extend(piece);
        let broken = self.tail.len() > before && self.dry.breakers.end_in(&self.tail, before);
        self.since_breaker = if broken { 0 } else { self.since_breaker + 1 };
        let longest = self.dry.breakers.texts.iter().map(Vec::len).max().unwrap_or(0);
        let keep = self.tail.len().min(longest.saturating_sub(1));
        self.tail.drain(..self.tail.len() - keep);
    }

    pub(super) fn apply(&mut self, logits: &mut [f32]) {
        self.find();
        let Dry { multiplier, base, allowed_length, .. } = self.dry;
        for (token, length) in &self.longest {
            // A token that is a breaker itself continues nothing.
            let Some(logit) = logit_of(logits, *token) else { continue };
            let piece = self.dry.breakers.piece(*token);
            if self.dry.breakers.end_in(&piece, 0) {
                continue;
            }
            #[allow(clippy::cast_precision_loss)] // Tokens of a context.
            let beyond = (length - allowed_length as usize) as f32;
            // The power may be infinite.
            *logit -= (multiplier * base.powf(beyond)).min(1e30);
        }
    }

    /// Which tokens would continue a repetition, and how long it is without them.
    fn find(&mut self) {
        self.longest.clear();
        let first = self.recent.len().saturating_sub(self.dry.last_n as usize);
        let recent = &self.recent[first..];
        let n = recent.len();
        let allowed = self.dry.allowed_length as usize;
        if n <= allowed || self.since_breaker < allowed {
            return;
        }
        // The Z-algorithm on the reversed text: linear, whatever repeats.
        let at = |back: usize| recent[n - 1 - back];
        self.lengths.clear();
        self.lengths.resize(n, 0);
        let (mut left, mut right) = (0, 0);
        for start in 1..n {
            let mut length =
                if start < right { self.lengths[start - left].min(right - start) } else { 0 };
            while start + length < n && at(length) == at(start + length) {
                length += 1;
            }
            self.lengths[start] = length;
            if start + length > right {
                (left, right) = (start, start + length);
            }
            let length = length.min(self.since_breaker);
            if length >= allowed {
                let longest = self.longest.entry(at(start - 1)).or_insert(0);
                *longest = (*longest).max(length);
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(in super::super) fn dry(texts: &[&str]) -> Dry {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        Dry {
            multiplier: 1.0,
            base: 2.0,
            allowed_length: 2,
            last_n: 64,
            breakers: Breakers::of(Pieces::Bytes, &texts),
        }
    }

    fn tokens(text: &str) -> Vec<Token> {
        text.bytes().map(Token::from).collect()
    }

    /// What each byte loses after a text.
    fn lost(dry: &Dry, text: &str) -> Vec<(char, f32)> {
        let mut logits = [0.0_f32; 256];
        Repetitions::new(Some(dry), &tokens(text)).unwrap().apply(&mut logits);
        (0..=255_u8)
            .zip(logits)
            .filter(|(_, l)| *l != 0.0)
            .map(|(b, l)| (char::from(b), -l))
            .collect()
    }

    #[test]
    fn the_longer_the_repetition_the_more_is_lost() {
        assert_eq!(lost(&dry(&[]), "ab"), []);
        assert_eq!(lost(&dry(&[]), "abc ab"), [('c', 1.0)]);
        assert_eq!(lost(&dry(&[]), "xabc xab"), [('c', 2.0)]);
        assert_eq!(lost(&dry(&[]), "abc abd ab"), [('c', 1.0), ('d', 2.0)]);
    }

    #[test]
    fn a_breaker_ends_a_repetition_also_across_tokens() {
        assert_eq!(lost(&dry(&["\n"]), "xab\nabc xab\nab"), [('c', 1.0)]);
        assert_eq!(lost(&dry(&["##"]), "xab##abc xab##ab"), [('#', 1.0), ('c', 1.0)]);
        assert_eq!(lost(&dry(&["c"]), "abc ab"), [], "a breaker loses nothing itself");
    }

    #[test]
    fn only_the_recent_text_counts_and_nothing_overflows() {
        let short = Dry { last_n: 5, ..dry(&[]) };
        assert_eq!(lost(&short, "abc ab"), []);
        let steep = Dry { base: 1e10, ..dry(&[]) };
        let text = "abcdefgh".repeat(7);
        assert!(lost(&steep, &text).iter().all(|(_, lost)| lost.is_finite() && *lost > 1e20));
    }

    proptest! {
        #[test]
        fn as_searched_for_the_slow_way(
            text in "[abc.]{0,60}",
            more in "[abc.]{0,60}",
            allowed_length in 1_u32..5,
            last_n in 1_u32..80,
        ) {
            let dry = Dry { allowed_length, last_n, ..dry(&[".", "ca"]) };
            let mut repetitions = Repetitions::new(Some(&dry), &tokens(&text)).unwrap();
            tokens(&more).into_iter().for_each(|token| repetitions.accept(token));
            let mut seen = [0.0_f32; 256];
            repetitions.apply(&mut seen);

            // As the sampler does, only the last tokens of a prompt are known.
            let prompt = &text[text.len().saturating_sub(last_n as usize)..];
            let known = prompt.to_owned() + &more;
            let broken = [".", "ca"].iter().filter_map(|b| known.rfind(b).map(|at| at + b.len())).max();
            let recent = &known[known.len().saturating_sub(last_n as usize)..];
            let most = known.len() - broken.unwrap_or(0);
            let mut wanted = [0.0_f32; 256];
            for next in "abc".chars() {
                let length = recent.char_indices().filter(|(_, c)| *c == next).map(|(at, _)| {
                    (0..=at.min(most)).rev().find(|n| recent.ends_with(&recent[at - n..at])).unwrap()
                }).max().unwrap_or(0);
                if length >= allowed_length as usize {
                    let beyond = i32::try_from(length).unwrap() - i32::try_from(allowed_length).unwrap();
                    wanted[next as usize] = -(2.0_f32.powi(beyond));
                }
            }
            prop_assert_eq!(seen, wanted);
        }
    }
}
