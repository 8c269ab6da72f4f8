//! From logits to text: what a step's outputs mean for the answers.

use super::{Engine, Output, Sink};
use crate::constraint::{Constraint, ConstraintError};
use crate::sequence::{Event, Failure, FinishReason, Sequence};
use crate::thoughts::Part;
use hearth_abi::PluginError;
use hearth_abi::host::Model;
use hearth_abi::raw::Token;
use std::time::Instant;

/// What a token could not be chosen or taken for.
#[derive(Debug)]
enum Trouble {
    Engine(PluginError),
    Request(Failure),
}

/// What follows.
#[derive(Debug)]
enum Choice {
    Token(Token),
    /// The logits are no numbers.
    Nothing,
    /// What the free choice may be replaced by takes long to say: it is worked out beside the next step, which computes these
    /// logits again.
    Later,
}

impl From<Option<&Token>> for Choice {
    fn from(token: Option<&Token>) -> Self {
        token.map_or(Self::Nothing, |token| Self::Token(*token))
    }
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
        if self.running[at].max_tokens == 0 {
            let sequence = self.running.remove(at);
            self.finish(sequence, FinishReason::MaxTokens, sink);
            return Ok(());
        }
        let mut n_right = 0;
        let end = loop {
            let end = match self.pick(at, output.index, n_right) {
                Ok(Choice::Token(token)) => self.emit(at, token, sink),
                Ok(Choice::Nothing) => Ok(Some(FinishReason::End)),
                Ok(Choice::Later) => {
                    n_right -= 1;
                    break Ok(None);
                }
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

    /// Chooses what follows `n_right` guessed tokens that were right.
    fn pick(&mut self, at: usize, output: usize, n_right: usize) -> Result<Choice, Trouble> {
        let sequence = &mut self.running[at];
        if let Some(token) = sequence.thoughts.as_ref().and_then(|t| t.forced().first()) {
            return Ok(Choice::Token(*token));
        }
        let logits = self.runner.context.logits(output + n_right)?;
        let chance = sequence.sampler.chance();
        sequence.sampler.prepare(logits);
        let Some(token) = sequence.sampler.pick(logits) else { return Ok(Choice::Nothing) };
        let picked = Ok(Choice::Token(token));
        let Sequence { constraint: Some(constraint), thoughts, .. } = sequence else {
            return picked;
        };
        if let Some(thoughts) = thoughts {
            let is_end = self.model.token_is_end(token);
            if is_end && thoughts.are_open() {
                // An answer is still to come.
                thoughts.close();
                return Ok(thoughts.forced().first().into());
            }
            let piece = self.model.token_piece(token, sequence.spelled.contains(&token))?;
            match if is_end { Part::Answer } else { thoughts.part(&piece) } {
                Part::Thoughts => return picked,
                Part::Both(n) => return spell(&self.model, &sequence.spelled, logits, &piece[..n]),
                Part::Answer => {}
            }
            let n_decided = sequence.tokens.len().saturating_sub(thoughts.n_undecided());
            let undecided = &sequence.tokens[n_decided..];
            if !undecided.is_empty() {
                let text = detokenized(&self.model, &sequence.spelled, undecided)?;
                if !constraint.accept_late(undecided, &text)? {
                    let rest = thoughts.rest_of_start();
                    return spell(&self.model, &sequence.spelled, logits, rest);
                }
                thoughts.give_way();
            }
        }
        // Most of the time the free choice is allowed, and asking about one token is cheap.
        if constraint.allows(token)? {
            return picked;
        }
        if n_right > 0 && !constraint.has_mask()? {
            sequence.sampler.take_back(chance);
            return Ok(Choice::Later);
        }
        constraint.mask(logits)?;
        sequence.sampler.pick(logits).map(Choice::Token).ok_or_else(nothing_left)
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
            is_answer = thoughts.part(&piece) == Part::Answer;
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

/// The likeliest token that begins what has to come. The vocabulary is searched, which takes milliseconds, where a model begins
/// or ends its thoughts in a way that is none: hardly ever.
fn spell(model: &Model, spelled: &[Token], logits: &[f32], rest: &[u8]) -> Result<Choice, Trouble> {
    let mut best = None;
    for (token, logit) in (0..).zip(logits) {
        if *logit > best.map_or(f32::NEG_INFINITY, |(_, best)| best) {
            let piece = model.token_piece(token, spelled.contains(&token))?;
            if !piece.is_empty() && rest.starts_with(&piece) {
                best = Some((token, *logit));
            }
        }
    }
    best.map(|(token, _)| Choice::Token(token)).ok_or_else(nothing_left)
}

fn detokenized(model: &Model, spelled: &[Token], tokens: &[Token]) -> Result<Vec<u8>, PluginError> {
    let mut text = Vec::new();
    for token in tokens {
        text.extend_from_slice(&model.token_piece(*token, spelled.contains(token))?);
    }
    Ok(text)
}

fn nothing_left() -> Trouble {
    ConstraintError("no token that may come has a probability".into()).into()
}
