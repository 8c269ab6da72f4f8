//! Documents made from the method table: OpenRPC for programs, Markdown for people.

use crate::{ErrorKind, MethodInfo, Who, methods};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;

/// The OpenRPC document that `rpc.discover` answers.
pub fn openrpc() -> Value {
    let mut generator = generator();
    let methods: Vec<Value> =
        methods().iter().map(|method| openrpc_method(method, &mut generator)).collect();
    json!({
        "openrpc": "1.3.2",
        "info": { "title": "Hearth", "version": env!("CARGO_PKG_VERSION") },
        "methods": methods,
        "components": { "schemas": generator.take_definitions(true) },
    })
}

fn generator() -> SchemaGenerator {
    SchemaSettings::draft07()
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator()
}

fn openrpc_method(method: &MethodInfo, generator: &mut SchemaGenerator) -> Value {
    let params = (method.params)(generator);
    let params = resolve(&params, generator);
    let required: Vec<&str> =
        params["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let descriptors: Vec<Value> = params["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, schema)| json!({ "name": name, "required": required.contains(&name.as_str()), "schema": schema }))
        .collect();
    let mut document = Map::new();
    document.insert("name".into(), method.name.into());
    document.insert("summary".into(), method.summary.into());
    document.insert("paramStructure".into(), "by-name".into());
    document.insert("params".into(), descriptors.into());
    document
        .insert("result".into(), json!({ "name": "result", "schema": (method.reply)(generator) }));
    document.insert("x-who".into(), who(method.who).into());
    if let Some(event) = method.event {
        document.insert(
            "x-stream".into(),
            json!({
                "subscribe": format!("{}.stream", method.name),
                "notification": format!("{}.event", method.name),
                "unsubscribe": format!("{}.unsubscribe", method.name),
                "event": event(generator),
            }),
        );
    }
    Value::Object(document)
}

/// The schema itself where `schema` is a reference to it.
fn resolve(schema: &schemars::Schema, generator: &SchemaGenerator) -> Value {
    let value = schema.clone().to_value();
    match value["$ref"].as_str().and_then(|reference| reference.rsplit('/').next()) {
        Some(name) => generator.definitions().get(name).cloned().unwrap_or(value),
        None => value,
    }
}

fn who(who: Who) -> &'static str {
    match who {
        Who::Anyone => "anyone",
        Who::Admin => "admin",
    }
}

/// The text of `docs/protocol.md`.
pub fn protocol_markdown() -> String {
    let mut generator = generator();
    let mut text = String::from("# Hearth's protocol\n\n");
    text.push_str("<!-- Made from daemon/protocol by `cargo run -p hearth-protocol --example protocol-md`. Do not edit. -->\n\n");
    text.push_str(&head_comment());
    text.push_str("\n## Methods\n\n");
    for method in methods() {
        let streams = if method.event.is_some() { ", streams" } else { "" };
        let _ = writeln!(
            text,
            "### `{}`\n\n{} (For: {}{streams}.)\n",
            method.name,
            method.summary,
            who(method.who)
        );
        let params = (method.params)(&mut generator);
        let params = resolve(&params, &generator);
        let _ = writeln!(text, "Parameters:\n\n{}", fields(&params));
        let reply = (method.reply)(&mut generator);
        let _ = writeln!(text, "Result: {}\n", type_name(&reply.to_value()));
        if let Some(event) = method.event {
            let event = event(&mut generator);
            let _ = writeln!(text, "Events: {}\n", type_name(&event.to_value()));
        }
    }
    text.push_str("## Errors\n\n| code | kind |\n| --- | --- |\n");
    for kind in ErrorKind::all() {
        let name = serde_json::to_value(kind).unwrap_or_default();
        let _ = writeln!(text, "| {} | `{}` |", kind.code(), name.as_str().unwrap_or_default());
    }
    text.push_str("\n## Types\n\n");
    for (name, schema) in generator.take_definitions(true) {
        let description = schema["description"].as_str().unwrap_or_default();
        let _ = writeln!(text, "### {name}\n\n{description}\n\n{}", body(&schema));
    }
    while text.ends_with("\n\n") {
        text.pop();
    }
    text
}

