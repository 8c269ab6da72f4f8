//! Guessing what has to come: what a constraint forces, and the text that closes thoughts.
//!
//! A constraint forces bytes, and the model may spell them by other tokens than its tokenizer does; so this is a guess
//! like others, and the answer is what it would be without. But nearly all of it is right.

use super::{Guesser, Step};
use crate::scheduler::Share;
use crate::sequence::Sequence;
use crate::thoughts::Thoughts;
use hearth_abi::PluginError;
use hearth_abi::host::Model;
use hearth_abi::raw::Token;
use std::collections::HashMap;
use std::sync::Arc;

/// Longest guess.
const MAX_DRAFT: usize = 24;
/// The rate of an answer of which nothing is known yet.
const FIRST_RATE: f64 = 0.9;
/// Weight of the newest guess in the rate.
const NEWEST: f64 = 0.1;

/// What is expected of each answer that has a constraint.
#[derive(Debug)]
pub(crate) struct Rules {
    model: Arc<Model>,
    of: HashMap<u64, Expected>,
}

#[derive(Debug)]
struct Expected {
    /// Where in the answer, and what.
    at: usize,
    tokens: Vec<Token>,
    /// Part of the guesses that were right lately.
    rate: f64,
}

impl Rules {
    pub(crate) fn new(model: &Arc<Model>) -> Self {
        Self { model: Arc::clone(model), of: HashMap::new() }
    }
}

impl Guesser for Rules {
    fn guess(
        &mut self,
        running: &mut [Sequence],
        shares: &[Share],
        step: &mut Step<'_>,
    ) -> Result<(), PluginError> {
        for share in shares {
            let sequence = &mut running[share.idx];
            let closing = sequence.thoughts.as_ref().map_or([].as_slice(), |t| t.forced());
            let (tokens, rate) = if !closing.is_empty() {
                (closing, 1.0)
            } else if let Some(constraint) = &mut sequence.constraint
                && sequence.thoughts.as_ref().is_none_or(Thoughts::are_over)
            {
                let new = || Expected { at: 0, tokens: Vec::new(), rate: FIRST_RATE };
                let expected = self.of.entry(sequence.id).or_insert_with(new);
                expected.judge(&sequence.tokens);
                let text = constraint.expect();
                expected.tokens = match std::str::from_utf8(&text) {
                    Ok("") | Err(_) => Vec::new(),
                    Ok(text) => self.model.tokenize(text, false, false)?,
                };
                expected.at = sequence.tokens.len();
                (expected.tokens.as_slice(), expected.rate)
            } else {
                continue;
            };
            let most = tokens.len().min(MAX_DRAFT).min(step.room(sequence));
            sequence.guess.extend_from_slice(&tokens[..step.admit(most, rate)]);
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

impl Expected {
    /// Learns from what came.
    fn judge(&mut self, tokens: &[Token]) {
        for (expected, came) in self.tokens.iter().zip(tokens.get(self.at..).unwrap_or_default()) {
            let right = expected == came;
            self.rate += NEWEST * (f64::from(u8::from(right)) - self.rate);
            if !right {
                break;
            }
        }
    }
}
