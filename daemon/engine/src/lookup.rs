//! Guessing what comes next by what came before: where the last three tokens stood already, the text is guessed to go on
//! as it did there.
//!
//! Guesses cost nothing until they are put into a step, and every token that is chosen shows whether the guess for it was
//! right. So how often they are right is known before any is used, and [`draft_len`] uses them only where that pays.

use hearth_abi::raw::Token;
use std::collections::HashMap;

const N: usize = 3;
/// Longest draft.
const MAX_DRAFT: usize = 16;
/// Weight of the newest guess in the rate.
const NEWEST: f64 = 0.1;
/// The rate of a text of which nothing is known yet.
const FIRST_RATE: f64 = 0.4;

/// The places where each three tokens of one sequence stood last.
#[derive(Debug)]
pub(crate) struct Lookup {
    /// Where the text went on after them.
    places: HashMap<[Token; N], usize>,
    n_indexed: usize,
    /// Where the text is guessed to go on.
    guess: Option<usize>,
    /// Part of the guesses that were right lately.
    rate: f64,
}

impl Lookup {
    pub(crate) fn new() -> Self {
        Self { places: HashMap::new(), n_indexed: 0, guess: None, rate: FIRST_RATE }
    }

    /// Takes the tokens that were added since the last time.
    pub(crate) fn follow(&mut self, tokens: &[Token]) {
        let is_first = self.n_indexed == 0;
        for at in self.n_indexed..tokens.len() {
            let right = self.guess.map(|guess| tokens[guess] == tokens[at]);
            // The prompt's own repetitions say little about the answer.
            if let (Some(right), false) = (right, is_first) {
                self.rate += NEWEST * (f64::from(u8::from(right)) - self.rate);
            }
            let last: Option<[Token; N]> =
                (at + 1).checked_sub(N).and_then(|from| tokens[from..=at].try_into().ok());
            let seen = last.and_then(|last| self.places.insert(last, at + 1));
            self.guess = match right {
                Some(true) => self.guess.map(|guess| guess + 1),
                _ => seen,
            };
        }
        self.n_indexed = tokens.len();
    }

    /// What is guessed to come, at most [`MAX_DRAFT`] tokens.
    pub(crate) fn guess<'a>(&self, tokens: &'a [Token]) -> &'a [Token] {
        match self.guess {
            Some(guess) => &tokens[guess..tokens.len().min(guess + MAX_DRAFT)],
            None => &[],
        }
    }

    /// How often a guess was right lately.
    pub(crate) fn rate(&self) -> f64 {
        self.rate
    }
}

/// How many of `n_guessed` tokens to put into a step of `n_tokens` that yields `n_yield` tokens without them, so that most
/// tokens come in the time. Answers also how many tokens the step yields then.
pub(crate) fn draft_len(
    rate: f64,
    n_guessed: usize,
    n_tokens: usize,
    n_yield: f64,
    time: impl Fn(usize) -> Option<f64>,
) -> (usize, f64) {
    let mut best = (0, n_yield);
    let Some(mut best_time) = time(n_tokens) else { return best };
    let (mut right, mut expected) = (1.0, n_yield);
    for n_drafted in 1..=n_guessed {
        right *= rate;
        expected += right;
        let Some(time) = time(n_tokens + n_drafted) else { break };
        if expected * best_time > best.1 * time {
            best = (n_drafted, expected);
            best_time = time;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_repeats_is_guessed() {
        let mut tokens = vec![1, 2, 3, 4, 5, 6, 7, 8];
        let mut lookup = Lookup::new();
        lookup.follow(&tokens);
        assert!(lookup.guess(&tokens).is_empty());
        tokens.extend([3, 4, 5]);
        lookup.follow(&tokens);
        assert_eq!(lookup.guess(&tokens), [6, 7, 8, 3, 4, 5]);
        let before = lookup.rate();
        tokens.extend([6, 7]);
        lookup.follow(&tokens);
        assert_eq!(lookup.guess(&tokens), [8, 3, 4, 5, 6, 7]);
        assert!(lookup.rate() > before);
        tokens.push(99);
        lookup.follow(&tokens);
        assert!(lookup.guess(&tokens).is_empty());
    }

    #[test]
    fn guesses_are_used_only_where_they_pay() {
        // Reading the model dominates: more tokens are nearly free.
        let cheap = |n: usize| Some(10.0 + 0.1 * f64::from(u32::try_from(n).unwrap()));
        // Computing dominates: each token costs what the whole step did.
        let dear = |n: usize| Some(10.0 * f64::from(u32::try_from(n).unwrap()));
        assert_eq!(draft_len(0.95, MAX_DRAFT, 1, 1.0, cheap).0, MAX_DRAFT);
        assert!(draft_len(0.2, MAX_DRAFT, 1, 1.0, cheap).0 <= 3);
        assert_eq!(draft_len(0.95, MAX_DRAFT, 1, 1.0, dear).0, 0);
        assert_eq!(draft_len(0.9, MAX_DRAFT, 1, 1.0, |_| None).0, 0);
    }
}
