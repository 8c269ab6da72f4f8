//! Items that were said before, and the messages that they are.

use crate::http::openai::content::{Content, Part};
use crate::http::{invalid, or_default};
use crate::random;
use hearth_protocol::{ErrorKind, Message, Role, RpcError, ToolCall};
use serde::Deserialize;
use serde_json::{Value, json};

/// An item of the input. A message may come without a type.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Item {
    Message {
        role: String,
        #[serde(default, deserialize_with = "or_default")]
        content: Content,
    },
    FunctionCall {
        call_id: String,
        name: String,
        #[serde(default)]
        arguments: String,
    },
    FunctionCallOutput {
        call_id: String,
        #[serde(default, deserialize_with = "or_default")]
        output: Content,
    },
    Reasoning {
        #[serde(default, deserialize_with = "or_default")]
        content: Vec<Part>,
        #[serde(default, deserialize_with = "or_default")]
        summary: Vec<Part>,
        encrypted_content: Option<String>,
    },
    #[serde(other)]
    Other,
}

impl Item {
    pub(super) fn of(item: &Value) -> Result<Self, RpcError> {
        let unreadable =
            |error: serde_json::Error| invalid(format!("an item does not fit: {error}"));
        let item = Self::deserialize(item).map_err(unreadable)?;
        if matches!(item, Self::Other) {
            return Err(RpcError::new(
                ErrorKind::Unsupported,
                "an item of `input` has a type that nothing here reads",
            )
            .with_hint(
                "send items of the types `message`, `function_call`, `function_call_output` and `reasoning`",
            ));
        }
        Ok(item)
    }
}

/// The items as they are listed later.
pub(super) fn with_ids(mut items: Vec<Value>) -> Vec<Value> {
    for item in items.iter_mut().filter_map(Value::as_object_mut) {
        let kind = item.entry("type").or_insert_with(|| json!("message"));
        let prefix = match kind.as_str() {
            Some("function_call") => "fc_",
            Some("function_call_output") => "fco_",
            Some("reasoning") => "rs_",
            _ => "msg_",
        };
        if item.get("id").is_none_or(Value::is_null) {
            item.insert("id".into(), random::name(prefix).into());
        }
    }
    items
}

/// What one answer was made of, thoughts, text and calls, is one message again.
pub(super) fn messages(items: Vec<Item>) -> Result<Vec<Message>, RpcError> {
    let mut messages: Vec<Message> = Vec::new();
    for item in items {
        match item {
            Item::Message { role, content } => {
                let (role, (text, images)) = (role_of(&role)?, content.read()?);
                match answer(&mut messages) {
                    Some(last) if role == Role::Assistant && last.content.is_empty() => {
                        last.content = text;
                        last.images = images;
                    }
                    _ => messages.push(Message { images, ..Message::text(role, text) }),
                }
            }
            Item::Reasoning { content, summary, encrypted_content } => {
                let thoughts = [content, summary].into_iter().find(|parts| !parts.is_empty());
                let thoughts = match thoughts {
                    Some(parts) => Content::Parts(parts).read()?.0,
                    None => encrypted_content.unwrap_or_default(),
                };
                let mut message = Message::text(Role::Assistant, "");
                message.reasoning = Some(thoughts).filter(|thoughts| !thoughts.is_empty());
                messages.push(message);
            }
            Item::FunctionCall { call_id, name, arguments } => {
                let arguments = if arguments.is_empty() { "{}".into() } else { arguments };
                let call = ToolCall { id: call_id, name, arguments };
                match answer(&mut messages) {
                    Some(last) => last.tool_calls.push(call),
                    None => {
                        let mut message = Message::text(Role::Assistant, "");
                        message.tool_calls.push(call);
                        messages.push(message);
                    }
                }
            }
            Item::FunctionCallOutput { call_id, output } => {
                let (text, images) = output.read()?;
                let tool_call_id = Some(call_id);
                messages.push(Message { images, tool_call_id, ..Message::text(Role::Tool, text) });
            }
            Item::Other => {}
        }
    }
    Ok(messages)
}

/// The last message, if it is an answer that calls may be added to.
fn answer(messages: &mut [Message]) -> Option<&mut Message> {
    messages.last_mut().filter(|last| last.role == Role::Assistant)
}

fn role_of(role: &str) -> Result<Role, RpcError> {
    match role {
        "system" | "developer" => Ok(Role::System),
        "user" => Ok(Role::User),
        "assistant" => Ok(Role::Assistant),
        other => Err(invalid(format!(
            "a message's role is `{other}`, and must be `system`, `developer`, `user` or `assistant`"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(items: Value) -> Result<Vec<Message>, RpcError> {
        let Value::Array(items) = items else { panic!() };
        messages(with_ids(items).iter().map(Item::of).collect::<Result<_, _>>()?)
    }

    #[test]
    fn what_one_answer_was_made_of_is_one_message() {
        let said = of(json!([
            { "role": "developer", "content": "Be short." },
            { "type": "message", "role": "user", "content": [{ "type": "input_text", "text": "a" }, { "type": "input_text", "text": "b" }] },
            { "type": "reasoning", "id": "rs_1", "summary": [], "content": [{ "type": "reasoning_text", "text": "hm" }] },
            { "type": "message", "role": "assistant", "content": [{ "type": "output_text", "text": "See:" }] },
            { "type": "function_call", "call_id": "1", "name": "f", "arguments": "" },
            { "type": "function_call", "call_id": "2", "name": "g", "arguments": "{\"a\":1}" },
            { "type": "function_call_output", "call_id": "1", "output": "x" },
            { "type": "function_call_output", "call_id": "2", "output": [{ "type": "input_text", "text": "y" }] },
            { "type": "reasoning", "summary": [], "encrypted_content": "so" },
            { "role": "assistant", "content": "Yes." },
            { "role": "assistant", "content": "And no." },
        ]))
        .unwrap();
        let roles: Vec<_> = said.iter().map(|message| message.role).collect();
        let (tool, assistant) = (Role::Tool, Role::Assistant);
        assert_eq!(roles, [Role::System, Role::User, assistant, tool, tool, assistant, assistant]);
        assert_eq!(said[1].content, "a\nb");
        assert_eq!((said[2].reasoning.as_deref(), &*said[2].content), (Some("hm"), "See:"));
        let calls: Vec<_> =
            said[2].tool_calls.iter().map(|call| (&*call.name, &*call.arguments)).collect();
        assert_eq!(calls, [("f", "{}"), ("g", "{\"a\":1}")]);
        assert_eq!((said[4].tool_call_id.as_deref(), &*said[4].content), (Some("2"), "y"));
        assert_eq!((said[5].reasoning.as_deref(), &*said[5].content), (Some("so"), "Yes."));
        assert_eq!(said[6].content, "And no.");
    }

    #[test]
    fn what_cannot_be_read_is_refused_and_not_passed_over() {
        for item in [
            json!({ "type": "item_reference", "id": "msg_1" }),
            json!({ "type": "message", "role": "nobody", "content": "x" }),
            json!({ "type": "function_call", "name": "f" }),
            json!({ "role": "user", "content": [{ "type": "input_file", "file_id": "f" }] }),
            json!({ "role": "user", "content": 7 }),
            json!("hi"),
        ] {
            assert!(of(json!([item])).is_err(), "{item}");
        }
    }
}
