//! How Ollama makes a prompt of a chat with a model's Go template.
//!
//! A template that uses `.Messages` is given all of them; an older one is rendered turn by turn, with `.System`, `.Prompt` and
//! `.Response`, and the last turn only up to its `.Response`. `go/` in this folder has what Ollama's rules yield with
//! Go's own `text/template`. Where Ollama prints Go's structs by mistake (`{{ .Function }}` since 0.14), JSON is printed, as
//! before and as the templates expect.

mod answer;
mod tags;
mod values;

pub(crate) use answer::{Parsed, Reader};

use hearth_gotemplate::{Functions, Map, Template, TemplateError, Value, to_json};
use hearth_protocol::{Message, Role, Tool};
use jiff::Zoned;
use jiff::civil::Date;
use std::collections::BTreeSet;

/// A model's template, read.
#[derive(Debug)]
pub(crate) struct ChatTemplate {
    template: Template,
    /// What the last turn is rendered with where turns are rendered one by one.
    up_to_response: Template,
    /// Names of its fields and variables, in lower case.
    names: BTreeSet<String>,
    /// The texts around thoughts.
    think_tags: Option<(String, String)>,
    /// The text before a tool call.
    call_tag: String,
}

/// A chat to be rendered.
#[derive(Clone, Copy)]
pub(crate) struct Chat<'a> {
    pub(crate) messages: &'a [&'a Message],
    pub(crate) tools: &'a [&'a Tool],
    /// `None`: nobody said anything of it.
    pub(crate) think: Option<bool>,
}

/// What a model can do, as far as its template says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Abilities {
    pub(crate) tools: bool,
    pub(crate) insert: bool,
    pub(crate) thinking: bool,
}

impl Abilities {
    /// A guess by the words in a template that the plugin renders, and not we.
    pub(crate) fn of_jinja(template: &str) -> Self {
        let thoughts = ["thinking", "reasoning_content", "reasoning_effort", "<think>"];
        Self {
            tools: template.contains("tools"),
            insert: false,
            thinking: thoughts.iter().any(|word| template.contains(word)),
        }
    }
}

impl ChatTemplate {
    pub(crate) fn parse(source: &str) -> Result<Self, TemplateError> {
        let mut template = Template::parse(source, &functions())?;
        let names: BTreeSet<String> =
            template.identifiers().iter().map(|name| name.to_lowercase()).collect();
        if !names.contains("messages") && !names.contains("response") {
            template.append_field("Response");
        }
        Ok(Self {
            up_to_response: template.up_to_field("Response"),
            think_tags: tags::around_thoughts(template.nodes()),
            call_tag: tags::before_calls(template.nodes()),
            template,
            names,
        })
    }

    pub(crate) fn abilities(&self) -> Abilities {
        Abilities {
            tools: self.names.contains("tools"),
            insert: self.names.contains("suffix"),
            thinking: self.think_tags.is_some(),
        }
    }

    /// The prompt for the next answer.
    pub(crate) fn render(&self, chat: &Chat<'_>) -> Result<String, TemplateError> {
        let (system, messages) = collate(chat.messages);
        if self.names.contains("messages") {
            let mut data = Self::data(chat.think);
            data.insert("System".into(), system.into());
            data.insert("Messages".into(), values::messages(&messages));
            data.insert("Tools".into(), values::tools(chat.tools));
            data.insert("Response".into(), "".into());
            return self.template.render(&data.into());
        }
        self.render_turns(&messages, chat.think)
    }

    /// The prompt for what stands between two texts.
    pub(crate) fn render_between(
        &self,
        before: &str,
        after: &str,
    ) -> Result<String, TemplateError> {
        let mut data = Self::data(None);
        data.insert("Prompt".into(), before.into());
        data.insert("Suffix".into(), after.into());
        data.insert("Response".into(), "".into());
        self.template.render(&data.into())
    }

