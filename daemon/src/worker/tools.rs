//! From a request's tools to what the template is told, and to the constraint that its answer's calls are held to.

use super::chat::Rendered;
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
pub(super) enum Trigger {
    Word(String),
    Pattern(String),
}

pub(super) fn must_call(params: &ChatParams) -> bool {
    matches!(params.tool_choice, ToolChoice::Required | ToolChoice::Tool(_))
}

/// Adds the tools to a request in the shape of OpenAI's chat completions.
pub(super) fn offer(params: &ChatParams, request: &mut Map<String, Value>) -> Result<(), RpcError> {
    let is_offered = |tool: &&Tool| match &params.tool_choice {
        ToolChoice::None => false,
        ToolChoice::Tool(name) => tool.name == *name,
        ToolChoice::Auto | ToolChoice::Required => true,
    };
    let tools: Vec<&Tool> = params.tools.iter().filter(is_offered).collect();
    if tools.is_empty() {
        return match &params.tool_choice {
            ToolChoice::Tool(name) => Err(no_tool(format!("there is no tool `{name}` to call"))),
            ToolChoice::Required => Err(no_tool("there is no tool to call".into())),
            ToolChoice::Auto | ToolChoice::None => Ok(()),
        };
    }
    for tool in &tools {
        hearth_engine::check(Rule::JsonSchema(&tool.parameters)).map_err(|error| {
            let name = &tool.name;
            let message = format!("the parameters of the tool `{name}` cannot be held to: {error}");
            RpcError::new(ErrorKind::InvalidParams, message).with_hint("simplify that schema")
        })?;
    }
    request.insert("tools".into(), tools.into_iter().map(described).collect());
    let choice = if must_call(params) { "required" } else { "auto" };
    request.insert("tool_choice".into(), choice.into());
    if let Some(parallel) = params.parallel_tool_calls {
        request.insert("parallel_tool_calls".into(), parallel.into());
    }
    Ok(())
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

/// What the template says that calls look like.
pub(super) fn constraint(
    model: &Arc<Model>,
    rendered: &Rendered,
) -> Result<Option<Constraint>, RpcError> {
    if rendered.grammar.is_empty() {
        return Ok(None);
    }
    let mut grammar = model.grammar(&rendered.grammar, "root").map_err(refused)?;
    grammar.accept_text(rendered.grammar_prefix.as_bytes()).map_err(refused)?;
    if !rendered.grammar_lazy {
        return Ok(Some(Constraint::of_plugin(grammar, None)));
    }
    let (mut words, mut patterns) = (Vec::new(), Vec::new());
    for trigger in &rendered.triggers {
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
