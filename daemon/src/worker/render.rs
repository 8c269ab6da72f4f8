//! From a chat to a prompt: by the template that the manifest has in Go's language, or else by the plugin, which knows the
//! one in the weights.

use super::images::Pictures;
use super::infill;
use super::parsing::Reading;
use super::prepare::refused;
use super::tools::{Calls, Offer};
use crate::chat_template::{Chat, ChatTemplate};
use hearth_abi::host::Model;
use hearth_abi::raw::Token;
use hearth_gotemplate::TemplateError;
use hearth_protocol::{ErrorKind, Message, Role, RpcError};
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
    pub(super) calls: Calls,
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

    /// The same model with a template of a request's own.
    pub(super) fn with(&self, template: &str) -> Result<Self, RpcError> {
        let template = ChatTemplate::parse(template).map_err(|error| {
            let message = format!("the request's `template` cannot be read: {error}");
            RpcError::new(ErrorKind::InvalidParams, message)
                .with_hint("it is a template in Go's language, as in a Modelfile")
        })?;
        Ok(Self { model: Arc::clone(&self.model), template: Some(Ok(template)), bos: self.bos })
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
        messages: &[&Message],
        pictures: &Pictures,
        offer: &Offer<'_>,
        think: Option<bool>,
    ) -> Result<(Rendered, Vec<Token>), RpcError> {
        match &self.template {
            Some(Err(error)) => Err(broken(error)),
            // Tools that it has no place for are left to the plugin, and calls to hold to a form, for which only that has a grammar.
            Some(Ok(template))
                if offer.tools.is_empty()
                    || template.abilities().tools && !offer.needs_grammar() =>
            {
                let chat = Chat { messages, tools: &offer.tools, think };
                self.by_template(template, &chat, pictures)
            }
            _ => self.by_plugin(messages, pictures, offer, think.unwrap_or(true)),
        }
    }

    /// A prompt for what stands between two texts.
    pub(super) fn between(&self, before: &str, after: &str) -> Result<Vec<Token>, RpcError> {
        match &self.template {
            Some(Ok(template)) if template.abilities().insert => {
                let prompt = template.render_between(before, after);
                self.tokens(&prompt.map_err(|error| broken(&error))?, &Pictures::default())
            }
            Some(Err(error)) => Err(broken(error)),
            _ => infill::prompt(&self.model, before, after)?.ok_or_else(|| {
                let message = "this model has no place for a `suffix`, in a template or by tokens";
                RpcError::new(ErrorKind::Unsupported, message)
                    .with_hint("use a model that was made for filling in text")
            }),
        }
    }

    fn by_template(
        &self,
        template: &ChatTemplate,
        chat: &Chat<'_>,
        pictures: &Pictures,
    ) -> Result<(Rendered, Vec<Token>), RpcError> {
        let prompt = template.render(chat).map_err(|error| broken(&error))?;
        let reader = template.reader(&prompt, chat.tools, chat.think == Some(true));
        let thoughts =
            reader.think_tags().map(|(open, close)| (open.to_string(), vec![close.to_string()]));
        let rendered = Rendered {
            stops: Vec::new(),
            thoughts,
            spelled: reader.tags().map(String::from).collect(),
            calls: Calls::default(),
            reading: (!reader.is_plain()).then_some(Reading::Tags(reader)),
        };
        Ok((rendered, self.tokens(&prompt, pictures)?))
    }

    /// With what begins every text, which some of these templates write and most do not.
    fn tokens(&self, prompt: &str, pictures: &Pictures) -> Result<Vec<Token>, RpcError> {
        let mut tokens = pictures.tokenize(&self.model, prompt, true, true)?;
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
        messages: &[&Message],
        pictures: &Pictures,
        offer: &Offer<'_>,
        think: bool,
    ) -> Result<(Rendered, Vec<Token>), RpcError> {
        let mut request = Map::new();
        request.insert("messages".into(), messages.iter().copied().map(message).collect());
        offer.describe(&mut request);
        request.insert("thinking".into(), think.into());
        let answer =
            self.model.chat_render(&Value::Object(request).to_string()).map_err(refused)?;
        let answer: RenderAnswer = serde_json::from_str(&answer).map_err(|error| {
            RpcError::new(
                ErrorKind::Internal,
                format!("the backend answered no chat prompt: {error}"),
            )
        })?;
        let tokens = pictures.tokenize(&self.model, &answer.prompt, false, true)?;
        let model = Arc::clone(&self.model);
        let rendered = Rendered {
            stops: answer.stops,
            thoughts: answer.thinks.then_some((answer.think_start, answer.think_ends)),
            spelled: answer.preserved,
            calls: answer.calls,
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
    #[serde(flatten)]
    calls: Calls,
    #[serde(default)]
    preserved: Vec<String>,
    #[serde(default)]
    thinks: bool,
    #[serde(default)]
    think_start: String,
    #[serde(default)]
    think_ends: Vec<String>,
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
