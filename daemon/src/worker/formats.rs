//! From a request's `format` to a constraint.

use super::prepare::refused;
use hearth_abi::host::{Grammar, Model};
use hearth_engine::{Constraint, Guide, Rule};
use hearth_protocol::{ErrorKind, Format, RpcError};
use std::sync::Arc;

/// What rules are compiled with, for one model.
pub(super) struct Formats<'a> {
    model: &'a Arc<Model>,
    /// Made when the first rule comes: it reads the whole vocabulary.
    guide: Option<Guide>,
}

impl<'a> Formats<'a> {
    pub(super) fn new(model: &'a Arc<Model>) -> Self {
        Self { model, guide: None }
    }

    pub(super) fn constraint(&mut self, format: &Format) -> Result<Constraint, RpcError> {
        let (name, rule) = match format {
            Format::Json => ("json", Rule::Json),
            Format::JsonSchema(schema) => ("json_schema", Rule::JsonSchema(schema)),
            Format::Regex(regex) => ("regex", Rule::Regex(regex)),
            Format::Lark(grammar) => ("lark", Rule::Lark(grammar)),
            Format::Gbnf(grammar) => return Ok(self.grammar(grammar)?.into()),
        };
        let guide = match &mut self.guide {
            Some(guide) => guide,
            none => none.insert(Guide::new(self.model).map_err(refused)?),
        };
        guide.compile(rule).map_err(|error| {
            RpcError::new(ErrorKind::InvalidParams, format!("`{name}` cannot be held to: {error}"))
                .with_hint("change or leave out the part it names")
        })
    }

    /// GBNF is the plugin's to read.
    pub(super) fn grammar(&self, gbnf: &str) -> Result<Grammar, RpcError> {
        self.model.grammar(gbnf, "root").map_err(refused)
    }
}
