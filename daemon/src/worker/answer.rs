//! One answer while it grows: its text, read in the model's own format where it has one, and what was asked about its tokens.

use super::frames::{Piece, WorkerEvent};
use super::parsing::Parsing;
use hearth_abi::host::Model;
use hearth_abi::raw::Token;
use hearth_engine::{Finish, Logprobs};
use hearth_protocol::{Logprob, Message, Role, TokenLogprob};
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
            Some(parsing) => parsing.finish(&text, &mut |event| out(tokens.label(event))),
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
        self.logprobs.push(told(&self.model, logprobs));
    }

    /// Says in an event which answer it is of, and with a piece of text what was asked about the tokens since the last one.
    fn label(&mut self, mut event: WorkerEvent) -> WorkerEvent {
        match &mut event {
            WorkerEvent::Delta(piece) | WorkerEvent::Reasoning(piece) => {
                piece.candidate = self.candidate;
                piece.logprobs = self.logprobs[self.n_told..].to_vec();
                self.n_told = self.logprobs.len();
            }
            WorkerEvent::ToolCallDelta { candidate, .. }
            | WorkerEvent::ToolCall { candidate, .. } => {
                *candidate = self.candidate;
            }
            _ => {}
        }
        event
    }
}

pub(super) fn told(model: &Model, logprobs: &Logprobs) -> Logprob {
    let told = |(token, logprob): (Token, f32)| {
        let bytes = model.token_piece(token, true).unwrap_or_default().into_vec();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        TokenLogprob { id: token, token: text, bytes, logprob }
    };
    Logprob {
        chosen: told((logprobs.token, logprobs.logprob)),
        top_logprobs: logprobs.likeliest.iter().copied().map(told).collect(),
    }
}
