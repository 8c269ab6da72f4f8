//! What an answer must look like: which tokens may come next.
//!
//! JSON schemas, regular expressions and Lark grammars are llguidance's (`guide.rs`); GBNF is the plugin's. The sampler
//! chooses freely, the choice is checked, and only if it is refused are the logits masked and the choice made again. So
//! a rule that cuts the distribution, such as top-k, sees forbidden tokens only where the first choice was allowed anyway.
//!
//! The plugin's may be lazy (`trigger.rs`): the answer is free until a trigger, such as the beginning of a tool call.

mod blanks;
mod guide;
mod guided;
mod limits;
mod schema;
#[cfg(test)]
mod tests;
mod trigger;

pub use guide::{Guide, Rule};
pub use guided::Guided;
use hearth_abi::host::Grammar;
use hearth_abi::raw::Token;
pub use limits::check;
pub use trigger::Triggers;

/// Why a rule is no constraint, or a constraint cannot be followed further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConstraintError(pub String);

/// A compiled rule and how far the answer has come in it.
#[derive(Debug)]
pub enum Constraint {
    /// llguidance's.
    Guided(Guided),
    /// The plugin's.
    Plugin(PluginGrammar),
}

impl Constraint {
    /// Has what takes long for the next token done beside the step that computes its logits.
    pub(crate) fn begin(&mut self) {
        if let Self::Guided(guided) = self {
            // What fails here fails again where it matters.
            let _ = guided.begin_mask();
        }
    }

    /// This token may come next.
    pub(crate) fn allows(&mut self, token: Token) -> Result<bool, ConstraintError> {
        match self {
            Self::Guided(guided) => guided.allows(token),
            Self::Plugin(plugin) => plugin.allows(token),
        }
    }

    /// Sets the logits of all others to minus infinity.
    pub(crate) fn mask(&mut self, logits: &mut [f32]) -> Result<(), ConstraintError> {
        match self {
            Self::Guided(guided) => guided.mask(logits),
            Self::Plugin(plugin) => plugin.mask(logits),
        }
    }

    /// Takes the token that was chosen, which must be allowed, and its text.
    pub(crate) fn accept(&mut self, token: Token, piece: &[u8]) -> Result<(), ConstraintError> {
        match self {
            Self::Guided(guided) => guided.accept(token, piece),
            Self::Plugin(plugin) => plugin.accept(token, piece),
        }
    }

    /// Takes tokens of this text that were chosen before it was known that they are the answer's. Answers false, and has
    /// taken nothing, if they do not fit.
    pub(crate) fn accept_late(
        &mut self,
        tokens: &[Token],
        text: &[u8],
    ) -> Result<bool, ConstraintError> {
        match self {
            Self::Guided(guided) => guided.accept_late(tokens, text),
            Self::Plugin(plugin) => Ok(plugin.accept_late(text)),
        }
    }

    /// The token that ends the answer, if nothing else may come.
    pub(crate) fn end(&mut self) -> Option<Token> {
        match self {
            Self::Guided(guided) => guided.end(),
            Self::Plugin(_) => None,
        }
    }

    /// How the text will go on, as far as the rule leaves little choice. Empty where that is not known.
    pub(crate) fn expect(&mut self) -> Vec<u8> {
        match self {
            // As above.
            Self::Guided(guided) => guided.expect().unwrap_or_default(),
            Self::Plugin(_) => Vec::new(),
        }
    }
}

impl Constraint {
    /// A grammar of the plugin's that holds from a trigger on; without triggers, from the start.
    pub fn of_plugin(grammar: Grammar, triggers: Option<Triggers>) -> Self {
        Self::Plugin(PluginGrammar { grammar, vocabulary: Vec::new(), triggers })
    }
}

/// A grammar of the plugin's.
#[derive(Debug)]
pub struct PluginGrammar {
    grammar: Grammar,
    /// All tokens in order, once a whole vocabulary had to be masked.
    vocabulary: Vec<Token>,
    /// While the grammar does not hold yet.
    triggers: Option<Triggers>,
}

impl PluginGrammar {
    fn allows(&mut self, token: Token) -> Result<bool, ConstraintError> {
        if self.triggers.is_some() {
            return Ok(true);
        }
        let mut asked = [0.0];
        self.grammar.mask(&[token], &mut asked).map_err(from_plugin)?;
        Ok(asked[0] > f32::NEG_INFINITY)
    }

    fn mask(&mut self, logits: &mut [f32]) -> Result<(), ConstraintError> {
        if self.vocabulary.len() != logits.len() {
            self.vocabulary = (0..).take(logits.len()).collect();
        }
        self.grammar.mask(&self.vocabulary, logits).map_err(from_plugin)
    }

    fn accept(&mut self, token: Token, piece: &[u8]) -> Result<(), ConstraintError> {
        if self.triggers.is_some() {
            self.look_for_trigger(piece);
            return Ok(());
        }
        self.grammar.accept(token).map_err(from_plugin)
    }

    fn accept_late(&mut self, text: &[u8]) -> bool {
        if self.triggers.is_some() {
            self.look_for_trigger(text);
            return true;
        }
        self.grammar.accept_text(text).is_ok()
    }

    fn look_for_trigger(&mut self, text: &[u8]) {
        let Some(triggers) = &mut self.triggers else { return };
        // What begins like a call and is none stays text.
        if triggers.take(text, |begun| self.grammar.accept_text(begun).is_ok()) {
            self.triggers = None;
        }
    }
}

fn from_plugin(error: hearth_abi::PluginError) -> ConstraintError {
    ConstraintError(error.message)
}
