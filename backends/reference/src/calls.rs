//! What calls of tools look like, as GBNF: their arguments as the tools' schemas say.
//!
//! Of schemas it knows types, properties, items, values and small ranges. Anything else allows any value, and so may allow more.

use serde_json::{Map, Value};
use std::fmt::Write;

/// Integers in a range of more than this are any.
const MOST_VALUES: i64 = 100;

/// Calls of these tools, one or several.
pub(crate) fn grammar(tools: &[Value], parallel: bool) -> String {
    let mut rules = Rules { text: ANY.into(), n: 0 };
    let calls: Vec<String> = tools
        .iter()
        .map(|tool| {
            let function = &tool["function"];
            let name = literal(&format!(r#"<tool>{{"name": {}, "arguments": "#, function["name"]));
            let arguments = match &function["parameters"]["properties"] {
                Value::Object(properties) => rules.object(properties, &function["parameters"]),
                _ => "object".into(),
            };
            format!("{name} {arguments} \"}}</tool>\"")
        })
        .collect();
    let call = rules.add(&calls.join(" | "));
    format!("root ::= {call}{}\n{}", if parallel { "+" } else { "" }, rules.text)
}

/// Values without a schema.
const ANY: &str = r#"object ::= "{" (pair (", " pair){0,3})? "}"
pair ::= string ": " value
value ::= string | number | object
string ::= "\"" [A-Za-z ]{0,16} "\""
number ::= "-"? integer ("." [0-9]{1,3})?
integer ::= "0" | [1-9] [0-9]{0,5}
"#;

struct Rules {
    text: String,
    n: usize,
}

impl Rules {
    /// Gives a rule a name.
    fn add(&mut self, body: &str) -> String {
        let name = format!("r{}", self.n);
        self.n += 1;
        let _ = writeln!(self.text, "{name} ::= {body}");
        name
    }

    fn value(&mut self, schema: &Value) -> String {
        if let Some(values) = schema["enum"].as_array() {
            return self.one_of(values.iter().map(Value::to_string));
        }
        if let Some(value) = schema.get("const") {
            return literal(&value.to_string());
        }
        match schema["type"].as_str() {
            Some("string") => {
                let length = |key: &str| schema[key].as_u64();
                let most = length("maxLength").unwrap_or(16);
                let least = length("minLength").unwrap_or(0);
                format!(r#""\"" [A-Za-z ]{{{least},{}}} "\"""#, most.min(least.max(16)))
            }
            Some("integer") => match (schema["minimum"].as_i64(), schema["maximum"].as_i64()) {
                (Some(least), Some(most)) if most.saturating_sub(least) < MOST_VALUES => {
                    self.one_of((least..=most).map(|number| number.to_string()))
                }
                _ => "integer".into(),
            },
            Some("number") => "number".into(),
            Some("boolean") => r#"("true" | "false")"#.into(),
            Some("null") => literal("null"),
            Some("array") => {
                let item = self.value(&schema["items"]);
                self.add(&format!(r#""[" ({item} (", " {item}){{0,3}})? "]""#))
            }
            Some("object") => match &schema["properties"] {
                Value::Object(properties) => self.object(properties, schema),
                _ => "object".into(),
            },
            _ => "value".into(),
        }
    }

    fn one_of(&mut self, values: impl Iterator<Item = String>) -> String {
        let values: Vec<String> = values.map(|value| literal(&value)).collect();
        self.add(&values.join(" | "))
    }

    /// Properties in their order, of which only the required ones have to be there.
    fn object(&mut self, properties: &Map<String, Value>, schema: &Value) -> String {
        let is_required = |name: &String| {
            schema["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name))
        };
        // What may follow when some came already, and when none did.
        let (mut behind, mut first) = (r#""}""#.to_string(), r#""}""#.to_string());
        for (name, schema) in properties.iter().rev() {
            let key = literal(&format!("{}: ", Value::from(name.as_str())));
            let value = self.value(schema);
            let pair = self.add(&format!("{key} {value} {behind}"));
            let skip = |rest: &str| match is_required(name) {
                true => String::new(),
                false => format!(" | {rest}"),
            };
            let next_first = format!("{pair}{}", skip(&first));
            let next_behind = format!("\", \" {pair}{}", skip(&behind));
            first = self.add(&next_first);
            behind = self.add(&next_behind);
        }
        self.add(&format!("\"{{\" {first}"))
    }
}

fn literal(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::ByteGrammar;
    use hearth_abi::author::Grammar;
    use serde_json::json;

    fn allows(parameters: &Value, arguments: &str) -> bool {
        let tool = json!({ "function": { "name": "f", "parameters": parameters } });
        let mut grammar = ByteGrammar::new(&grammar(&[tool], false), "root").unwrap();
        let call = format!(r#"<tool>{{"name": "f", "arguments": {arguments}}}</tool>"#);
        grammar.accept_text(call.as_bytes()).is_ok()
    }

    #[test]
    fn arguments_fit_their_schema() {
        let schema = json!({
            "properties": {
                "a": { "type": "integer", "minimum": 1, "maximum": 7 },
                "b": { "enum": ["x", "\"y\""] },
                "c": { "type": "array", "items": { "type": "boolean" } },
                "d": { "type": "object", "properties": { "e": { "type": "null" } }, "required": ["e"] },
            },
            "required": ["b"],
        });
        for arguments in [
            r#"{"b": "x"}"#,
            r#"{"a": 7, "b": "\"y\""}"#,
            r#"{"b": "x", "c": [], "d": {"e": null}}"#,
            r#"{"a": 1, "b": "x", "c": [true, false]}"#,
        ] {
            assert!(allows(&schema, arguments), "{arguments}");
        }
        for arguments in [
            "{}",
            r#"{"a": 1}"#,
            r#"{"a": 8, "b": "x"}"#,
            r#"{"b": "z"}"#,
            r#"{"b": "x", "a": 1}"#,
            r#"{"b": "x", "d": {}}"#,
            r#"{"b": "x",}"#,
        ] {
            assert!(!allows(&schema, arguments), "{arguments}");
        }
    }

    #[test]
    fn any_arguments_are_json() {
        for arguments in ["{}", r#"{"a": -0.5, "b": {"c": 120}}"#] {
            assert!(allows(&Value::Null, arguments), "{arguments}");
        }
        for arguments in [r#"{"a": 04636}"#, r#"{"a": 00}"#, r#"{"a": .5}"#, "7"] {
            assert!(!allows(&Value::Null, arguments), "{arguments}");
        }
    }
}
