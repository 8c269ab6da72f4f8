//! From a request's messages to a chat.

use crate::http::{invalid, or_default};
use hearth_protocol::{
    ChatParams, ErrorKind, Format, IMAGE_PLACE, Image, Message, Options, Role, RpcError, Tool,
    ToolCall, ToolChoice,
};
use schemars::JsonSchema;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// What is not here, such as `metadata` and `service_tier`, changes no answer and is ignored.
#[derive(Deserialize, JsonSchema)]
pub(super) struct Request {
    #[serde(default)]
    pub(super) model: String,
    max_tokens: Option<i64>,
    #[serde(default)]
    messages: Vec<Said>,
    #[serde(default, deserialize_with = "or_default")]
    system: Content,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) stream: bool,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<u32>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) stop_sequences: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    tools: Vec<Offered>,
    tool_choice: Option<Choice>,
    thinking: Option<Thinking>,
    output_config: Option<OutputConfig>,
}

#[derive(Deserialize, JsonSchema)]
struct Said {
    role: Speaker,
    content: Content,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Speaker {
    User,
    Assistant,
}

/// A text, or blocks of several kinds.
#[derive(Default, JsonSchema)]
struct Content(#[schemars(with = "TextOrBlocks")] Vec<Block>);

#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "it only tells the schema")]
enum TextOrBlocks {
    Text(String),
    Blocks(Vec<Block>),
}

#[derive(Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block {
    Text {
        text: String,
    },
    ToolUse {
        id: String,
        name: String,
        #[serde(default)]
        input: Value,
    },
    ToolResult {
        tool_use_id: String,
        #[serde(default, deserialize_with = "or_default")]
        content: Content,
    },
    Thinking {
        thinking: String,
    },
    RedactedThinking,
    Image {
        source: Source,
    },
}

#[derive(Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Source {
    Base64 { data: String },
    Url { url: String },
}

#[derive(Deserialize, JsonSchema)]
struct Offered {
    #[serde(rename = "type")]
    kind: Option<String>,
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    description: String,
    #[serde(default)]
    input_schema: Value,
}

#[derive(Deserialize, JsonSchema)]
struct Choice {
    #[serde(rename = "type")]
    kind: ChoiceKind,
    #[serde(default)]
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    disable_parallel_tool_use: bool,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum ChoiceKind {
    Auto,
    Any,
    Tool,
    None,
}

#[derive(Deserialize, JsonSchema)]
struct Thinking {
    #[serde(rename = "type")]
    kind: String,
    budget_tokens: Option<u32>,
}

#[derive(Deserialize, JsonSchema)]
struct OutputConfig {
    format: Option<OutputFormat>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
enum OutputFormat {
    JsonSchema { schema: Value },
}

impl Request {
    pub(super) fn check_max_tokens(&self) -> Result<(), RpcError> {
        match self.max_tokens {
            // 0 has the prompt computed ahead of the requests that begin so.
            Some(0..) => Ok(()),
            _ => Err(invalid("max_tokens is required and must not be negative")),
        }
    }