    /// What reads the answer to a prompt.
    pub(crate) fn reader(&self, prompt: &str, tools: &[&Tool], think: bool) -> Reader {
        let tags = self.think_tags.clone().filter(|_| think);
        let begun =
            tags.as_ref().is_some_and(|(open, _)| prompt.trim_end().ends_with(open.as_str()));
        let names = tools.iter().map(|tool| tool.name.clone()).collect();
        Reader::new(tags, begun, self.call_tag.clone(), names)
    }

    fn render_turns(
        &self,
        messages: &[Message],
        think: Option<bool>,
    ) -> Result<String, TemplateError> {
        let mut rendered = String::new();
        let mut turn = Turn::default();
        for message in messages {
            let text = message.content.clone();
            match message.role {
                Role::System if turn.has_prompt_or_response() => {
                    rendered += &Self::turn(&self.template, turn, think)?;
                    turn = Turn { system: text, ..Turn::default() };
                }
                Role::System => turn.system = text,
                Role::User if !turn.response.is_empty() => {
                    rendered += &Self::turn(&self.template, turn, think)?;
                    turn = Turn { prompt: text, ..Turn::default() };
                }
                Role::User => turn.prompt = text,
                Role::Assistant => turn.response = text,
                Role::Tool => {}
            }
        }
        rendered += &Self::turn(&self.up_to_response, turn, think)?;
        Ok(rendered)
    }

    fn turn(template: &Template, turn: Turn, think: Option<bool>) -> Result<String, TemplateError> {
        let mut data = Self::data(think);
        data.insert("System".into(), turn.system.into());
        data.insert("Prompt".into(), turn.prompt.into());
        data.insert("Response".into(), turn.response.into());
        template.render(&data.into())
    }

    fn data(think: Option<bool>) -> Map {
        let level = if think == Some(true) { "medium" } else { "" };
        Map::from([
            ("Think".into(), think.unwrap_or(false).into()),
            ("ThinkLevel".into(), level.into()),
            ("IsThinkSet".into(), think.is_some().into()),
        ])
    }
}

#[derive(Default)]
struct Turn {
    system: String,
    prompt: String,
    response: String,
}

impl Turn {
    fn has_prompt_or_response(&self) -> bool {
        !self.prompt.is_empty() || !self.response.is_empty()
    }
}

/// All system messages as one text, and all messages, those of one role that follow each other joined. Results of tools stay
/// apart.
fn collate(messages: &[&Message]) -> (String, Vec<Message>) {
    let mut joined: Vec<Message> = Vec::new();
    for message in messages {
        match joined.last_mut() {
            Some(last) if last.role == message.role && message.role != Role::Tool => {
                last.content += "\n\n";
                last.content += &message.content;
                last.tool_calls.extend(message.tool_calls.iter().cloned());
                if let Some(reasoning) = &message.reasoning {
                    let all = last.reasoning.get_or_insert_default();
                    *all += reasoning;
                }
            }
            _ => joined.push((*message).clone()),
        }
    }
    let system = messages.iter().filter(|message| message.role == Role::System);
    let system: Vec<&str> = system.map(|message| message.content.as_str()).collect();
    (system.join("\n\n"), joined)
}

/// What Ollama adds to Go's functions.
fn functions() -> Functions {
    let date = |day: fn(Date) -> Option<Date>| {
        move |args: &[Value]| {
            if !args.iter().all(|arg| matches!(arg, Value::Text(_))) {
                return Err("a format is a text".to_string());
            }
            let date = day(Zoned::now().date()).ok_or("there is no such day")?;
            Ok(date.to_string().into())
        }
    };
    Functions::default()
        .with("json", (1, 1), |args| Ok(to_json(&args[0]).into()))
        .with("currentDate", (0, usize::MAX), date(Some))
        .with("yesterdayDate", (0, usize::MAX), date(|today| today.yesterday().ok()))
        .with("toTypeScriptType", (1, 1), |args| Ok(values::typescript_type(&args[0]).into()))
}

#[cfg(test)]
mod tests;
