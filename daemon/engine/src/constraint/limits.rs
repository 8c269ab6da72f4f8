//! Rules come from anybody: what keeps a hostile one from stalling, filling or crashing the worker.
//!
//! llguidance bounds its own work and memory by counts, and catches its panics. A stack overflow it cannot catch, so
//! deeply nested rules are refused before it sees them, and it runs on a stack of its own.

use super::{ConstraintError, Rule};
use llguidance::api::ParserLimits;
use serde_json::Value;
use std::thread;

/// Brackets inside brackets, in schemas, regular expressions and grammars.
const DEEPEST: usize = 128;
/// In bytes, of a text; in values and keys, of a schema.
const LARGEST: usize = 1 << 20;
/// Only what is used of it takes memory.
const STACK: usize = 256 << 20;
/// The trie of tokens takes no deeper ones.
pub(super) const LONGEST_TOKEN: usize = 1000;

pub(super) fn set(limits: &mut ParserLimits) {
    // Their messages would carry the answer's text.
    limits.verbose_errors = false;
    // One to two KB each.
    limits.max_lexer_states = 50_000;
}

/// Refuses what nests too deep or is too large to be compiled.
pub fn check(rule: Rule<'_>) -> Result<(), ConstraintError> {
    let (deepest, size) = match rule {
        Rule::Json => return Ok(()),
        Rule::Regex(text) | Rule::Lark(text) => (nesting(text), text.len()),
        Rule::JsonSchema(schema) => measure(schema),
    };
    if deepest > DEEPEST {
        return Err(ConstraintError(format!("it nests deeper than {DEEPEST} levels")));
    }
    if size > LARGEST {
        return Err(ConstraintError(format!("it is larger than {LARGEST} bytes")));
    }
    Ok(())
}

/// The deepest nesting and about the number of bytes, without recursion.
fn measure(schema: &Value) -> (usize, usize) {
    let (mut deepest, mut size) = (0, 0);
    let mut open = vec![(schema, 1)];
    while let Some((value, depth)) = open.pop() {
        size += 1;
        deepest = deepest.max(depth);
        if deepest > DEEPEST {
            break;
        }
        match value {
            // It may be a pattern.
            Value::String(text) => {
                size += text.len();
                deepest = deepest.max(nesting(text));
            }
            Value::Array(values) => open.extend(values.iter().map(|value| (value, depth + 1))),
            Value::Object(fields) => {
                size += fields.keys().map(String::len).sum::<usize>();
                open.extend(fields.values().map(|value| (value, depth + 1)));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    (deepest, size)
}

fn nesting(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

pub(super) fn on_a_deep_stack<T: Send>(
    body: impl FnOnce() -> T + Send,
) -> Result<T, ConstraintError> {
    thread::scope(|scope| {
        thread::Builder::new()
            .name("compile".into())
            .stack_size(STACK)
            .spawn_scoped(scope, body)
            .map_err(|error| ConstraintError(error.to_string()))?
            .join()
            .map_err(|_| ConstraintError("it cannot be compiled".into()))
    })
}

/// llguidance's words, without what is for its developers.
pub(super) fn reason(error: &str) -> ConstraintError {
    const LONGEST: usize = 400;
    let text = error.split("\n<").next().unwrap_or_default().trim();
    if text.contains("NoExtension") {
        return ConstraintError("no token can follow".into());
    }
    if text.is_empty() || text.starts_with("panic:") {
        return ConstraintError("it cannot be compiled".into());
    }
    let end = text.char_indices().nth(LONGEST).map_or(text.len(), |(at, _)| at);
    ConstraintError(text[..end].to_owned())
}
