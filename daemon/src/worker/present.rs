//! From engine events to frames: collects the answers to each request, makes its reply when the last is complete, and
//! writes. Frames that are ready at the same time go out in one write.

use super::answer::{Answer, Complete};
use super::fit::Dropped;
use super::frames::{self, FromWorker, Reply, WorkerEvent};
use hearth_engine::{Finish, Logprobs};
use hearth_protocol::{
    ChatAnswer, ChatReply, Continuation, FinishReason, GenerateReply, RpcError, Timings, Usage,
};
use std::collections::HashMap;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

/// Something to tell the daemon. `Begin` comes before anything else of an answer.
pub(super) enum Present {
    Begin {
        id: u64,
        answers: Answers,
    },
    Queued {
        id: u64,
        place: u32,
        wait: Option<Duration>,
    },
    Prefill {
        id: u64,
        done: u32,
        cached: u32,
        total: u32,
    },
    Logprobs {
        id: u64,
        candidate: u32,
        logprobs: Logprobs,
    },
    Text {
        id: u64,
        candidate: u32,
        text: String,
    },
    Done {
        id: u64,
        candidate: u32,
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
    let mut open = HashMap::new();
    let mut buffer = Vec::new();
    while let Ok(first) = events.recv() {
        buffer.clear();
        let mut next = Some(first);
        let mut flushed = Vec::new();
        while let Some(event) = next {
            match event {
                Present::Flush(done) => flushed.push(done),
                event => present(event, &mut open, &mut |frame| {
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

fn present(event: Present, open: &mut HashMap<u64, Answers>, out: &mut dyn FnMut(&FromWorker)) {
    match event {
        Present::Begin { id, answers } => drop(open.insert(id, answers)),
        Present::Queued { id, place, wait } => {
            let wait_ms = wait.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
            out(&FromWorker::Event { id, event: WorkerEvent::Queued { place, wait_ms } })
        }
        Present::Prefill { id, done, cached, total } => {
            out(&FromWorker::Event { id, event: WorkerEvent::Prefill { done, cached, total } });
        }
        Present::Logprobs { id, candidate, logprobs } => {
            if let Some(answer) = open.get_mut(&id).and_then(|all| all.growing(candidate)) {
                answer.take_logprobs(&logprobs);
            }
        }
        Present::Text { id, candidate, text } => {
            if let Some(answer) = open.get_mut(&id).and_then(|all| all.growing(candidate)) {
                answer.take(&text, &mut |event| out(&FromWorker::Event { id, event }));
            }
        }
        Present::Done { id, candidate, finish } => {
            let mut out = |event| out(&FromWorker::Event { id, event });
            let reply = open.get_mut(&id).and_then(|all| all.finish(candidate, finish, &mut out));
            if let Some(reply) = reply {
                open.remove(&id);
                out(WorkerEvent::Done(Box::new(reply)));
            }
        }
        Present::Failed { id, error } => {
            open.remove(&id);
            out(&FromWorker::Event { id, event: WorkerEvent::Failed(error) });
        }
        Present::Reply { id, reply } => {
            out(&FromWorker::Event { id, event: WorkerEvent::Done(reply) })
        }
        Present::Frame(frame) => out(&frame),
        Present::Flush(_) => {}
    }
}

/// The answers to one request.
pub(super) struct Answers {
    is_chat: bool,
    growing: Vec<Option<Answer>>,
    complete: Vec<Complete>,
    dropped: Dropped,
}

impl Answers {
    pub(super) fn new(is_chat: bool, answers: Vec<Answer>, dropped: Dropped) -> Self {
        let growing = answers.into_iter().map(Some).collect();
        Self { is_chat, growing, complete: Vec::new(), dropped }
    }

    fn growing(&mut self, candidate: u32) -> Option<&mut Answer> {
        self.growing.get_mut(candidate as usize)?.as_mut()
    }

    /// Ends one of them. Answers the reply if it was the last.
    fn finish(
        &mut self,
        candidate: u32,
        finish: Finish,
        out: &mut dyn FnMut(WorkerEvent),
    ) -> Option<Reply> {
        let answer = self.growing.get_mut(candidate as usize)?.take()?;
        self.complete.push(answer.finish(finish, out));
        if self.complete.len() < self.growing.len() {
            return None;
        }
        let mut all = std::mem::take(&mut self.complete);
        all.sort_by_key(|complete| complete.candidate);
        let (usage, timings) = (self.usage(&all), timings(&all));
        let (request, all) = (String::new(), all.into_iter());
        Some(if self.is_chat {
            let mut all = all.map(chat_answer);
            let ChatAnswer { message, finish, stop, logprobs } = all.next()?;
            let others = all.collect();
            Reply::Chat(ChatReply {
                request,
                message,
                finish,
                stop,
                usage,
                timings,
                logprobs,
                others,
            })
        } else {
            let mut all = all.map(continuation);
            let Continuation { text, finish, stop, logprobs } = all.next()?;
            let others = all.collect();
            Reply::Generate(GenerateReply {
                request,
                text,
                finish,
                stop,
                usage,
                timings,
                logprobs,
                others,
            })
        })
    }

    /// The prompt is the first one's: the others found it in memory.
    fn usage(&self, all: &[Complete]) -> Usage {
        let sum = |of: fn(&Finish) -> u32| all.iter().map(|complete| of(&complete.finish)).sum();
        let first = all.first().map(|complete| &complete.finish);
        Usage {
            prompt_tokens: first.map_or(0, |finish| finish.n_prompt),
            cached_tokens: first.map_or(0, |finish| finish.n_cached),
            completion_tokens: sum(|finish| finish.n_generated),
            guessed_tokens: sum(|finish| finish.n_accepted),
            dropped_messages: u32::try_from(self.dropped.n_messages).unwrap_or(u32::MAX),
            dropped_tokens: u32::try_from(self.dropped.n_tokens).unwrap_or(u32::MAX),
            shifted_tokens: sum(|finish| finish.n_shifted),
        }
    }
}

/// Of several answers, how long the first waited and the longest took.
fn timings(all: &[Complete]) -> Timings {
    let first = all.first().map(|complete| &complete.finish);
    Timings {
        load_us: 0,
        queue_us: first.map_or(0, |finish| finish.queue_us),
        prefill_us: first.map_or(0, |finish| finish.prefill_us),
        decode_us: all.iter().map(|complete| complete.finish.decode_us).max().unwrap_or(0),
    }
}

fn chat_answer(Complete { message, finish, logprobs, .. }: Complete) -> ChatAnswer {
    let reason = match reason(&finish) {
        // A call that was cut off is none.
        reason @ (FinishReason::MaxTokens | FinishReason::ContextFull) => reason,
        _ if !message.tool_calls.is_empty() => FinishReason::ToolCalls,
        reason => reason,
    };
    ChatAnswer { message, finish: reason, stop: finish.stop, logprobs }
}

fn continuation(Complete { message, finish, logprobs, .. }: Complete) -> Continuation {
    Continuation { text: message.content, finish: reason(&finish), stop: finish.stop, logprobs }
}

fn reason(finish: &Finish) -> FinishReason {
    match finish.reason {
        hearth_engine::FinishReason::End => FinishReason::End,
        hearth_engine::FinishReason::Stop => FinishReason::Stop,
        hearth_engine::FinishReason::MaxTokens => FinishReason::MaxTokens,
        hearth_engine::FinishReason::ContextFull => FinishReason::ContextFull,
    }
}