    pub(super) fn params(self) -> Result<ChatParams, RpcError> {
        if self.model.is_empty() {
            return Err(invalid("model is required"));
        }
        if self.messages.is_empty() {
            return Err(invalid("messages: at least one message is required"));
        }
        let mut messages = Vec::new();
        let system = self.system.text()?;
        if !system.is_empty() {
            messages.push(Message::text(Role::System, system));
        }
        for said in self.messages {
            said.into_messages(&mut messages)?;
        }
        let choice = self.tool_choice;
        let one_call = choice.as_ref().is_some_and(|choice| choice.disable_parallel_tool_use);
        let thinks = self.thinking.filter(|thinking| thinking.kind != "disabled");
        let format = self.output_config.and_then(|config| config.format);
        Ok(ChatParams {
            session: None,
            template: None,
            model: self.model,
            messages,
            tools: self.tools.into_iter().map(tool).collect::<Result<_, _>>()?,
            tool_choice: choice.map_or(ToolChoice::Auto, |choice| match choice.kind {
                ChoiceKind::Auto => ToolChoice::Auto,
                ChoiceKind::Any => ToolChoice::Required,
                ChoiceKind::Tool => ToolChoice::Tool(choice.name),
                ChoiceKind::None => ToolChoice::None,
            }),
            parallel_tool_calls: one_call.then_some(false),
            format: format.map(|OutputFormat::JsonSchema { schema }| Format::JsonSchema(schema)),
            // As Anthropic's models, which do not think unless they are asked to.
            think: Some(thinks.is_some()),
            think_tokens: thinks.and_then(|thinking| thinking.budget_tokens),
            options: Options {
                max_tokens: self.max_tokens.map(|max| u32::try_from(max).unwrap_or(u32::MAX)),
                temperature: Some(self.temperature.unwrap_or(1.0)),
                top_p: self.top_p,
                top_k: self.top_k,
                stop: self.stop_sequences,
                ..Options::default()
            },
            keep_alive: None,
            request: None,
            timeout_ms: None,
        })
    }
}

impl Said {
    /// What tools answered are messages of their own.
    fn into_messages(self, messages: &mut Vec<Message>) -> Result<(), RpcError> {
        let role = match self.role {
            Speaker::User => Role::User,
            Speaker::Assistant => Role::Assistant,
        };
        let (mut own, mut has_results) = (Message::text(role, ""), false);
        for block in self.content.0 {
            match (self.role, block) {
                (Speaker::User, Block::ToolResult { tool_use_id, content }) => {
                    has_results = true;
                    let mut result = Message::text(Role::Tool, "");
                    for block in content.0 {
                        say(&mut result, block)?;
                    }
                    result.tool_call_id = Some(tool_use_id);
                    messages.push(result);
                }
                (Speaker::Assistant, Block::ToolUse { id, name, input }) => {
                    let arguments = if input.is_null() { "{}".into() } else { input.to_string() };
                    own.tool_calls.push(ToolCall { id, name, arguments });
                }
                (Speaker::Assistant, Block::Thinking { thinking }) => {
                    add(own.reasoning.get_or_insert_default(), &thinking);
                }
                (Speaker::Assistant, Block::RedactedThinking) => {}
                (_, block) => say(&mut own, block)?,
            }
        }
        if !(has_results && own.content.is_empty()) {
            messages.push(own);
        }
        Ok(())
    }
}

impl Content {
    /// What must be text alone.
    fn text(self) -> Result<String, RpcError> {
        let mut all = String::new();
        for block in self.0 {
            match block {
                Block::Text { text } => add(&mut all, &text),
                block => return Err(misplaced(&block)),
            }
        }
        Ok(all)
    }
}

/// Takes what may be said: text and images.
fn say(message: &mut Message, block: Block) -> Result<(), RpcError> {
    match block {
        Block::Text { text } => add(&mut message.content, &text),
        Block::Image { source: Source::Base64 { data: image } | Source::Url { url: image } } => {
            message.content.push_str(IMAGE_PLACE);
            message.images.push(Image(image));
        }
        block => return Err(misplaced(&block)),
    }
    Ok(())
}

/// Blocks of text stand below each other, and images between without a line of their own.
fn add(all: &mut String, text: &str) {
    if !all.is_empty() && !all.ends_with(IMAGE_PLACE) {
        all.push('\n');
    }
    all.push_str(text);
}

fn misplaced(block: &Block) -> RpcError {
    let kind = match block {
        Block::Text { .. } => "text",
        Block::ToolUse { .. } => "tool_use",
        Block::ToolResult { .. } => "tool_result",
        Block::Thinking { .. } => "thinking",
        Block::RedactedThinking => "redacted_thinking",
        Block::Image { .. } => "image",
    };
    invalid(format!("a block of type `{kind}` has no place there"))
}

fn tool(offered: Offered) -> Result<Tool, RpcError> {
    match offered.kind.as_deref() {
        None | Some("custom") => Ok(Tool {
            name: offered.name,
            description: offered.description,
            parameters: offered.input_schema,
        }),
        Some(kind) => Err(RpcError::new(
            ErrorKind::Unsupported,
            format!("there is no tool of type `{kind}` here"),
        )
        .with_hint("give tools with an `input_schema`, and run them yourself")),
    }
}

/// Errors name what is wrong in the blocks, which those of an untagged enum would not.
impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrBlocks;
        impl<'de> Visitor<'de> for TextOrBlocks {
            type Value = Content;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string or an array of content blocks")
            }

