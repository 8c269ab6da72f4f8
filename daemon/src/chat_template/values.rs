//! Messages and tools as the Go values that Ollama gives to templates.

use hearth_gotemplate::{Field, Map, Methods, Struct, Value, to_json};
use hearth_protocol::{Message, Role, Tool};
use serde_json::Value as Json;

/// A type that prints as its JSON.
macro_rules! prints_json {
    ($name:literal) => {
        Methods { type_name: $name, string: Some(to_json), json: None, others: &[] }
    };
}

static TOOLS: Methods = Methods {
    type_name: "template.templateTools",
    string: Some(list_text),
    json: Some(list_text),
    others: &[],
};
static LIST: Methods =
    Methods { type_name: "[]interface {}", string: None, json: Some(list_text), others: &[] };
static TOOL: Methods = prints_json!("template.templateTool");
static FUNCTION: Methods = prints_json!("template.templateToolFunction");
static PARAMETERS: Methods = prints_json!("template.templateToolFunctionParameters");
/// Maps that were not there print as empty ones.
static PROPERTIES: Methods = Methods {
    type_name: "template.templateProperties",
    string: Some(map_text),
    json: None,
    others: &[],
};
static ARGUMENTS: Methods =
    Methods { type_name: "template.templateArgs", string: Some(map_text), json: None, others: &[] };
static PROPERTY: Methods = Methods {
    type_name: "api.ToolProperty",
    string: None,
    json: None,
    others: &[("ToTypeScriptType", |property| typescript_type_of(property).into())],
};
static PROPERTY_TYPE: Methods = Methods {
    type_name: "api.PropertyType",
    string: Some(|types| match texts(types).as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        types => format!("[{}]", types.join(" ")),
    }),
    json: Some(|types| match texts(types).as_slice() {
        [one] => to_json(&one.as_str().into()),
        _ => to_json(types),
    }),
    others: &[],
};

/// Without items it is a list that nobody made, which is `null` in Go's JSON.
fn list_text(list: &Value) -> String {
    if list.is_true() { to_json(list) } else { "null".into() }
}

fn map_text(map: &Value) -> String {
    if matches!(map, Value::Nil) { "{}".into() } else { to_json(map) }
}

/// A tool's answer knows only which call it answers; the name is with the call.
pub(super) fn messages(messages: &[Message]) -> Value {
    let calls = messages.iter().flat_map(|message| &message.tool_calls);
    let name_of = |id: &String| {
        calls.clone().find(|call| call.id == *id).map_or("", |call| call.name.as_str())
    };
    messages
        .iter()
        .map(|message| {
            let role = match message.role {
                Role::System => "system",
                Role::User => "user",
                Role::Assistant => "assistant",
                Role::Tool => "tool",
            };
            let id = message.tool_call_id.as_ref();
            object(
                "template.templateMessage",
                vec![
                    plain("Role", role.into()),
                    plain("Content", message.content.as_str().into()),
                    plain("Thinking", message.reasoning.as_deref().unwrap_or_default().into()),
                    plain(
                        "Images",
                        message.images.iter().map(|_| "".into()).collect::<Value>().typed(&LIST),
                    ),
                    plain("ToolCalls", tool_calls(message)),
                    plain("ToolName", id.map_or("", name_of).into()),
                    plain("ToolCallID", id.map_or("", String::as_str).into()),
                ],
            )
        })
        .collect()
}

fn tool_calls(message: &Message) -> Value {
    let calls = message.tool_calls.iter().map(|call| {
        let arguments = match serde_json::from_str(&call.arguments) {
            Ok(Json::Object(arguments)) => from_json(&Json::Object(arguments)).typed(&ARGUMENTS),
            // What a model wrote and was no object stands as it was written.
            _ => call.arguments.as_str().into(),
        };
        let function = vec![
            plain("Index", Value::Int(0)),
            plain("Name", call.name.as_str().into()),
            plain("Arguments", arguments),
        ];
        let function = object("template.templateToolCallFunction", function);
        let call = vec![plain("ID", call.id.as_str().into()), plain("Function", function)];
        object("template.templateToolCall", call)
    });
    calls.collect::<Value>().typed(&LIST)
}

pub(super) fn tools(tools: &[&Tool]) -> Value {
    tools.iter().copied().map(tool).collect::<Value>().typed(&TOOLS)
}

