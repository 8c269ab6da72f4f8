//! A model's vocabulary as llguidance reads it.
//!
//! Made once per model, when the first rule comes: that takes tenths of a second with a large vocabulary.

use super::guided::Guided;
use super::limits;
use super::schema::narrowed;
use super::{Constraint, ConstraintError};
use hearth_abi::PluginError;
use hearth_abi::host::Model;
use hearth_abi::raw::Token;
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};
use std::sync::Arc;

/// What an answer must look like.
#[derive(Clone, Copy)]
pub enum Rule<'a> {
    /// A JSON object.
    Json,
    /// JSON that fits this schema.
    JsonSchema(&'a Value),
    /// Text that fits this regular expression as a whole.
    Regex(&'a str),
    /// Text that fits this Lark grammar.
    Lark(&'a str),
}

/// Rules are parts of people's requests.
impl std::fmt::Debug for Rule<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Json => "Json",
            Self::JsonSchema(_) => "JsonSchema",
            Self::Regex(_) => "Regex",
            Self::Lark(_) => "Lark",
        })
    }
}

/// Makes constraints for one model.
pub struct Guide {
    factory: ParserFactory,
    ends: Arc<[Token]>,
}

impl std::fmt::Debug for Guide {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Guide({} tokens)", self.factory.tok_env().tok_trie().vocab_size())
    }
}

impl Guide {
    /// Reads a model's vocabulary.
    pub fn new(model: &Model) -> Result<Self, PluginError> {
        let n_vocab = model.info().n_vocab;
        let tokens = 0..Token::try_from(n_vocab).unwrap_or(Token::MAX);
        let words =
            tokens.clone().map(|token| word(model, token)).collect::<Result<Vec<_>, _>>()?;
        let ends: Vec<Token> = tokens.filter(|token| model.token_is_end(*token)).collect();
        Self::of(&words, &ends).map_err(|error| {
            let message = format!("this vocabulary cannot be constrained: {error}");
            PluginError::new(hearth_abi::Status::Unsupported, message)
        })
    }

    pub(super) fn of(words: &[Vec<u8>], ends: &[Token]) -> Result<Self, ConstraintError> {
        let wrong = |error: &dyn std::fmt::Display| ConstraintError(error.to_string());
        let n_vocab = u32::try_from(words.len()).map_err(|error| wrong(&error))?;
        let end_tokens: Vec<u32> = ends.iter().map(|token| token.cast_unsigned()).collect();
        let Some(first_end) = end_tokens.first() else {
            return Err(ConstraintError("no token ends a text".into()));
        };
        let trie = TokTrie::from(&TokRxInfo::new(n_vocab, *first_end), words);
        let trie = trie.with_eos_tokens(&end_tokens);
        // Texts are not tokenized here, so it does not matter that this would be done greedily.
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let slices = llguidance::earley::SlicedBiasComputer::general_slices();
        let mut factory = ParserFactory::new(&env, InferenceCapabilities::default(), &slices)
            .map_err(|error| wrong(&error))?;
        factory.quiet();
        limits::set(factory.limits_mut());
        Ok(Self { factory, ends: ends.into() })
    }

    /// Makes a constraint of a rule, with the reason if it is none.
    pub fn compile(&self, rule: Rule<'_>) -> Result<Constraint, ConstraintError> {
        limits::check(rule)?;
        let grammar = match rule {
            Rule::Json => TopLevelGrammar::from_json_schema(narrowed(&json!({ "type": "object" }))),
            Rule::JsonSchema(schema) => TopLevelGrammar::from_json_schema(narrowed(schema)),
            Rule::Regex(regex) => TopLevelGrammar::from_regex(regex),
            Rule::Lark(lark) => TopLevelGrammar::from_lark(lark.to_owned()),
        };
        let matcher = limits::on_a_deep_stack(|| {
            let parser = self.factory.create_parser(grammar);
            let mut matcher = Matcher::new(parser);
            match matcher.get_error() {
                Some(error) => Err(limits::reason(&error)),
                None => Ok((matcher.compute_mask_or_eos(), matcher)),
            }
        })?;
        let (mask, matcher) = matcher?;
        let mask = mask.map_err(|error| limits::reason(&error.to_string()))?;
        Ok(Constraint::Guided(Guided::new(matcher, mask, self.factory.tok_env(), &self.ends)))
    }
}

/// Control tokens begin with a byte that no text has, so that only rules which name them allow them.
fn word(model: &Model, token: Token) -> Result<Vec<u8>, PluginError> {
    let mut word = model.token_piece(token, false)?.into_vec();
    if word.is_empty() {
        let spelled = model.token_piece(token, true)?;
        if !spelled.is_empty() {
            word.push(TokTrie::SPECIAL_TOKEN_MARKER);
            word.extend(spelled);
        }
    }
    // A token that is longer than llguidance takes is never allowed.
    Ok(if word.len() > limits::LONGEST_TOKEN { Vec::new() } else { word })
}