            fn visit_str<E>(self, text: &str) -> Result<Content, E> {
                Ok(Content(vec![Block::Text { text: text.into() }]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, blocks: A) -> Result<Content, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(blocks)).map(Content)
            }
        }
        deserializer.deserialize_any(TextOrBlocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn params(mut request: Value) -> Result<ChatParams, RpcError> {
        request["model"] = "m".into();
        serde_json::from_value::<Request>(request).unwrap().params()
    }

    #[test]
    fn a_conversation_with_tools_becomes_messages_in_order() {
        let request = json!({
            "system": [{ "type": "text", "text": "Be brief.", "cache_control": { "type": "ephemeral" } }, { "type": "text", "text": "Be kind." }],
            "messages": [
                { "role": "user", "content": "Weather?" },
                { "role": "assistant", "content": [
                    { "type": "thinking", "thinking": "Ask.", "signature": "s" },
                    { "type": "redacted_thinking", "data": "x" },
                    { "type": "text", "text": "I look." },
                    { "type": "tool_use", "id": "a", "name": "look", "input": { "z": 1, "b": 2.0 } },
                ] },
                { "role": "user", "content": [
                    { "type": "tool_result", "tool_use_id": "a", "content": [{ "type": "text", "text": "Rain" }], "is_error": false },
                    { "type": "tool_result", "tool_use_id": "b" },
                    { "type": "text", "text": "And now?" },
                ] },
                { "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "c", "content": "Sun" }] },
            ],
        });
        let messages = params(request).unwrap().messages;
        let said: Vec<_> = messages.iter().map(|said| (said.role, said.content.as_str())).collect();
        let expected = [
            (Role::System, "Be brief.\nBe kind."),
            (Role::User, "Weather?"),
            (Role::Assistant, "I look."),
            (Role::Tool, "Rain"),
            (Role::Tool, ""),
            (Role::User, "And now?"),
            (Role::Tool, "Sun"),
        ];
        assert_eq!(said, expected);
        assert_eq!(messages[2].reasoning.as_deref(), Some("Ask."));
        assert_eq!(messages[2].tool_calls[0].arguments, r#"{"z":1,"b":2.0}"#);
        assert_eq!(messages[3].tool_call_id.as_deref(), Some("a"));
    }

    #[test]
    fn thinking_tools_and_sampling_are_read() {
        let hi = json!([{ "role": "user", "content": "hi" }]);
        let plain = params(json!({ "messages": hi })).unwrap();
        assert_eq!((plain.think, plain.options.temperature), (Some(false), Some(1.0)));
        assert_eq!((plain.tool_choice, plain.parallel_tool_calls), (ToolChoice::Auto, None));
        let all = params(json!({
            "messages": hi, "max_tokens": 9, "temperature": 0.5, "top_k": 3, "stop_sequences": ["x"],
            "thinking": { "type": "enabled", "budget_tokens": 1024 },
            "tools": [{ "name": "t", "input_schema": { "type": "object" } }],
            "tool_choice": { "type": "tool", "name": "t", "disable_parallel_tool_use": true },
            "output_config": { "effort": "low", "format": { "type": "json_schema", "schema": {} } },
        }))
        .unwrap();
        assert_eq!((all.think, all.think_tokens), (Some(true), Some(1024)));
        assert_eq!(all.tool_choice, ToolChoice::Tool("t".into()));
        assert_eq!(all.parallel_tool_calls, Some(false));
        assert_eq!((all.options.max_tokens, all.options.top_k), (Some(9), Some(3)));
        assert_eq!(all.options.stop, ["x"]);
        assert_eq!(all.format, Some(Format::JsonSchema(json!({}))));
    }

    #[test]
    fn images_stand_where_their_blocks_do() {
        let text = |text: &str| json!({ "type": "text", "text": text });
        let image = |source: Value| json!({ "type": "image", "source": source });
        let here = image(json!({ "type": "base64", "media_type": "image/png", "data": "AA==" }));
        let there = image(json!({ "type": "url", "url": "https://example.org/a.png" }));
        let result = json!({ "type": "tool_result", "tool_use_id": "a", "content": [here] });
        let blocks = json!([result, text("a"), here, text("b"), text("c"), there]);
        let said = json!({ "messages": [{ "role": "user", "content": blocks }] });
        let params = params(said).unwrap();
        let [result, own] = &*params.messages else { panic!("{:?}", params.messages) };
        assert_eq!((result.content.as_str(), result.images.len()), ("[img]", 1));
        assert_eq!(own.content, "a[img]b\nc[img]");
        assert_eq!(
            own.images,
            ["AA==", "https://example.org/a.png"].map(|text| Image(text.into()))
        );
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_its_name() {
        let block = |block: Value| json!({ "messages": [{ "role": "user", "content": [block] }] });
        let call = block(json!({ "type": "tool_use", "id": "a", "name": "b", "input": {} }));
        assert!(params(call).unwrap_err().message.contains("`tool_use`"));
        let searching = json!({
            "messages": [{ "role": "user", "content": "hi" }],
            "tools": [{ "type": "web_search_20250305", "name": "web_search" }],
        });
        assert!(params(searching).unwrap_err().message.contains("web_search_20250305"));
        let unknown = serde_json::from_value::<Request>(block(json!({ "type": "document" })));
        assert!(unknown.err().unwrap().to_string().contains("unknown variant `document`"));
    }
}