fn tool(tool: &Tool) -> Value {
    let schema = &tool.parameters;
    let properties = match &schema["properties"] {
        Json::Object(properties) => {
            let pairs =
                properties.iter().map(|(key, schema)| (key.as_str().into(), property(schema)));
            Value::from(pairs.collect::<Map>())
        }
        _ => Value::Nil,
    };
    let parameters = vec![
        tagged("Type", "type", schema["type"].as_str().unwrap_or_default().into()),
        optional("Defs", "$defs", from_json(&schema["$defs"])),
        optional("Items", "items", from_json(&schema["items"])),
        optional("Required", "required", strings(&schema["required"])),
        tagged("Properties", "properties", properties.typed(&PROPERTIES)),
    ];
    let parameters =
        object("template.templateToolFunctionParameters", parameters).typed(&PARAMETERS);
    let function = vec![
        tagged("Name", "name", tool.name.as_str().into()),
        tagged("Description", "description", tool.description.as_str().into()),
        tagged("Parameters", "parameters", parameters),
    ];
    let function = object("template.templateToolFunction", function).typed(&FUNCTION);
    let tool = vec![
        tagged("Type", "type", "function".into()),
        optional("Items", "items", Value::Nil),
        tagged("Function", "function", function),
    ];
    object("template.templateTool", tool).typed(&TOOL)
}

fn property(schema: &Json) -> Value {
    let types = match &schema["type"] {
        Json::String(one) => Value::from_iter([one.as_str().into()]),
        several => strings(several),
    };
    // Below the first level Ollama keeps the order of the keys.
    let properties = match &schema["properties"] {
        Json::Object(properties) => {
            let fields = properties.iter().map(|(key, schema)| tagged(key, key, property(schema)));
            object("*api.ToolPropertiesMap", fields.collect())
        }
        _ => Value::Nil,
    };
    let fields = vec![
        optional("AnyOf", "anyOf", list(&schema["anyOf"]).map(property).collect()),
        optional("Type", "type", types.typed(&PROPERTY_TYPE)),
        optional("Items", "items", from_json(&schema["items"])),
        optional(
            "Description",
            "description",
            schema["description"].as_str().unwrap_or_default().into(),
        ),
        optional("Enum", "enum", list(&schema["enum"]).map(from_json).collect()),
        optional("Properties", "properties", properties),
        optional("Required", "required", strings(&schema["required"])),
    ];
    object("api.ToolProperty", fields).typed(&PROPERTY)
}

/// Ollama's function of this name: of a property of a tool, and `any` for everything else.
pub(super) fn typescript_type(value: &Value) -> String {
    match value {
        Value::Typed(typed) if typed.methods.type_name == PROPERTY.type_name => {
            typescript_type_of(&typed.value)
        }
        _ => "any".into(),
    }
}

fn typescript_type_of(property: &Value) -> String {
    let Value::Struct(property) = property.plain() else { return "any".into() };
    let field = |name: &str| property.fields.iter().find(|field| *field.name == *name);
    if let Some(Value::List(any_of)) = field("AnyOf").map(|field| field.value.plain())
        && !any_of.items().is_empty()
    {
        let types: Vec<String> = any_of.items().iter().map(typescript_type).collect();
        return types.join(" | ");
    }
    let types = field("Type").map(|field| texts(field.value.plain())).unwrap_or_default();
    if types.is_empty() {
        return "any".into();
    }
    let types = types.iter().map(|name| match name.as_str() {
        "string" => "string",
        "number" | "integer" => "number",
        "boolean" => "boolean",
        "array" => "any[]",
        "object" => "Record<string, any>",
        "null" => "null",
        _ => "any",
    });
    types.collect::<Vec<_>>().join(" | ")
}

fn texts(list: &Value) -> Vec<String> {
    let Value::List(list) = list else { return Vec::new() };
    let text =
        |item: &Value| if let Value::Text(text) = item { Some(text.to_string()) } else { None };
    list.items().iter().filter_map(text).collect()
}

fn strings(json: &Json) -> Value {
    list(json).filter_map(Json::as_str).map(Value::from).collect()
}

fn list(json: &Json) -> impl Iterator<Item = &Json> {
    json.as_array().into_iter().flatten()
}

/// Every number of JSON is a float to Go, which would change the digits of large whole ones.
fn from_json(json: &Json) -> Value {
    const EXACT: u64 = 1 << 53;
    match json {
        Json::Null => Value::Nil,
        Json::Bool(truth) => Value::Bool(*truth),
        Json::Number(number) => match number.as_i64() {
            Some(whole) if whole.unsigned_abs() > EXACT => Value::Int(whole),
            _ => Value::Float(number.as_f64().unwrap_or_default()),
        },
        Json::String(text) => text.as_str().into(),
        Json::Array(items) => items.iter().map(from_json).collect(),
        Json::Object(pairs) => pairs
            .iter()
            .map(|(key, value)| (key.as_str().into(), from_json(value)))
            .collect::<Map>()
            .into(),
    }
}

fn object(type_name: &'static str, fields: Vec<Field>) -> Value {
    Struct { type_name, fields }.into()
}

fn plain(name: &str, value: Value) -> Field {
    tagged(name, name, value)
}

fn tagged(name: &str, json: &str, value: Value) -> Field {
    Field { name: name.into(), json: json.into(), omit_empty: false, value }
}

fn optional(name: &str, json: &str, value: Value) -> Field {
    Field { omit_empty: true, ..tagged(name, json, value) }
}
