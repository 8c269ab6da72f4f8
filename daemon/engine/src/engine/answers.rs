//! From logits to text: what a step's outputs mean for the answers.

use super::{Engine, Output, Sink};
use crate::constraint::{Constraint, ConstraintError};
use crate::sequence::{Event, Failure, FinishReason, Sequence};
use hearth_abi::PluginError;
use hearth_abi::raw::Token;
use std::time::Instant;

/// What a token could not be chosen or taken for.
#[derive(Debug)]
enum Trouble {
    Engine(PluginError),
    Request(Failure),
}

impl From<PluginError> for Trouble {
    fn from(error: PluginError) -> Self {
        Self::Engine(error)
    }
}

impl From<ConstraintError> for Trouble {
    fn from(error: ConstraintError) -> Self {
        Self::Request(Failure::Constraint(error.0))
    }
}

impl Engine {
    /// Chooses and emits a token for every output, and further ones for as long as what was drafted is what is chosen.
    pub(super) fn answer(&mut self, sink: &mut dyn Sink) -> Result<(), PluginError> {
        let outputs = std::mem::take(&mut self.outputs);
        for output in &outputs {
            self.answer_one(*output, sink)?;
        }
        self.outputs = outputs;
        Ok(())
    }

    fn answer_one(&mut self, output: Output, sink: &mut dyn Sink) -> Result<(), PluginError> {
        let Some(at) = self.running.iter().position(|sequence| sequence.id == output.id) else {
            return Ok(());
        };
        let mut n_right = 0;
        let end = loop {
            let end = match self.pick(at, output.index + n_right) {
                Ok(Some(token)) => self.emit(at, token, sink),
                // The logits are no numbers.
                Ok(None) => Ok(Some(FinishReason::End)),
                Err(error) => Err(error),
            };
            let goes_on = matches!(end, Ok(None));
            let was_right = goes_on && n_right < output.n_drafted && self.was_drafted(at);
            n_right += usize::from(was_right);
            let constraint = self.running[at].constraint.as_mut();
            if let (true, Some(token)) = (goes_on, constraint.and_then(Constraint::end)) {
                // Nothing is left to choose.
                break self.emit(at, token, sink);
            }
            if !was_right {
                break end;
            }
        };
        let sequence = &mut self.running[at];
        if let (Some(slot), true) = (sequence.slot, n_right < output.n_drafted) {
            let keep = self.cache.len_of(slot) - output.n_drafted + n_right;
            self.cache.cut(&mut self.runner.context, slot, keep)?;
        }
        sequence.n_accepted += n_right;
        match end {
            Ok(None) => {}
            Ok(Some(FinishReason::ContextFull)) if sequence.can_shift() => self.shift(at)?,
            Ok(Some(reason)) => {
                let sequence = self.running.remove(at);
                self.finish(sequence, reason, sink);
            }
            Err(Trouble::Request(failure)) => {
                let sequence = self.running.remove(at);
                self.abandon(sequence, failure, sink);
            }
            Err(Trouble::Engine(error)) => return Err(error),
        }
        Ok(())
    }

    /// The token emitted last is the one that lies in memory in its place.
    fn was_drafted(&self, at: usize) -> bool {
        let sequence = &self.running[at];
        let last = sequence.tokens.len() - 1;
        let held = sequence.slot.map(|slot| &self.cache.slot(slot).tokens);
        held.and_then(|held| held.get(last)) == sequence.tokens.last()
    }

    fn pick(&mut self, at: usize, output: usize) -> Result<Option<Token>, Trouble> {
        let sequence = &mut self.running[at];
        if let Some(token) = sequence.thoughts.as_ref().and_then(|t| t.forced().first()) {
            return Ok(Some(*token));
        }
        let logits = self.runner.context.logits(output)?;
        sequence.sampler.prepare(logits);
        let picked = sequence.sampler.pick(logits);
        let (Some(constraint), Some(token)) = (&mut sequence.constraint, picked) else {
            return Ok(picked);
        };
        if let Some(thoughts) = &mut sequence.thoughts {
            let is_end = self.model.token_is_end(token);
            if is_end && thoughts.are_open() {
                // An answer is still to come.
                thoughts.close();
                return Ok(thoughts.forced().first().copied());
            }
            let piece = self.model.token_piece(token, sequence.spelled.contains(&token))?;
            if !is_end && !thoughts.would_answer(&piece) {
                return Ok(picked);
            }
        }
        // Most of the time the free choice is allowed, and asking about one token is cheap.
        if constraint.allows(token)? {
            return Ok(picked);
        }
        constraint.mask(logits)?;
        let picked = sequence.sampler.pick(logits);
        picked.map(Some).ok_or_else(|| {
            ConstraintError("no token that may come has a probability".into()).into()
        })
    }

    /// Takes a chosen token. Answers why the sequence ends, if it does.
    fn emit(
        &mut self,
        at: usize,
        token: Token,
        sink: &mut dyn Sink,
    ) -> Result<Option<FinishReason>, Trouble> {
        let sequence = &mut self.running[at];
        sequence.first_token.get_or_insert_with(Instant::now);
        sequence.tokens.push(token);
        sequence.sampler.accept(token);
        if self.model.token_is_end(token) {
            return Ok(Some(FinishReason::End));
        }
        let piece = self.model.token_piece(token, sequence.spelled.contains(&token))?;
        let (mut is_answer, mut was_chosen) = (true, true);
        if let Some(thoughts) = &mut sequence.thoughts {
            is_answer = thoughts.would_answer(&piece);
            was_chosen = thoughts.forced().first() != Some(&token);
            thoughts.take(token, &piece);
        }
        if let Some(constraint) = &mut sequence.constraint
            && is_answer
        {
            constraint.accept(token, &piece)?;
        }
        if was_chosen && let Some(logprobs) = sequence.sampler.logprobs(token) {
            sink.event(sequence.id, Event::Logprobs(logprobs));
        }
        let (text, stopped) = sequence.text.push(&piece);
        if !text.is_empty() {
            sink.event(sequence.id, Event::Text(text));
        }
        if stopped {
            return Ok(Some(FinishReason::Stop));
        }
        if sequence.n_generated() >= sequence.max_tokens {
            return Ok(Some(FinishReason::MaxTokens));
        }
        Ok((sequence.tokens.len() >= sequence.n_ctx).then_some(FinishReason::ContextFull))
    }

    pub(super) fn finish(
        &mut self,
        mut sequence: Sequence,
        reason: FinishReason,
        sink: &mut dyn Sink,
    ) {
        if reason != FinishReason::Stop {
            let rest = sequence.text.finish();
            if !rest.is_empty() {
                sink.event(sequence.id, Event::Text(rest));
            }
        }
        sink.event(sequence.id, Event::Done(sequence.finish(reason)));
        if let Some(admitted) = sequence.admitted {
            self.ledger.served(admitted.elapsed());
        }
        self.leave(&sequence);
    }
}
