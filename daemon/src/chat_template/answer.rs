//! Reading answers by the texts that a Go template has around thoughts and before tool calls.
//!
//! An answer is read anew as it grows, and what a reading says is never taken back: what may still become a tag is held back.
//! Text that looked like a call and is none is content; nothing is lost.

use serde_json::Value;

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Parsed {
    pub(crate) content: String,
    pub(crate) reasoning: String,
    pub(crate) tool_calls: Vec<ParsedCall>,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub(crate) struct ParsedCall {
    #[serde(default)]
    pub(crate) id: String,
    pub(crate) name: String,
    /// JSON.
    #[serde(default)]
    pub(crate) arguments: String,
}

/// Reads the answer to one prompt.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    think_tags: Option<(String, String)>,
    /// The prompt ends with the first of them.
    begun: bool,
    call_tag: String,
    /// Of the tools that may be called; without any, no calls are looked for.
    tools: Vec<String>,
}

impl Reader {
    pub(super) fn new(
        think_tags: Option<(String, String)>,
        begun: bool,
        call_tag: String,
        tools: Vec<String>,
    ) -> Self {
        Self { think_tags, begun, call_tag, tools }
    }

    /// The texts around thoughts, where there may be any; the first is empty if the prompt ends with it.
    pub(crate) fn think_tags(&self) -> Option<(&str, &str)> {
        let (open, close) = self.think_tags.as_ref()?;
        Some((if self.begun { "" } else { open }, close))
    }

    /// Texts that have to be seen even where tokens of the vocabulary stand for them.
    pub(crate) fn tags(&self) -> impl Iterator<Item = &str> {
        let thinking = self.think_tags.iter().flat_map(|(open, close)| [open.as_str(), close]);
        thinking.chain((!self.tools.is_empty()).then_some(self.call_tag.as_str()))
    }

    /// The answer is all content, whatever it is.
    pub(crate) fn is_plain(&self) -> bool {
        self.think_tags.is_none() && self.tools.is_empty()
    }

    /// Reads an answer, or the beginning of one.
    pub(crate) fn read(&self, text: &str, partial: bool) -> Parsed {
        let (reasoning, rest) = self.split_thoughts(text, partial);
        let mut parsed = self.split_calls(rest, partial);
        parsed.reasoning = reasoning.into();
        parsed
    }

    fn split_thoughts<'a>(&self, text: &'a str, partial: bool) -> (&'a str, &'a str) {
        let Some((open, close)) = &self.think_tags else { return ("", text) };
        let start = text.trim_start();
        let thoughts = match start.strip_prefix(open.as_str()) {
            Some(thoughts) => thoughts,
            None if self.begun => start,
            None if partial && open.starts_with(start) => return ("", ""),
            None => return ("", text),
        };
        let thoughts = thoughts.trim_start();
        match thoughts.split_once(close.as_str()) {
            Some((thoughts, answer)) => (thoughts.trim_end(), answer.trim_start()),
            None if partial => (without_begun(thoughts, close).trim_end(), ""),
            None => (thoughts.trim_end(), ""),
        }
    }

    fn split_calls(&self, text: &str, partial: bool) -> Parsed {
        let content = |content: &str| Parsed { content: content.into(), ..Parsed::default() };
        if self.tools.is_empty() {
            return content(text);
        }
        let Some(start) = self.call_start(text) else {
            return content(if partial {
                without_begun(text, &self.call_tag).trim_end()
            } else {
                text
            });
        };
        let before = text[..start].trim_end();
        let calls = if partial { Vec::new() } else { self.calls(&text[start..]) };
        if calls.is_empty() && !partial {
            return content(text);
        }
        Parsed { tool_calls: calls, ..content(before) }
    }

    /// Where the tag is. Braces are in many answers, so one that is the whole tag has to begin a line.
    fn call_start(&self, text: &str) -> Option<usize> {
        let is_bracket = matches!(self.call_tag.as_str(), "{" | "[");
        let mut found = text.match_indices(self.call_tag.as_str()).map(|(start, _)| start);
        found.find(|start| {
            !is_bracket || text[..*start].is_empty() || text[..*start].ends_with('\n')
        })
    }

    /// Every call in a text: objects that name a tool, and objects after a tool's name.
    fn calls(&self, text: &str) -> Vec<ParsedCall> {
        let mut calls = Vec::new();
        // Where the last object ended, and from where the next may begin.
        let (mut after, mut at) = (0, 0);
        while let Some(start) = text[at..].find(['{', '[']).map(|start| at + start) {
            let mut values =
                serde_json::Deserializer::from_str(&text[start..]).into_iter::<Value>();
            let Some(Ok(value)) = values.next() else {
                at = start + 1;
                continue;
            };
            let between = &text[after..start];
            at = start + values.byte_offset();
            after = at;
            match value {
                Value::Array(items) => {
                    calls.extend(items.iter().filter_map(|item| self.call(item)));
                }
                value => calls.extend(self.call(&value).or_else(|| {
                    let named = |name: &&String| between.contains(name.as_str());
                    let name = self.tools.iter().filter(named).max_by_key(|name| name.len())?;
                    Some(call(name, &value))
                })),
            }
        }
        calls
    }

    fn call(&self, value: &Value) -> Option<ParsedCall> {
        let value = value.get("function").filter(|inner| inner.is_object()).unwrap_or(value);
        let name = ["name", "tool_name", "function"].iter().find_map(|key| value[key].as_str())?;
        let arguments = ["arguments", "parameters"].iter().find_map(|key| value.get(key));
        let known = self.tools.iter().any(|tool| tool == name);
        known.then(|| call(name, arguments.unwrap_or(&Value::Null)))
    }
}

fn call(name: &str, arguments: &Value) -> ParsedCall {
    let arguments = match arguments {
        Value::Null => "{}".into(),
        // Some models write the arguments as a text of JSON.
        Value::String(text) => text.clone(),
        arguments => arguments.to_string(),
    };
    ParsedCall { id: String::new(), name: name.into(), arguments }
}

/// The text without an end that may become `tag`.
fn without_begun<'a>(text: &'a str, tag: &str) -> &'a str {
    let begun = tag.char_indices().map(|(idx, _)| &tag[..idx]).rev();
    let begun = begun.filter(|begun| !begun.is_empty()).find(|begun| text.ends_with(begun));
    &text[..text.len() - begun.map_or(0, str::len)]
}
