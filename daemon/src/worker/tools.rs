//! From a request's tools to what the template is told, and to the constraint that its answer's calls are held to.

use super::prepare::refused;
use hearth_abi::host::Model;
use hearth_engine::{Constraint, Rule, Triggers};
use hearth_protocol::{ChatParams, ErrorKind, RpcError, Tool, ToolChoice};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Where a lazy grammar begins.
#[derive(Deserialize)]
#[serde(tag = "type", content = "value", rename_all = "snake_case")]
enum Trigger {
    Word(String),
    Pattern(String),
}

/// The tools that an answer may call.
#[derive(Default)]
pub(super) struct Offer<'a> {
    pub(super) tools: Vec<&'a Tool>,
    pub(super) must_call: bool,
    parallel: Option<bool>,
}

impl<'a> Offer<'a> {
    pub(super) fn new(params: &'a ChatParams) -> Result<Self, RpcError> {
        let is_offered = |tool: &&Tool| match &params.tool_choice {
            ToolChoice::None => false,
            ToolChoice::Tool(name) => tool.name == *name,
            ToolChoice::Auto | ToolChoice::Required => true,
        };
        let tools: Vec<&Tool> = params.tools.iter().filter(is_offered).collect();
        let must_call = matches!(params.tool_choice, ToolChoice::Required | ToolChoice::Tool(_));
        match &params.tool_choice {
            ToolChoice::Tool(name) if tools.is_empty() => {
                return Err(no_tool(format!("there is no tool `{name}` to call")));
            }
            ToolChoice::Required if tools.is_empty() => {
                return Err(no_tool("there is no tool to call".into()));
            }
            _ => {}
        }
        for tool in &tools {
            hearth_engine::check(Rule::JsonSchema(&tool.parameters)).map_err(|error| {
                let name = &tool.name;
                let message =
                    format!("the parameters of the tool `{name}` cannot be held to: {error}");
                RpcError::new(ErrorKind::InvalidParams, message).with_hint("simplify that schema")
            })?;
        }
        Ok(Self { tools, must_call, parallel: params.parallel_tool_calls })
    }

    /// Only a grammar makes a model call as is asked.
    pub(super) fn needs_grammar(&self) -> bool {
        self.must_call || self.parallel == Some(false)
    }

    /// Adds the tools to a request in the shape of OpenAI's chat completions.
    pub(super) fn describe(&self, request: &mut Map<String, Value>) {
        if self.tools.is_empty() {
            return;
        }
        request.insert("tools".into(), self.tools.iter().copied().map(described).collect());
        let choice = if self.must_call { "required" } else { "auto" };
        request.insert("tool_choice".into(), choice.into());
        if let Some(parallel) = self.parallel {
            request.insert("parallel_tool_calls".into(), parallel.into());
        }
    }
}

fn no_tool(message: String) -> RpcError {
    RpcError::new(ErrorKind::InvalidParams, message)
        .with_hint("`tools` has to hold what `tool_choice` asks for")
}

fn described(tool: &Tool) -> Value {
    let parameters = if tool.parameters.is_null() { json!({}) } else { tool.parameters.clone() };
    json!({
        "type": "function",
        "function": { "name": tool.name, "description": tool.description, "parameters": parameters },
    })
}

/// What the plugin says that calls look like. Without a grammar nothing holds them to it.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Calls {
    grammar: String,
    grammar_prefix: String,
    /// The grammar is of the reasoning too.
    pub(super) grammar_thinks: bool,
    grammar_lazy: bool,
    triggers: Vec<Trigger>,
}

impl Calls {
    pub(super) fn constraint(&self, model: &Arc<Model>) -> Result<Option<Constraint>, RpcError> {
        if self.grammar.is_empty() {
            return Ok(None);
        }
        let mut grammar = model.grammar(&self.grammar, "root").map_err(refused)?;
        grammar.accept_text(self.grammar_prefix.as_bytes()).map_err(refused)?;
        if !self.grammar_lazy {
            return Ok(Some(Constraint::of_plugin(grammar, None)));
        }
        let (mut words, mut patterns) = (Vec::new(), Vec::new());
        for trigger in &self.triggers {
            match trigger {
                Trigger::Word(word) => words.push(word.clone()),
                Trigger::Pattern(pattern) => patterns.push(pattern.clone()),
            }
        }
        let triggers = Triggers::new(&words, &patterns).map_err(|error| {
            RpcError::new(
                ErrorKind::Internal,
                format!("the backend's triggers cannot be read: {error}"),
            )
        })?;
        Ok(Some(Constraint::of_plugin(grammar, Some(triggers))))
    }
}
