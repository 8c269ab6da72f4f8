//! From a chat to a prompt: by the template that the manifest has in Go's language, or else by the plugin, which knows the
//! one in the weights.

use super::answer::Reading;
use super::prepare::refused;
use crate::chat_template::{Chat, ChatTemplate};
use hearth_abi::host::Model;
use hearth_abi::raw::Token;
use hearth_gotemplate::TemplateError;
use hearth_protocol::{ErrorKind, Message, Role, RpcError, Tool, ToolChoice};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// What a chat was rendered with, and how its answer is to be read.
#[derive(Default)]
pub(super) struct Rendered {
    pub(super) stops: Vec<String>,
    /// The text before thoughts, which is empty if the prompt ends with it, and those that may end them.
    pub(super) thoughts: Option<(String, Vec<String>)>,
    /// Texts that have to be seen in the answer even where one token stands for them.
    pub(super) spelled: Vec<String>,
    /// GBNF that the answer has to follow.
    pub(super) grammar: Option<String>,
    /// The template has a place for tools.
    pub(super) tools: bool,
    /// `None`: the answer is its text.
    pub(super) reading: Option<Reading>,
}

/// Makes prompts for one model.
pub(super) struct Renderer {
    model: Arc<Model>,
    template: Option<Result<ChatTemplate, TemplateError>>,
    /// The token that begins every text, where there is one.
    bos: Option<Token>,
}

impl Renderer {
    pub(super) fn new(model: &Arc<Model>, template: Option<&str>) -> Self {
        let bos = match model.tokenize("", true, false).as_deref() {
            Ok([bos, ..]) => Some(*bos),
            _ => None,
        };
        Self { model: Arc::clone(model), template: template.map(ChatTemplate::parse), bos }
    }

    /// Whether to think, where nobody says: a model that can does.
    pub(super) fn think(&self, asked: Option<bool>) -> Option<bool> {
        match &self.template {
            Some(Ok(template)) => asked.or(template.abilities().thinking.then_some(true)),
            _ => asked.or(Some(true)),
        }
    }

    pub(super) fn chat(
        &self,
        chat: &Chat<'_>,
        choice: ToolChoice,
    ) -> Result<(Rendered, Vec<Token>), RpcError> {
        match &self.template {
            None => self.by_plugin(chat, choice),
            Some(Ok(template)) => self.by_template(template, chat, choice),
            Some(Err(error)) => Err(broken(error)),
        }
    }

    /// A prompt for what stands between two texts.
    pub(super) fn between(&self, before: &str, after: &str) -> Result<Vec<Token>, RpcError> {
        match &self.template {
            Some(Ok(template)) if template.abilities().insert => self
                .tokens(&template.render_between(before, after).map_err(|error| broken(&error))?),
            Some(Err(error)) => Err(broken(error)),
            _ => Err(RpcError::new(
                ErrorKind::Unsupported,
                "this model's template has no place for a `suffix`",
            )
            .with_hint("use a model that was made for filling in text")),
        }
    }

    fn by_template(
        &self,
        template: &ChatTemplate,
        chat: &Chat<'_>,
        choice: ToolChoice,
    ) -> Result<(Rendered, Vec<Token>), RpcError> {
        let tools = match choice {
            ToolChoice::None => &[],
            ToolChoice::Required if !chat.tools.is_empty() => {
                return Err(RpcError::new(
                    ErrorKind::Unsupported,
                    "a model with a template in Go's language cannot be made to call a tool",
                )
                .with_hint("leave `tool_choice` at `auto`"));
            }
            _ => chat.tools,
        };
        let chat = Chat { tools, ..*chat };
        let prompt = template.render(&chat).map_err(|error| broken(&error))?;
        let reader = template.reader(&prompt, tools, chat.think == Some(true));
        let thoughts =
            reader.think_tags().map(|(open, close)| (open.to_string(), vec![close.to_string()]));
        let rendered = Rendered {
            stops: Vec::new(),
            thoughts,
            spelled: reader.tags().map(String::from).collect(),
            grammar: None,
            tools: template.abilities().tools,
            reading: (!reader.is_plain()).then_some(Reading::Tags(reader)),
        };
        Ok((rendered, self.tokens(&prompt)?))
    }

