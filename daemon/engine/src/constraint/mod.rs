//! What an answer must look like: which tokens may come next.
//!
//! JSON schemas, regular expressions and Lark grammars are llguidance's (`guide.rs`); GBNF is the plugin's. The sampler
//! chooses freely, the choice is checked, and only if it is refused are the logits masked and the choice made again. So
//! a rule that cuts the distribution, such as top-k, sees forbidden tokens only where the first choice was allowed anyway.
//!
//! Masks are made beside the step that they are for (`masks.rs`).
//!
//! The plugin's may be lazy (`trigger.rs`): the answer is free until a trigger, such as the beginning of a tool call.

mod blanks;
mod guide;
mod guided;
mod limits;
mod masks;
mod plugin;
mod schema;
#[cfg(test)]
mod tests;
mod trigger;

pub use guide::{Guide, Rule};
pub use guided::Guided;
use hearth_abi::host::Grammar;
use hearth_abi::raw::Token;
pub use limits::check;
pub(crate) use masks::MaskThread;
pub use plugin::PluginGrammar;
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
    /// Has the masks for the next token, and behind guessed ones, made beside the step that computes their logits.
    pub(crate) fn begin(&mut self, thread: &mut MaskThread, guess: &[Token]) {
        match self {
            Self::Guided(guided) => guided.begin(thread, guess),
            Self::Plugin(plugin) => plugin.begin(thread, guess),
        }
    }

    /// This token may come next.
    pub(crate) fn allows(&mut self, token: Token) -> Result<bool, ConstraintError> {
        match self {
            Self::Guided(guided) => guided.allows(token),
            Self::Plugin(plugin) => plugin.allows(token),
        }
    }

    /// The mask for the next token is there.
    pub(crate) fn has_mask(&mut self) -> Result<bool, ConstraintError> {
        match self {
            Self::Guided(guided) => guided.has_mask(),
            Self::Plugin(plugin) => plugin.has_mask(),
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
            Self::Plugin(plugin) => plugin.accept_late(text),
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
            // What fails here fails again where it matters.
            Self::Guided(guided) => guided.expect().unwrap_or_default(),
            Self::Plugin(_) => Vec::new(),
        }
    }
}

impl Constraint {
    /// A grammar of the plugin's that holds from a trigger on; without triggers, from the start.
    pub fn of_plugin(grammar: Grammar, triggers: Option<Triggers>) -> Self {
        Self::Plugin(PluginGrammar::new(grammar, triggers))
    }
}