/// The head comment of `lib.rs`, which is the specification.
fn head_comment() -> String {
    let mut text = String::new();
    for line in include_str!("lib.rs").lines() {
        let Some(line) = line.strip_prefix("//!") else { break };
        text.push_str(line.strip_prefix(' ').unwrap_or(line));
        text.push('\n');
    }
    text.replace("[`ErrorData`]", "`ErrorData`")
}

fn body(schema: &Value) -> String {
    if let Some(variants) = schema["oneOf"].as_array().or_else(|| schema["anyOf"].as_array()) {
        return variants.iter().map(variant).collect();
    }
    if schema["properties"].is_object() {
        return fields(schema);
    }
    format!("{}\n", type_name(schema))
}

fn variant(schema: &Value) -> String {
    let description = schema["description"].as_str().unwrap_or_default().replace('\n', " ");
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().fold(String::new(), |mut text, value| {
            let _ = writeln!(text, "* `{value}` {description}");
            text
        });
    }
    if let Some(value) = schema.get("const") {
        return format!("* `{value}` {description}\n");
    }
    let tag = schema["properties"]["type"]["const"].as_str();
    let rest: Vec<String> = schema["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| tag.is_none() || *name != "type")
        .map(|(name, schema)| {
            let says = schema["description"].as_str().unwrap_or_default().replace('\n', " ");
            format!("`{name}` ({}) {says}", type_name(schema))
        })
        .collect();
    let tag = tag.map(|tag| format!("`\"type\": \"{tag}\"` ")).unwrap_or_default();
    let rest = if rest.is_empty() { String::new() } else { format!(" Fields: {}", rest.join(" ")) };
    if tag.is_empty() && rest.is_empty() {
        return format!("* {} {description}\n", type_name(schema));
    }
    format!("* {tag}{description}{rest}\n")
}

fn fields(schema: &Value) -> String {
    let Some(properties) =
        schema["properties"].as_object().filter(|properties| !properties.is_empty())
    else {
        return "none\n".into();
    };
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut text = String::from("| field | type | |\n| --- | --- | --- |\n");
    for (name, schema) in properties {
        let optional = if required.contains(&name.as_str()) { "" } else { ", optional" };
        let description = schema["description"].as_str().unwrap_or_default().replace('\n', " ");
        let _ = writeln!(text, "| `{name}` | {}{optional} | {description} |", type_name(schema));
    }
    text
}

fn type_name(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap_or_default();
        return format!("[{name}](#{})", name.to_lowercase());
    }
    if let Some(parts) = schema["allOf"].as_array().or_else(|| schema["anyOf"].as_array()) {
        let names: Vec<String> =
            parts.iter().map(type_name).filter(|name| name != "null").collect();
        return names.join(" or ");
    }
    match &schema["type"] {
        Value::String(name) if name == "array" => match &schema["items"] {
            Value::Array(items) => {
                format!("tuple of {}", items.iter().map(type_name).collect::<Vec<_>>().join(", "))
            }
            items => format!("array of {}", type_name(items)),
        },
        Value::String(name) => name.clone(),
        Value::Array(names) => {
            let names: Vec<&str> =
                names.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect();
            names.join(" or ")
        }
        _ => "any JSON".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_openrpc_document_has_every_method_and_resolves_every_reference() {
        let document = openrpc();
        assert_eq!(document["methods"].as_array().map(Vec::len), Some(methods().len()));
        let text = document.to_string();
        for piece in text.split("\"$ref\":\"#/components/schemas/").skip(1) {
            let name = piece.split('"').next().unwrap();
            assert!(document["components"]["schemas"][name].is_object(), "`{name}` is not defined");
        }
    }

    #[test]
    fn docs_protocol_md_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/protocol.md");
        let on_disk = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            on_disk == protocol_markdown(),
            "docs/protocol.md is stale: run `cargo run -p hearth-protocol --example protocol-md > docs/protocol.md`"
        );
    }
}
