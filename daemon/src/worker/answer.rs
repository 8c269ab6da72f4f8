//! One answer while it grows: its text, read in the model's own format where it has one, and what was asked about its tokens.

use super::frames::{Piece, WorkerEvent};
use hearth_abi::host::Model;
use hearth_abi::raw::Token;
use hearth_engine::{Finish, Logprobs};
use hearth_protocol::{Logprob, Message, Role, TokenLogprob, ToolCall};
use serde::Deserialize;
use std::sync::Arc;

pub(super) struct Answer {
    text: String,
    parsing: Option<Parsing>,
    tokens: Tokens,
}

/// An answer that grows no more.
pub(super) struct Complete {
    pub(super) candidate: u32,
    pub(super) message: Message,
    pub(super) finish: Finish,
    pub(super) logprobs: Vec<Logprob>,
}

impl Answer {
    pub(super) fn new(model: &Arc<Model>, candidate: u32, parsing: Option<Parsing>) -> Self {
        let tokens =
            Tokens { model: Arc::clone(model), candidate, logprobs: Vec::new(), n_told: 0 };
        Self { text: String::new(), parsing, tokens }
    }

    pub(super) fn take_logprobs(&mut self, logprobs: &Logprobs) {
        self.tokens.take(logprobs);
    }

    pub(super) fn take(&mut self, text: &str, out: &mut dyn FnMut(WorkerEvent)) {
        self.text.push_str(text);
        let mut out = |event| out(self.tokens.label(event));
        match &mut self.parsing {
            None => out(WorkerEvent::Delta(Piece::new(0, text))),
            Some(parsing) => parsing.take(&self.text, &mut out),
        }
    }

    pub(super) fn finish(self, finish: Finish, out: &mut dyn FnMut(WorkerEvent)) -> Complete {
        let Self { text, parsing, mut tokens } = self;
        let message = match parsing {
            None => Message::text(Role::Assistant, text),
            Some(parsing) => parsing.finish(text, &mut |event| out(tokens.label(event))),
        };
        Complete { candidate: tokens.candidate, message, finish, logprobs: tokens.logprobs }
    }
}

/// Which answer it is, and what was asked about its tokens.
struct Tokens {
    model: Arc<Model>,
    candidate: u32,
    logprobs: Vec<Logprob>,
    /// How many of them went out with a piece of text.
    n_told: usize,
}

impl Tokens {
    fn take(&mut self, logprobs: &Logprobs) {
        let told = |(token, logprob): (Token, f32)| {
            let bytes = self.model.token_piece(token, true).unwrap_or_default().into_vec();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            TokenLogprob { id: token, token: text, bytes, logprob }
        };
        let logprob = Logprob {
            chosen: told((logprobs.token, logprobs.logprob)),
            top_logprobs: logprobs.likeliest.iter().copied().map(told).collect(),
        };
        self.logprobs.push(logprob);
    }

    /// Says in an event which answer it is of, and with a piece of text what was asked about the tokens since the last one.
    fn label(&mut self, mut event: WorkerEvent) -> WorkerEvent {
        match &mut event {
            WorkerEvent::Delta(piece) | WorkerEvent::Reasoning(piece) => {
                piece.candidate = self.candidate;
                piece.logprobs = self.logprobs[self.n_told..].to_vec();
                self.n_told = self.logprobs.len();
            }
            WorkerEvent::ToolCall { candidate, .. } => *candidate = self.candidate,
            _ => {}
        }
        event
    }
}

/// Reads an answer in the model's own format, as it grows.
pub(super) struct Parsing {
    model: Arc<Model>,
    parser: String,
    /// What was emitted so far.
    content: String,
    reasoning: String,
}

/// What `hearth.chat/1` reads out of an answer.
#[derive(Deserialize, Default)]
struct Parsed {
    #[serde(default)]
    content: String,
    #[serde(default)]
    reasoning: String,
    #[serde(default)]
    tool_calls: Vec<ParsedCall>,
}

#[derive(Deserialize)]
struct ParsedCall {
    #[serde(default)]
    id: String,
    name: String,
    #[serde(default)]
    arguments: String,
}

impl Parsing {
    pub(super) fn new(model: Arc<Model>, parser: String) -> Self {
        Self { model, parser, content: String::new(), reasoning: String::new() }
    }

    fn parse(&self, text: &str, partial: bool) -> Option<Parsed> {
        let message = self.model.chat_parse(&self.parser, text, partial).ok()?;
        serde_json::from_str(&message).ok()
    }

    fn take(&mut self, text: &str, out: &mut dyn FnMut(WorkerEvent)) {
        // What cannot be read yet is read with the next piece, or at the end.
        if let Some(parsed) = self.parse(text, true) {
            self.emit(&parsed, out);
        }
    }

    /// Emits what is new. A partial reading that takes back what it said before is passed over.
    fn emit(&mut self, parsed: &Parsed, out: &mut dyn FnMut(WorkerEvent)) {
        if let Some(new) =
            parsed.reasoning.strip_prefix(self.reasoning.as_str()).filter(|new| !new.is_empty())
        {
            out(WorkerEvent::Reasoning(Piece::new(0, new)));
            self.reasoning.push_str(new);
        }
        if let Some(new) =
            parsed.content.strip_prefix(self.content.as_str()).filter(|new| !new.is_empty())
        {
            out(WorkerEvent::Delta(Piece::new(0, new)));
            self.content.push_str(new);
        }
    }

    fn finish(mut self, text: String, out: &mut dyn FnMut(WorkerEvent)) -> Message {
        // An answer that does not follow its format is content, all of it.
        let parsed =
            self.parse(&text, false).unwrap_or(Parsed { content: text, ..Parsed::default() });
        self.emit(&parsed, out);
        let calls = parsed.tool_calls.into_iter().enumerate().map(|(idx, call)| ToolCall {
            id: if call.id.is_empty() { format!("call_{idx}") } else { call.id },
            name: call.name,
            arguments: call.arguments,
        });
        let mut message = Message::text(Role::Assistant, parsed.content);
        message.reasoning = Some(parsed.reasoning).filter(|reasoning| !reasoning.is_empty());
        message.tool_calls = calls
            .inspect(|call| out(WorkerEvent::ToolCall { candidate: 0, call: call.clone() }))
            .collect();
        message
    }
}
