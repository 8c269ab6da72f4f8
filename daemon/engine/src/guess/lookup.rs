//! Guessing what comes next by what came before: where the last three tokens stood already, the text is guessed to go on
//! as it did there.
//!
//! Guesses cost nothing until they are put into a step, and every token that is chosen shows whether the guess for it was
//! right. So how often they are right is known before any is used.

use super::{Guesser, Step};
use crate::images::is_text;
use crate::scheduler::Share;
use crate::sequence::Sequence;
use hearth_abi::PluginError;
use hearth_abi::raw::Token;
use std::collections::HashMap;

const N: usize = 3;
/// Longest draft.
const MAX_DRAFT: usize = 16;
/// Weight of the newest guess in the rate.
const NEWEST: f64 = 0.1;
/// The rate of a text of which nothing is known yet.
const FIRST_RATE: f64 = 0.4;

/// What is known of each sequence, by its number.
#[derive(Debug, Default)]
pub(crate) struct Lookups {
    of: HashMap<u64, Lookup>,
}

impl Guesser for Lookups {
    fn guess(
        &mut self,
        running: &mut [Sequence],
        shares: &[Share],
        step: &mut Step<'_>,
    ) -> Result<(), PluginError> {
        for share in shares {
            let sequence = &mut running[share.idx];
            let lookup = self.of.entry(sequence.id).or_insert_with(Lookup::new);
            lookup.follow(&sequence.tokens);
            if !sequence.guess.is_empty() {
                continue;
            }
            let guess = lookup.guess(&sequence.tokens);
            let most = guess.len().min(step.room(sequence));
            sequence.guess.extend_from_slice(&guess[..step.admit(most, lookup.rate)]);
        }
        Ok(())
    }

    fn forget(&mut self, id: u64) {
        self.of.remove(&id);
    }

    fn holds_memory(&self) -> bool {
        false
    }

    fn verify_invariants(&self) {}
}

/// The places where each three tokens of one sequence stood last.
#[derive(Debug)]
struct Lookup {
    /// Where the text went on after them.
    places: HashMap<[Token; N], usize>,
    n_indexed: usize,
    /// Where the text is guessed to go on.
    guess: Option<usize>,
    /// Part of the guesses that were right lately.
    rate: f64,
}

impl Lookup {
    fn new() -> Self {
        Self { places: HashMap::new(), n_indexed: 0, guess: None, rate: FIRST_RATE }
    }

    /// Takes the tokens that were added since the last time.
    fn follow(&mut self, tokens: &[Token]) {
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

    /// What is guessed to come, at most [`MAX_DRAFT`] tokens and no image.
    fn guess<'a>(&self, tokens: &'a [Token]) -> &'a [Token] {
        let Some(guess) = self.guess else { return &[] };
        let seen = &tokens[guess..tokens.len().min(guess + MAX_DRAFT)];
        &seen[..seen.iter().take_while(|token| is_text(**token)).count()]
    }
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
        let before = lookup.rate;
        tokens.extend([6, 7]);
        lookup.follow(&tokens);
        assert_eq!(lookup.guess(&tokens), [8, 3, 4, 5, 6, 7]);
        assert!(lookup.rate > before);
        tokens.push(99);
        lookup.follow(&tokens);
        assert!(lookup.guess(&tokens).is_empty());
    }
}