    /// With what begins every text, which some of these templates write and most do not.
    fn tokens(&self, prompt: &str) -> Result<Vec<Token>, RpcError> {
        let mut tokens = self.model.tokenize(prompt, true, true).map_err(refused)?;
        if let [first, second, ..] = *tokens
            && first == second
            && self.bos == Some(first)
        {
            tokens.remove(0);
        }
        Ok(tokens)
    }

    fn by_plugin(
        &self,
        chat: &Chat<'_>,
        choice: ToolChoice,
    ) -> Result<(Rendered, Vec<Token>), RpcError> {
        let mut request = Map::new();
        request.insert("messages".into(), chat.messages.iter().copied().map(message).collect());
        if !chat.tools.is_empty() {
            request.insert("tools".into(), chat.tools.iter().copied().map(tool).collect());
            let choice = match choice {
                ToolChoice::Auto => "auto",
                ToolChoice::Required => "required",
                ToolChoice::None => "none",
            };
            request.insert("tool_choice".into(), choice.into());
        }
        request.insert("thinking".into(), chat.think.into());
        let answer =
            self.model.chat_render(&Value::Object(request).to_string()).map_err(refused)?;
        let answer: RenderAnswer = serde_json::from_str(&answer).map_err(|error| {
            RpcError::new(
                ErrorKind::Internal,
                format!("the backend answered no chat prompt: {error}"),
            )
        })?;
        let tokens = self.model.tokenize(&answer.prompt, false, true).map_err(refused)?;
        let follows = !answer.grammar.is_empty() && !answer.grammar_lazy;
        let model = Arc::clone(&self.model);
        let rendered = Rendered {
            stops: answer.stops,
            thoughts: answer.thinks.then_some((answer.think_start, answer.think_ends)),
            spelled: answer.preserved,
            grammar: follows.then_some(answer.grammar),
            tools: answer.tools,
            reading: (!answer.plain).then_some(Reading::Plugin { model, parser: answer.parser }),
        };
        Ok((rendered, tokens))
    }
}

fn broken(error: &TemplateError) -> RpcError {
    RpcError::new(ErrorKind::BadModel, format!("the model's chat template fails: {error}"))
        .with_hint("`ctl show MODEL --template` shows it; pull or create the model again")
}

/// What `hearth.chat/1` answers.
#[derive(Deserialize)]
struct RenderAnswer {
    prompt: String,
    #[serde(default)]
    stops: Vec<String>,
    #[serde(default)]
    plain: bool,
    #[serde(default)]
    parser: String,
    #[serde(default)]
    grammar: String,
    #[serde(default)]
    grammar_lazy: bool,
    #[serde(default)]
    preserved: Vec<String>,
    #[serde(default)]
    thinks: bool,
    #[serde(default)]
    think_start: String,
    #[serde(default)]
    think_ends: Vec<String>,
    #[serde(default)]
    tools: bool,
}

/// In the shape of OpenAI's chat completions, which the plugin reads.
fn message(message: &Message) -> Value {
    let mut object = Map::new();
    let role = match message.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    object.insert("role".into(), role.into());
    object.insert("content".into(), message.content.as_str().into());
    if let Some(reasoning) = &message.reasoning {
        object.insert("reasoning_content".into(), reasoning.as_str().into());
    }
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.iter().map(|call| {
            json!({ "type": "function", "id": call.id, "function": { "name": call.name, "arguments": call.arguments } })
        });
        object.insert("tool_calls".into(), calls.collect());
    }
    if let Some(id) = &message.tool_call_id {
        object.insert("tool_call_id".into(), id.as_str().into());
    }
    Value::Object(object)
}

fn tool(tool: &Tool) -> Value {
    let parameters = if tool.parameters.is_null() { json!({}) } else { tool.parameters.clone() };
    json!({
        "type": "function",
        "function": { "name": tool.name, "description": tool.description, "parameters": parameters },
    })
}
