//! One answer's place in a grammar of the plugin's.

use super::masks::{Followed, Mask, MaskThread, Place, apply};
use super::{ConstraintError, Triggers};
use hearth_abi::host::Grammar;
use hearth_abi::raw::Token;
use llguidance::toktrie::SimpleVob;

/// A grammar, and what its masks are made with.
struct Asked {
    grammar: Grammar,
    /// All tokens in order, once a mask was made.
    vocabulary: Vec<Token>,
    logits: Vec<f32>,
}

impl Place for Asked {
    fn mask(&mut self) -> Mask {
        let n_vocab = self.grammar.n_vocab() as usize;
        if self.vocabulary.len() != n_vocab {
            self.vocabulary = (0..).take(n_vocab).collect();
        }
        self.logits.clear();
        self.logits.resize(n_vocab, 0.0);
        self.grammar.mask(&self.vocabulary, &mut self.logits).map_err(from_plugin)?;
        let mut mask = SimpleVob::alloc(n_vocab);
        for (token, logit) in (0..).zip(&self.logits) {
            if *logit > f32::NEG_INFINITY {
                mask.allow_token(token);
            }
        }
        Ok(mask)
    }

    /// The plugin's grammars do not come back.
    fn go(&mut self, _: Token) -> bool {
        false
    }

    fn come_back(&mut self, _: usize) -> Result<(), ConstraintError> {
        Ok(())
    }
}

/// How far an answer has come in a grammar of the plugin's.
pub struct PluginGrammar {
    place: Followed<Asked>,
    /// While the grammar does not hold yet.
    triggers: Option<Triggers>,
}

impl std::fmt::Debug for PluginGrammar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PluginGrammar")
    }
}

impl PluginGrammar {
    pub(super) fn new(grammar: Grammar, triggers: Option<Triggers>) -> Self {
        let place = Asked { grammar, vocabulary: Vec::new(), logits: Vec::new() };
        Self { place: Followed::new(place), triggers }
    }

    pub(super) fn begin(&mut self, thread: &mut MaskThread, guess: &[Token]) {
        if self.triggers.is_none() {
            self.place.begin(thread, guess);
        }
    }

    pub(super) fn allows(&mut self, token: Token) -> Result<bool, ConstraintError> {
        if self.triggers.is_some() {
            return Ok(true);
        }
        if let Some(mask) = self.place.known()? {
            return Ok(mask.is_allowed(token.cast_unsigned()));
        }
        let mut asked = [0.0];
        self.place.place()?.grammar.mask(&[token], &mut asked).map_err(from_plugin)?;
        Ok(asked[0] > f32::NEG_INFINITY)
    }

    pub(super) fn has_mask(&mut self) -> Result<bool, ConstraintError> {
        self.place.known().map(|mask| mask.is_some())
    }

    pub(super) fn mask(&mut self, logits: &mut [f32]) -> Result<(), ConstraintError> {
        apply(self.place.mask()?, logits);
        Ok(())
    }

    pub(super) fn accept(&mut self, token: Token, piece: &[u8]) -> Result<(), ConstraintError> {
        if self.triggers.is_some() {
            return self.look_for_trigger(piece);
        }
        self.place.place()?.grammar.accept(token).map_err(from_plugin)?;
        self.place.took(token);
        Ok(())
    }

    pub(super) fn accept_late(&mut self, text: &[u8]) -> Result<bool, ConstraintError> {
        if self.triggers.is_some() {
            return self.look_for_trigger(text).map(|()| true);
        }
        let fits = self.place.place()?.grammar.accept_text(text).is_ok();
        if fits {
            self.place.forget();
        }
        Ok(fits)
    }

    fn look_for_trigger(&mut self, text: &[u8]) -> Result<(), ConstraintError> {
        let Some(triggers) = &mut self.triggers else { return Ok(()) };
        let grammar = &mut self.place.place()?.grammar;
        // What begins like a call and is none stays text.
        if triggers.take(text, |begun| grammar.accept_text(begun).is_ok()) {
            self.triggers = None;
        }
        Ok(())
    }
}

fn from_plugin(error: hearth_abi::PluginError) -> ConstraintError {
    ConstraintError(error.message)
}
