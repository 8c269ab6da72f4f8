//! One answer's place in a rule of llguidance's.
//!
//! The mask for the next token is computed on a thread of its own while the plugin computes the step, and is there when
//! the logits are: the engine thread only takes tokens and looks at bits. Behind a guess no mask is there yet, and llguidance
//! is asked about the one token that was chosen.
//!
//! Measured with gemma-3's 262,144 tokens on one core of an EPYC (2026-11): llguidance says of one token in 2 us whether it
//! is allowed, but a mask takes 15 us in most places and up to 11 ms inside a string of bounded length, which no stream
//! should wait for. Sending work takes 8 us, receiving a mask that is there 0.4 us, and applying one 26 us. To take a token costs
//! 0.4 us, and to look ahead 1 us in free text and 16 to 44 us where something can be expected.

use super::ConstraintError;
use super::blanks::Blanks;
use super::limits::reason;
use hearth_abi::raw::Token;
use llguidance::Matcher;
use llguidance::toktrie::{SimpleVob, TokEnv};
use std::fmt::Display;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SendError, Sender, channel};

/// Bytes that are expected ahead.
const MAX_EXPECTED: usize = 96;

/// With one of these begins every part of a JSON text; and inside a string several may come.
const BEGINNINGS: [u8; 13] = *b"\":,{}[]a-0tfn";

/// The matcher, and which tokens may follow.
struct Place {
    matcher: Box<Matcher>,
    mask: Result<SimpleVob, ConstraintError>,
}

/// A matcher to ask for its mask, and where that goes.
pub(super) struct Work {
    matcher: Box<Matcher>,
    back: Sender<Place>,
}

impl Work {
    pub(super) fn run(self) {
        let Self { mut matcher, back } = self;
        let mask = matcher.compute_mask_or_eos().map_err(told);
        // Nobody waits for it when the request has been cancelled.
        let _ = back.send(Place { matcher, mask });
    }
}

/// How far an answer has come in a rule.
pub struct Guided {
    /// `None` while it is away for a mask.
    matcher: Option<Box<Matcher>>,
    /// `None` if none was asked for since the last token.
    mask: Option<Result<SimpleVob, ConstraintError>>,
    blanks: Blanks,
    env: TokEnv,
    ends: Arc<[Token]>,
    work: Sender<Work>,
    back: Sender<Place>,
    done: Receiver<Place>,
}

impl std::fmt::Debug for Guided {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Guided")
    }
}

impl Guided {
    pub(super) fn new(
        matcher: Matcher,
        mask: SimpleVob,
        env: &TokEnv,
        ends: &Arc<[Token]>,
        work: &Sender<Work>,
    ) -> Self {
        let (back, done) = channel();
        Self {
            matcher: Some(Box::new(matcher)),
            mask: Some(Ok(mask)),
            blanks: Blanks::default(),
            env: Arc::clone(env),
            ends: Arc::clone(ends),
            work: work.clone(),
            back,
            done,
        }
    }

    /// The matcher, once it is back.
    fn matcher(&mut self) -> Result<&mut Matcher, ConstraintError> {
        let matcher = match self.matcher.take() {
            Some(matcher) => matcher,
            None => {
                let place = self.done.recv().map_err(|_| gone())?;
                self.mask = Some(place.mask);
                place.matcher
            }
        };
        Ok(self.matcher.insert(matcher))
    }

    /// Has the mask for the next token computed, unless it is there.
    pub(super) fn begin_mask(&mut self) -> Result<(), ConstraintError> {
        if self.mask.is_some() {
            return Ok(());
        }
        let Some(matcher) = self.matcher.take() else { return Ok(()) };
        self.work.send(Work { matcher, back: self.back.clone() }).map_err(|SendError(work)| {
            self.matcher = Some(work.matcher);
            gone()
        })
    }

    fn mask_bits(&mut self) -> Result<&SimpleVob, ConstraintError> {
        self.begin_mask()?;
        self.matcher()?;
        let mask = self.mask.as_ref().ok_or_else(gone)?;
        mask.as_ref().map_err(Clone::clone)
    }

    pub(super) fn allows(&mut self, token: Token) -> Result<bool, ConstraintError> {
        if self.end().is_some() {
            return Ok(self.ends.contains(&token));
        }
        let matcher = self.matcher()?;
        let taken = matcher.validate_tokens(&[token.cast_unsigned()]);
        taken.map(|n| n == 1).map_err(told)
    }

