//! `hearth.chat/1`: one fixed template.
//!
//! A message is its role's control token, its text and END. Reasoning stands between `<think>` and `</think>`, a call
//! between `<tool>` and `</tool>` as `{"name": ..., "arguments": {...}}`.

/// What model files carry as their template.
pub(crate) const TEMPLATE: &str =
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}<|assistant|>";

use crate::calls::grammar;
use crate::model::{ReferenceModel, error};
use hearth_abi::author::ChatModel;
use hearth_abi::{PluginError, Result, Status};
use serde_json::{Map, Value, json};

impl ChatModel for ReferenceModel {
    fn render(&self, request: &str) -> Result<String> {
        let request: Value = serde_json::from_str(request)
            .map_err(|why| refuse(format!("the request is not JSON: {why}")))?;
        if request.get("json_schema").is_some_and(|schema| !schema.is_null()) {
            return Err(error(
                Status::Unsupported,
                "this template cannot hold answers to a schema",
            ));
        }
        let messages =
            request["messages"].as_array().ok_or_else(|| refuse("`messages` is not an array"))?;
        let mut prompt = String::new();
        let calls_allowed = request["tool_choice"] != "none";
        let tools = request["tools"].as_array().filter(|tools| !tools.is_empty() && calls_allowed);
        if let Some(tools) = tools {
            let tools = Value::Array(tools.clone());
            prompt += &format!(
                "<|system|>You may call <tool>{{\"name\", \"arguments\"}}</tool> with {tools}<|end|>"
            );
        }
        for message in messages {
            prompt += &render_message(message)?;
        }
        prompt += "<|assistant|>";
        let thinks = request["thinking"] != false;
        let grammar = tools.map(|tools| grammar(tools, request["parallel_tool_calls"] == true));
        let parser = json!({ "tools": tools.is_some(), "thinks": thinks }).to_string();
        Ok(json!({
            "prompt": prompt,
            "stops": [],
            "plain": tools.is_none() && !thinks,
            "parser": parser,
            "grammar": grammar.unwrap_or_default(),
            "grammar_prefix": "",
            "grammar_thinks": false,
            "grammar_lazy": tools.is_some() && request["tool_choice"] != "required",
            "triggers": [{ "type": "word", "value": "<tool>" }],
            "preserved": [],
            "thinks": thinks,
            "think_start": "<think>",
            "think_ends": ["</think>"],
        })
        .to_string())
    }

    fn parse(&self, parser: &str, text: &str, partial: bool) -> Result<String> {
        let parser: Value = serde_json::from_str(parser)
            .map_err(|_| refuse("the parser is none that this plugin made"))?;
        let (reasoning, rest) =
            if parser["thinks"] == true { split_reasoning(text, partial) } else { ("", text) };
        let mut content = String::new();
        let mut calls = Vec::new();
        let mut rest = rest;
        while let Some((before, opened)) =
            rest.split_once("<tool>").filter(|_| parser["tools"] == true)
        {
            content += before;
            match opened.split_once("</tool>") {
                Some((body, after)) => {
                    match read_call(body).filter(|call| call.2) {
                        Some((name, arguments, _)) => calls.push(call(name, arguments)),
                        None => content += &format!("<tool>{body}</tool>"),
                    }
                    rest = after;
                }
                // Still being written: it becomes a call or content once it is complete.
                None if partial => {
                    calls.extend(
                        read_call(opened).map(|(name, arguments, _)| call(name, arguments)),
                    );
                    return message(reasoning, &content, &calls);
                }
                None => {
                    content += "<tool>";
                    rest = opened;
                }
            }
        }
        content +=
            if partial && parser["tools"] == true { without_begun(rest, "<tool>") } else { rest };
        message(reasoning, &content, &calls)
    }
}

fn refuse(message: impl Into<String>) -> PluginError {
    error(Status::InvalidArgument, message)
}

fn message(reasoning: &str, content: &str, calls: &[Value]) -> Result<String> {
    Ok(json!({ "content": content, "reasoning": reasoning, "tool_calls": calls }).to_string())
}

fn render_message(message: &Value) -> Result<String> {
    let role = message["role"].as_str().unwrap_or_default();
    if !["system", "user", "assistant", "tool"].contains(&role) {
        return Err(refuse(format!(
            "role `{role}` is not one of system, user, assistant and tool"
        )));
    }
    let mut text = format!("<|{role}|>");
    if let Some(reasoning) =
        message["reasoning_content"].as_str().filter(|reasoning| !reasoning.is_empty())
    {
        text += &format!("<think>{reasoning}</think>");
    }
    match &message["content"] {
        Value::String(content) => text += content,
        Value::Null => {}
        Value::Array(parts) => {
            for part in parts {
                text += part["text"]
                    .as_str()
                    .ok_or_else(|| refuse("a part of a message is not text"))?;
            }
        }
        _ => return Err(refuse("the `content` of a message is not text")),
    }
    for call in message["tool_calls"].as_array().into_iter().flatten() {
        let function = &call["function"];
        let arguments = function["arguments"].as_str().unwrap_or("{}");
        text +=
            &format!("<tool>{{\"name\": {}, \"arguments\": {arguments}}}</tool>", function["name"]);
    }
    Ok(text + "<|end|>")
}

/// Reasoning that was begun and not ended is all reasoning: it may be cut off by a limit.
fn split_reasoning(text: &str, partial: bool) -> (&str, &str) {
    match text.trim_start().strip_prefix("<think>") {
        Some(opened) => match opened.split_once("</think>") {
            Some((reasoning, rest)) => (reasoning, rest),
            None if partial => (without_begun(opened, "</think>"), ""),
            None => (opened, ""),
        },
        None if partial && "<think>".starts_with(text.trim_start()) => ("", ""),
        None => ("", text),
    }
}

/// The text without an end that may become `tag`.
fn without_begun<'a>(text: &'a str, tag: &str) -> &'a str {
    let begun = (1..tag.len()).rev().find(|n| text.ends_with(&tag[..*n])).unwrap_or(0);
    &text[..text.len() - begun]
}

fn call(name: &str, arguments: &str) -> Value {
    json!({ "id": "", "name": name, "arguments": arguments })
}

/// The name, the arguments as far as they go, and whether the call is whole.
fn read_call(body: &str) -> Option<(&str, &str, bool)> {
    let (name, rest) = body.strip_prefix("{\"name\": \"")?.split_once("\", \"arguments\": ")?;
    let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Map<String, Value>>();
    Some(match values.next() {
        Some(Ok(_)) => {
            let (arguments, end) = rest.split_at(values.byte_offset());
            (name, arguments, end.trim() == "}")
        }
        _ => (name, rest, false),
    })
}
