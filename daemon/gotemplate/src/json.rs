//! Go's `encoding/json`, writing.

use crate::float;
use crate::value::Value;
use std::fmt::Write;

/// A value as Go's `json.Marshal` writes it: keys of maps in order, `<`, `>` and `&` escaped.
pub fn to_json(value: &Value) -> String {
    let mut json = String::new();
    write_value(&mut json, value);
    json
}

fn write_value(json: &mut String, value: &Value) {
    match value {
        Value::Absent | Value::Nil => json.push_str("null"),
        Value::Bool(truth) => json.push_str(if *truth { "true" } else { "false" }),
        Value::Int(number) => json.push_str(&number.to_string()),
        Value::Float(number) => json.push_str(&number_text(*number)),
        Value::Text(text) => write_text(json, text),
        Value::List(list) => {
            json.push('[');
            for (idx, item) in list.items().iter().enumerate() {
                if idx > 0 {
                    json.push(',');
                }
                write_value(json, item);
            }
            json.push(']');
        }
        Value::Map(map) => {
            write_pairs(json, map.iter().map(|(key, value)| (&**key, value)));
        }
        Value::Struct(fields) => {
            let kept =
                fields.fields.iter().filter(|field| !field.omit_empty || !is_empty(&field.value));
            write_pairs(json, kept.map(|field| (&*field.json, &field.value)));
        }
        Value::Typed(typed) => match typed.methods.json {
            Some(marshal) => json.push_str(&marshal(&typed.value)),
            None => write_value(json, &typed.value),
        },
    }
}

fn write_pairs<'a>(json: &mut String, pairs: impl Iterator<Item = (&'a str, &'a Value)>) {
    json.push('{');
    for (idx, (key, value)) in pairs.enumerate() {
        if idx > 0 {
            json.push(',');
        }
        write_text(json, key);
        json.push(':');
        write_value(json, value);
    }
    json.push('}');
}

/// What `omitempty` leaves out.
fn is_empty(value: &Value) -> bool {
    match value.plain() {
        Value::Struct(_) => false,
        value => !value.is_true(),
    }
}

/// Exponents only for what is very large or very small. JSON has no infinity, and Go refuses it: `null`.
fn number_text(number: f64) -> String {
    if !number.is_finite() {
        return "null".into();
    }
    let magnitude = number.abs();
    if magnitude == 0.0 || (1e-6..1e21).contains(&magnitude) {
        return float::format(number, 'f', None);
    }
    let text = float::format(number, 'e', None);
    text.replace("e-0", "e-")
}

fn write_text(json: &mut String, text: &str) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            '\u{8}' => json.push_str("\\b"),
            '\u{c}' => json.push_str("\\f"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            '\0'..'\u{20}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(json, "\\u{:04x}", u32::from(c));
            }
            c => json.push(c),
        }
    }
    json.push('"');
}