    pub(super) fn mask(&mut self, logits: &mut [f32]) -> Result<(), ConstraintError> {
        let mask = self.mask_bits()?.as_slice();
        let covered = logits.len().min(mask.len() * 32);
        logits[covered..].fill(f32::NEG_INFINITY);
        for (group, bits) in logits[..covered].chunks_mut(32).zip(mask) {
            if *bits == 0 {
                group.fill(f32::NEG_INFINITY);
            } else if *bits != u32::MAX {
                for (bit, logit) in group.iter_mut().enumerate() {
                    *logit = if bits >> bit & 1 == 0 { f32::NEG_INFINITY } else { *logit };
                }
            }
        }
        Ok(())
    }

    pub(super) fn accept(&mut self, token: Token, piece: &[u8]) -> Result<(), ConstraintError> {
        // Nothing follows an end.
        if self.ends.contains(&token) {
            return Ok(());
        }
        self.blanks.take(piece);
        let taken = self.matcher()?.consume_token(token.cast_unsigned());
        self.mask = None;
        taken.map_err(told)
    }

    pub(super) fn accept_late(
        &mut self,
        tokens: &[Token],
        text: &[u8],
    ) -> Result<bool, ConstraintError> {
        let tokens: Vec<u32> = tokens.iter().map(|token| token.cast_unsigned()).collect();
        let matcher = self.matcher()?;
        let fits = matcher.validate_tokens(&tokens).map_err(told)? == tokens.len();
        if fits {
            matcher.consume_tokens(&tokens).map_err(told)?;
            self.blanks.take(text);
            self.mask = None;
        }
        Ok(fits)
    }

    /// The token that ends the answer, if nothing else may come.
    pub(super) fn end(&mut self) -> Option<Token> {
        let matcher = self.matcher().ok()?;
        let is_over = matcher.is_stopped() && !matcher.is_error();
        is_over.then(|| self.ends[0])
    }

    /// How the text will go on: as the rule forces it, and with blanks as this answer had them where only they are open.
    pub(super) fn expect(&mut self) -> Result<Vec<u8>, ConstraintError> {
        self.matcher()?;
        let Self { matcher: Some(matcher), blanks, env, .. } = self else { return Err(gone()) };
        let mut walk = Walk { matcher, env, n_tokens: 0 };
        let mut text = Vec::new();
        let walked = loop {
            match walk.next(blanks, &text) {
                Ok(next) if !next.is_empty() && text.len() < MAX_EXPECTED => text.extend(next),
                Ok(_) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        let back = walk.matcher.rollback(walk.n_tokens).map_err(told);
        walked.and(back)?;
        Ok(text)
    }
}

/// A look ahead in the rule.
struct Walk<'a> {
    matcher: &'a mut Matcher,
    env: &'a TokEnv,
    /// Tokens ahead of the answer.
    n_tokens: usize,
}

impl Walk<'_> {
    /// What comes behind `text`, as far as the walk has come with it. Empty where that is open.
    fn next(&mut self, blanks: &Blanks, text: &[u8]) -> Result<Vec<u8>, ConstraintError> {
        let forced = self.matcher.compute_ff_bytes();
        if !forced.is_empty() {
            return self.take(forced);
        }
        let Some(only) = self.only()? else { return Ok(Vec::new()) };
        match blanks.before(only, text) {
            Some(blanks) => self.take([blanks, &[only]].concat()),
            None => Ok(Vec::new()),
        }
    }

    /// The byte that comes next if it is no blank.
    fn only(&mut self) -> Result<Option<u8>, ConstraintError> {
        let mut only = None;
        for byte in BEGINNINGS {
            let token = self.env.tok_trie().token_id_at_bytes(&[byte]);
            if self.matcher.validate_tokens(token.as_slice()).map_err(told)? == 1 {
                if only.is_some() {
                    return Ok(None);
                }
                only = Some(byte);
            }
        }
        Ok(only)
    }

    /// Goes on with this text, or stays where the rule forbids it.
    fn take(&mut self, text: Vec<u8>) -> Result<Vec<u8>, ConstraintError> {
        let tokens = self.env.tokenize_bytes(&text);
        let n_taken = self.matcher.try_consume_tokens(&tokens).map_err(told)?;
        if n_taken < tokens.len() {
            self.matcher.rollback(n_taken).map_err(told)?;
            return Ok(Vec::new());
        }
        self.n_tokens += n_taken;
        Ok(text)
    }
}

fn told(error: impl Display) -> ConstraintError {
    reason(&error.to_string())
}

fn gone() -> ConstraintError {
    ConstraintError("the thread that follows constraints is gone".into())
}
