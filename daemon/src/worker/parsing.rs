//! Reads an answer in the model's own format while it grows: what of it is reasoning, content or a tool call.

use super::frames::{Piece, WorkerEvent};
use crate::chat_template::{Parsed, Reader};
use hearth_abi::host::Model;
use hearth_protocol::{Message, Role, ToolCall, ToolCallDelta};
use std::sync::Arc;

/// How the answers to one prompt are read.
#[derive(Clone)]
pub(super) enum Reading {
    /// By `hearth.chat/1`, which made the prompt.
    Plugin {
        model: Arc<Model>,
        parser: String,
    },
    Tags(Reader),
}

impl Reading {
    fn read(&self, text: &str, partial: bool) -> Option<Parsed> {
        match self {
            Self::Plugin { model, parser } => {
                let message = model.chat_parse(parser, text, partial).ok()?;
                serde_json::from_str(&message).ok()
            }
            Self::Tags(reader) => Some(reader.read(text, partial)),
        }
    }
}

/// One answer's reader, and what it has told.
pub(super) struct Parsing {
    reading: Reading,
    /// Ids are made from it; another one for each request.
    seed: u64,
    content: String,
    reasoning: String,
    calls: Vec<ToolCall>,
}

impl Parsing {
    pub(super) fn new(reading: Reading, seed: u64) -> Self {
        let (content, reasoning) = (String::new(), String::new());
        Self { reading, seed, content, reasoning, calls: Vec::new() }
    }

    /// Takes the whole text so far.
    pub(super) fn take(&mut self, text: &str, out: &mut dyn FnMut(WorkerEvent)) {
        // What cannot be read yet is read with the next piece, or at the end.
        if let Some(parsed) = self.reading.read(text, true) {
            self.emit(&parsed, out);
        }
    }

    /// Emits what is new. A partial reading that takes back what it said before is passed over.
    fn emit(&mut self, parsed: &Parsed, out: &mut dyn FnMut(WorkerEvent)) {
        if let Some(new) = news(&parsed.reasoning, &mut self.reasoning) {
            out(WorkerEvent::Reasoning(Piece::new(0, new)));
        }
        if let Some(new) = news(&parsed.content, &mut self.content) {
            out(WorkerEvent::Delta(Piece::new(0, new)));
        }
        for (index, call) in (0..).zip(&parsed.tool_calls) {
            let is_first = index == self.calls.len();
            if is_first {
                let id =
                    if call.id.is_empty() { made_id(self.seed, index) } else { call.id.clone() };
                self.calls.push(ToolCall { id, name: call.name.clone(), arguments: String::new() });
            }
            let told = &mut self.calls[index];
            let new = news(&call.arguments, &mut told.arguments);
            if is_first || new.is_some() {
                let delta = ToolCallDelta {
                    index: u32::try_from(index).unwrap_or(u32::MAX),
                    id: told.id.clone(),
                    name: told.name.clone(),
                    arguments: new.unwrap_or_default().to_owned(),
                };
                out(WorkerEvent::ToolCallDelta { candidate: 0, delta });
            }
        }
    }

    /// Takes the whole text, and answers the message that it is.
    pub(super) fn finish(mut self, text: &str, out: &mut dyn FnMut(WorkerEvent)) -> Message {
        let parsed = self
            .reading
            .read(text, false)
            .filter(|parsed| {
                parsed.reasoning.starts_with(&self.reasoning)
                    && parsed.content.starts_with(&self.content)
            })
            .unwrap_or_else(|| self.as_told(text));
        self.emit(&parsed, out);
        let mut message = Message::text(Role::Assistant, parsed.content);
        message.reasoning = Some(parsed.reasoning).filter(|reasoning| !reasoning.is_empty());
        for (call, told) in parsed.tool_calls.into_iter().zip(self.calls) {
            let call = ToolCall { id: told.id, name: call.name, arguments: call.arguments };
            out(WorkerEvent::ToolCall { candidate: 0, call: call.clone() });
            message.tool_calls.push(call);
        }
        message
    }

    /// An answer that in the end does not follow its format: what was told of it stays, and the rest is content.
    fn as_told(&self, text: &str) -> Parsed {
        let behind = |text: &str, part: &str| text.find(part).map(|at| at + part.len());
        let rest = behind(text, &self.reasoning)
            .and_then(|at| Some(at + behind(&text[at..], &self.content)?))
            .map_or(text, |at| &text[at..]);
        let content = self.content.clone() + rest;
        Parsed { content, reasoning: self.reasoning.clone(), tool_calls: Vec::new() }
    }
}

/// What `now` has behind what was told, which is told with that.
fn news<'a>(now: &'a str, told: &mut String) -> Option<&'a str> {
    let new = now.strip_prefix(told.as_str()).filter(|new| !new.is_empty())?;
    told.push_str(new);
    Some(new)
}

/// Nine letters and digits, which is the one form that every template takes (Mistral's refuse any other).
fn made_id(seed: u64, index: usize) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut rest = seed.wrapping_add(index as u64);
    let digit = |_| {
        let digit = char::from(DIGITS[(rest % 36) as usize]);
        rest /= 36;
        digit
    };
    (0..9).map(digit).collect()
}
