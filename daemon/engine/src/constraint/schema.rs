//! A JSON schema as it is given to llguidance.
//!
//! Two things are added where the schema says nothing, and both only narrow what it allows. Blanks between the parts are
//! bounded, or a model that likes them could go on for ever. And objects get no keys but those named, or a model that
//! likes to add some would: llama.cpp and Ollama read schemas so.

use serde_json::{Map, Value, json};

const OPTIONS: &str = "x-guidance";

pub(super) fn narrowed(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if !combines(&schema) {
        close(&mut schema);
    }
    if let Some(object) = schema.as_object_mut()
        && !object.contains_key(OPTIONS)
    {
        let blanks = json!({ "whitespace_pattern": r"[\x20\x0A\x0D\x09]{1,40}" });
        object.insert(OPTIONS.into(), blanks);
    }
    schema
}

/// Somewhere an object has to fit several schemas at once. None of them could be closed without the others.
fn combines(schema: &Value) -> bool {
    let Some(object) = schema.as_object() else { return false };
    let has = |key: &str| object.contains_key(key);
    has("allOf")
        || has("properties") && ["anyOf", "oneOf", "$ref"].into_iter().any(has)
        || parts(object).any(combines)
}

fn close(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    let named = object.get("properties").and_then(Value::as_object);
    let is_named =
        |key: &Value| key.as_str().is_some_and(|key| named.is_some_and(|n| n.contains_key(key)));
    let required = object.get("required").and_then(Value::as_array);
    let open = ["additionalProperties", "patternProperties", "minProperties", "maxProperties"]
        .into_iter()
        .any(|key| object.contains_key(key));
    if named.is_some() && !open && required.is_none_or(|keys| keys.iter().all(is_named)) {
        object.insert("additionalProperties".into(), false.into());
    }
    for (key, value) in object {
        match (kind(key), value) {
            (Some(Kind::One), Value::Array(schemas))
            | (Some(Kind::List), Value::Array(schemas)) => {
                schemas.iter_mut().for_each(close);
            }
            (Some(Kind::One), schema) => close(schema),
            (Some(Kind::Map), Value::Object(schemas)) => schemas.values_mut().for_each(close),
            _ => {}
        }
    }
}

/// How a keyword holds schemas.
enum Kind {
    /// Or, for `items` of old, a list.
    One,
    List,
    Map,
}

fn kind(key: &str) -> Option<Kind> {
    match key {
        "items" | "additionalItems" | "additionalProperties" => Some(Kind::One),
        "anyOf" | "oneOf" | "allOf" | "prefixItems" => Some(Kind::List),
        "properties" | "patternProperties" | "$defs" | "definitions" => Some(Kind::Map),
        _ => None,
    }
}

fn parts(object: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    object.iter().flat_map(|(key, value)| match (kind(key), value) {
        (Some(Kind::One | Kind::List), Value::Array(schemas)) => schemas.iter().collect(),
        (Some(Kind::One), schema) => vec![schema],
        (Some(Kind::Map), Value::Object(schemas)) => schemas.values().collect(),
        _ => Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without the options.
    fn closed(schema: &Value) -> Value {
        let mut schema = narrowed(schema);
        schema.as_object_mut().unwrap().remove(OPTIONS);
        schema
    }

    #[test]
    fn objects_are_closed_wherever_a_schema_stands_and_nowhere_else() {
        let cat = json!({ "properties": { "name": {} }, "required": ["name"] });
        let mut tight = cat.clone();
        tight["additionalProperties"] = false.into();
        for place in ["items", "additionalItems"] {
            assert_eq!(closed(&json!({ place: cat })), json!({ place: tight }));
        }
        for place in ["anyOf", "oneOf", "prefixItems", "items"] {
            assert_eq!(closed(&json!({ place: [cat] })), json!({ place: [tight] }));
        }
        for place in ["$defs", "definitions", "patternProperties"] {
            assert_eq!(closed(&json!({ place: { "a": cat } })), json!({ place: { "a": tight } }));
        }
        for place in ["enum", "const", "default", "examples"] {
            assert_eq!(closed(&json!({ place: [cat] })), json!({ place: [cat] }));
        }
    }

    #[test]
    fn what_would_become_impossible_or_is_said_otherwise_stays_open() {
        let cat = json!({ "properties": { "name": {} } });
        for schema in [
            json!({ "properties": { "a": {} }, "additionalProperties": true }),
            json!({ "properties": { "a": {} }, "patternProperties": { "^x": {} } }),
            json!({ "properties": { "a": {} }, "required": ["b"] }),
            json!({ "properties": { "a": {} }, "minProperties": 2 }),
            json!({ "type": "object" }),
            json!({ "allOf": [cat, cat] }),
            json!({ "items": { "allOf": [{ "$ref": "#/$defs/c" }] }, "$defs": { "c": cat } }),
            json!({ "properties": { "a": {} }, "anyOf": [cat] }),
            json!({ "properties": { "a": {} }, "$ref": "#/$defs/c", "$defs": { "c": cat } }),
        ] {
            assert_eq!(closed(&schema), schema);
        }
        assert_eq!(narrowed(&json!(true)), json!(true));
        let own = json!({ "x-guidance": { "whitespace_flexible": false } });
        assert_eq!(narrowed(&own), own);
    }
}
