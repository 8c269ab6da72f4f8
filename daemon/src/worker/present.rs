//! From engine events to frames: collects each answer, separates reasoning and tool calls where the model's format has
//! them, and writes. Frames that are ready at the same time go out in one write.

use super::frames::{self, FromWorker, Piece, Reply, WorkerEvent};
use super::parsing::Parsing;
use hearth_abi::host::Model;
use hearth_abi::raw::Token;
use hearth_engine::{Finish, Logprobs};
use hearth_protocol::{
    ChatReply, FinishReason, GenerateReply, Logprob, Message, Role, RpcError, Timings,
    TokenLogprob, Usage,
};
use std::collections::HashMap;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

/// Something to tell the daemon. `Begin` comes before anything else of an answer.
pub(super) enum Present {
    Begin {
        id: u64,
        answer: Answer,
    },
    Queued {
        id: u64,
        place: u32,
        wait: Option<Duration>,
    },
    Prefill {
        id: u64,
        done: u32,
        total: u32,
    },
    Logprobs {
        id: u64,
        logprobs: Logprobs,
    },
    Text {
        id: u64,
        text: String,
    },
    Done {
        id: u64,
        finish: Finish,
    },
    Failed {
        id: u64,
        error: RpcError,
    },
    Reply {
        id: u64,
        reply: Box<Reply>,
    },
    Frame(Box<FromWorker>),
    /// Says when everything before it is written.
    Flush(Sender<()>),
}

pub(super) fn run(events: &Receiver<Present>, mut stream: UnixStream) {
    let mut answers = HashMap::new();
    let mut buffer = Vec::new();
    while let Ok(first) = events.recv() {
        buffer.clear();
        let mut next = Some(first);
        let mut flushed = Vec::new();
        while let Some(event) = next {
            match event {
                Present::Flush(done) => flushed.push(done),
                event => present(event, &mut answers, &mut |frame| {
                    let _ = frames::encode(frame, &mut buffer);
                }),
            }
            next = events.try_recv().ok();
        }
        let _ = stream.write_all(&buffer);
        for done in flushed {
            let _ = done.send(());
        }
    }
    // The engine thread is gone without a word: the daemon must not wait for it.
    buffer.clear();
    let last = FromWorker::Fatal { message: "the engine thread ended".into() };
    let _ = frames::encode(&last, &mut buffer);
    let _ = stream.write_all(&buffer);
}

fn present(event: Present, answers: &mut HashMap<u64, Answer>, out: &mut dyn FnMut(&FromWorker)) {
    match event {
        Present::Begin { id, answer } => drop(answers.insert(id, answer)),
        Present::Queued { id, place, wait } => {
            let wait_ms = wait.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
            out(&FromWorker::Event { id, event: WorkerEvent::Queued { place, wait_ms } })
        }
        Present::Prefill { id, done, total } => {
            out(&FromWorker::Event { id, event: WorkerEvent::Prefill { done, total } });
        }
        Present::Logprobs { id, logprobs } => {
            if let Some(answer) = answers.get_mut(&id) {
                answer.take_logprobs(&logprobs);
            }
        }
        Present::Text { id, text } => {
            if let Some(answer) = answers.get_mut(&id) {
                answer.take(&text, &mut |event| out(&FromWorker::Event { id, event }));
            }
        }
        Present::Done { id, finish } => {
            if let Some(answer) = answers.remove(&id) {
                answer.finish(finish, &mut |event| out(&FromWorker::Event { id, event }));
            }
        }
        Present::Failed { id, error } => {
            answers.remove(&id);
            out(&FromWorker::Event { id, event: WorkerEvent::Failed(error) });
        }
        Present::Reply { id, reply } => {
            out(&FromWorker::Event { id, event: WorkerEvent::Done(reply) })
        }
        Present::Frame(frame) => out(&frame),
        Present::Flush(_) => {}
    }
}

/// One answer while it grows.
pub(super) struct Answer {
    model: Arc<Model>,
    text: String,
    chat: bool,
    parsing: Option<Parsing>,
    logprobs: Vec<Logprob>,
    /// How many of them went out with a piece of text.
    n_told: usize,
}

impl Answer {
    pub(super) fn chat(model: &Arc<Model>, parsing: Option<Parsing>) -> Self {
        Self { chat: true, parsing, ..Self::generate(model) }
    }

    pub(super) fn generate(model: &Arc<Model>) -> Self {
        Self {
            model: Arc::clone(model),
            text: String::new(),
            chat: false,
            parsing: None,
            logprobs: Vec::new(),
            n_told: 0,
        }
    }

    fn take_logprobs(&mut self, logprobs: &Logprobs) {
        let told = |(token, logprob): (Token, f32)| {
            let bytes = self.model.token_piece(token, true).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            TokenLogprob { id: token, token: text, bytes, logprob }
        };
        self.logprobs.push(Logprob {
            chosen: told((logprobs.token, logprobs.logprob)),
            top_logprobs: logprobs.likeliest.iter().copied().map(told).collect(),
        });
    }

    fn take(&mut self, text: &str, out: &mut dyn FnMut(WorkerEvent)) {
        self.text.push_str(text);
        let Self { logprobs, n_told, .. } = self;
        let mut out = |event| out(with_logprobs(event, logprobs, n_told));
        match &mut self.parsing {
            None => out(WorkerEvent::Delta(Piece::text(text))),
            Some(parsing) => parsing.take(&self.text, &mut out),
        }
    }

    fn finish(mut self, finish: Finish, out: &mut dyn FnMut(WorkerEvent)) {
        let usage = Usage {
            prompt_tokens: finish.n_prompt,
            cached_tokens: finish.n_cached,
            completion_tokens: finish.n_generated,
            guessed_tokens: finish.n_accepted,
        };
        let timings = Timings {
            load_us: 0,
            queue_us: finish.queue_us,
            prefill_us: finish.prefill_us,
            decode_us: finish.decode_us,
        };
        let mut reason = match finish.reason {
            hearth_engine::FinishReason::End => FinishReason::End,
            hearth_engine::FinishReason::Stop => FinishReason::Stop,
            hearth_engine::FinishReason::MaxTokens => FinishReason::MaxTokens,
            hearth_engine::FinishReason::ContextFull => FinishReason::ContextFull,
        };
        let request = String::new();
        if !self.chat {
            let logprobs = self.logprobs;
            let text = self.text;
            let reply = GenerateReply { request, text, finish: reason, usage, timings, logprobs };
            return out(WorkerEvent::Done(Box::new(Reply::Generate(reply))));
        }
        let message = match self.parsing {
            None => Message::text(Role::Assistant, self.text),
            Some(parsing) => parsing.finish(&self.text, &mut |event| {
                out(with_logprobs(event, &self.logprobs, &mut self.n_told));
            }),
        };
        let is_cut = matches!(reason, FinishReason::MaxTokens | FinishReason::ContextFull);
        if !message.tool_calls.is_empty() && !is_cut {
            reason = FinishReason::ToolCalls;
        }
        let logprobs = self.logprobs;
        let reply = ChatReply { request, message, finish: reason, usage, timings, logprobs };
        out(WorkerEvent::Done(Box::new(Reply::Chat(reply))));
    }
}

/// Adds to a piece of text what was asked about the tokens since the last one.
fn with_logprobs(mut event: WorkerEvent, all: &[Logprob], n_told: &mut usize) -> WorkerEvent {
    if let WorkerEvent::Delta(piece) | WorkerEvent::Reasoning(piece) = &mut event {
        piece.logprobs = all[*n_told..].to_vec();
        *n_told = all.len();
    }
    event
}
