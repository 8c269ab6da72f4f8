//! One answer: ask, show it as it comes, and say how it ended. `ctl run` and `ctl chat` both are this.
//!
//! For a person the text goes to stdout piece by piece; what a reasoning model thinks is dim, and absent where stdout is no
//! terminal. With `--json` each event is one line, as it came. Nothing of the answer is changed, except that a terminal gets
//! no control characters, and lines that end between words.

use crate::error::CtlError;
use crate::format::{percent, seconds};
use crate::output::{Out, printable};
use crate::session::Session;
use crate::status_line::{DELAY, StatusLine};
use crate::wire::chat_event;
use crate::wrap::Wrap;
use hearth_protocol::{
    ChatParams, ChatReply, ChatSend, ErrorKind, Event, FinishReason, RpcError, Usage,
};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Debug)]
pub(crate) struct Answer {
    /// What came, also when it was cut short.
    pub(crate) text: String,
    pub(crate) ending: Ending,
}

#[derive(Debug)]
pub(crate) enum Ending {
    Done(Box<ChatReply>),
    /// The person pressed Ctrl-C.
    Stopped,
    /// The daemon ended it with an error.
    Failed(RpcError),
    /// The connection broke after the answer had begun.
    Broken,
}

/// A name for a request that no other running request of this user has.
pub(crate) fn request_name() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let n = COUNTER.fetch_add(1, Ordering::Relaxed);
    // Processes in two containers may have one user and one process id, but not also one nanosecond.
    let ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
    format!("ctl-{}-{n}-{ns}", std::process::id())
}

/// What the first Ctrl-C does while the model thinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hurry {
    /// It lets it answer.
    Answer,
    /// It ends the request, as at any other time.
    End,
}

/// Asks and shows. An error means that there was no answer at all; [`Ending`] has the rest.
pub(crate) fn ask(
    out: &Out,
    session: &mut Session,
    params: &ChatParams,
    hurry: Hurry,
) -> Result<Answer, CtlError> {
    let mut view = View::new(out);
    let mut ending = None;
    let mut text = String::new();
    let mut begun = false;
    let result = session.stream::<ChatSend>(params, params.request.as_deref(), |value, watch| {
        begun = true;
        if out.is_json() {
            out.json_line(&value)?;
        }
        let Some(event) = chat_event(&value)? else { return Ok(()) };
        if !out.is_json() {
            view.show(&event)?;
        }
        match event {
            Event::Accepted { .. } => watch.accepted(),
            Event::Reasoning { .. } => watch.thinks(hurry == Hurry::Answer),
            Event::Delta { candidate: 0, text: piece, .. } => {
                watch.thinks(false);
                text.push_str(&piece);
            }
            Event::Done { reply } => ending = Some(Ending::Done(Box::new(reply))),
            Event::Error { error } => ending = Some(Ending::Failed(error)),
            _ => {}
        }
        Ok(())
    });
    view.end()?;
    let ending = match (result, ending) {
        (Ok(()), Some(Ending::Failed(error)))
            if session.interrupted() && error.kind() == Some(ErrorKind::Cancelled) =>
        {
            Ending::Stopped
        }
        (Ok(()), Some(ending)) => ending,
        (Err(CtlError::Interrupted), _) => Ending::Stopped,
        (Err(CtlError::Disconnected), _) if begun => Ending::Broken,
        (Err(error), _) => return Err(error),
        // `stream` ends well only after a terminal event, which set `ending`.
        (Ok(()), None) => return Err(CtlError::Disconnected),
    };
    Ok(Answer { text, ending })
}

/// What a person should know about a complete answer: what was left out, that it was cut, and with `--verbose` what it cost.
pub(crate) fn afterword(out: &Out, reply: &ChatReply, verbose: bool) {
    if let Some(text) = left_out(&reply.usage) {
        out.note(&text);
    }
    match reply.finish {
        FinishReason::MaxTokens => {
            let n = tokens(reply.usage.completion_tokens);
            out.note(&format!("[cut after {n}, the limit set]"));
        }
        FinishReason::ContextFull => out.note("[cut: the model's context is full]"),
        FinishReason::End | FinishReason::Stop | FinishReason::ToolCalls => {}
    }
    if verbose {
        out.note(&costs(reply));
    }
}

fn left_out(usage: &Usage) -> Option<String> {
    let messages = match usage.dropped_messages {
        0 => None,
        1 => Some("the oldest message was left out".to_owned()),
        n => Some(format!("the oldest {n} messages were left out")),
    };
    let shifted = match usage.shifted_tokens {
        0 => None,
        n => Some(format!("{} left the full context", tokens(n))),
    };
    let parts: Vec<String> = messages.into_iter().chain(shifted).collect();
    (!parts.is_empty()).then(|| format!("[{}]", parts.join(", and ")))
}

fn costs(reply: &ChatReply) -> String {
    let (usage, timings) = (&reply.usage, &reply.timings);
    let mut parts =
        vec![format!("{} in {}", tokens(usage.completion_tokens), seconds(timings.decode_us))];
    // The time is from the first token to the last, so it is that of one token fewer.
    if usage.completion_tokens > 1 && timings.decode_us > 0 {
        let per_s = f64::from(usage.completion_tokens - 1) / (timings.decode_us as f64 / 1e6);
        parts.push(format!("{per_s:.1} tokens/s"));
    }
    let reused = match usage.cached_tokens {
        0 => String::new(),
        n => format!(" ({n} reused)"),
    };
    parts.push(format!(
        "prompt {}{reused} in {}",
        tokens(usage.prompt_tokens),
        seconds(timings.prefill_us)
    ));
    for (what, us) in [("loading", timings.load_us), ("waiting", timings.queue_us)] {
        // Below 10 ms both would read 0.00 or 0.01 s and tell nothing.
        if us >= 10_000 {
            parts.push(format!("{what} {}", seconds(us)));
        }
    }
    parts.join(" · ")
}

fn queued(place: u32, wait_ms: Option<u64>) -> String {
    let place = match place {
        0 | 1 => "next in the queue".into(),
        n => format!("place {n} in the queue"),
    };
    match wait_ms {
        Some(wait_ms) if wait_ms >= 1000 => format!("{place}, about {} s", wait_ms.div_ceil(1000)),
        _ => place,
    }
}

fn tokens(n: u32) -> String {
    format!("{n} token{}", if n == 1 { "" } else { "s" })
}

/// How an answer looks while it comes.
#[derive(Debug)]
struct View<'a> {
    out: &'a Out,
    status: StatusLine,
    part: Part,
    /// Whether the cursor is at the start of a line.
    at_line_start: bool,
    wrap: Wrap,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Waiting,
    Reasoning,
    Text,
}

impl<'a> View<'a> {
    fn new(out: &'a Out) -> Self {
        let status = StatusLine::start(out, DELAY, "waiting for the daemon");
        Self { out, status, part: Part::Waiting, at_line_start: true, wrap: Wrap::default() }
    }

    fn show(&mut self, event: &Event<ChatReply>) -> Result<(), CtlError> {
        match event {
            Event::Accepted { .. } => self.status.set("waiting for the model"),
            Event::Loading { fraction } => {
                self.status.set(format!("loading the model, {}", percent(*fraction)));
            }
            Event::Queued { place, wait_ms } => self.status.set(queued(*place, *wait_ms)),
            Event::Prefill { done, total, .. } => {
                self.status.set(format!("reading the prompt, {done} of {total} tokens"));
            }
            Event::Reasoning { candidate: 0, text, .. } => {
                if self.out.stdout_is_terminal() {
                    self.enter(Part::Reasoning)?;
                    self.print(text)?;
                } else {
                    self.status.set("thinking");
                }
            }
            Event::Delta { candidate: 0, text, .. } => {
                self.enter(Part::Text)?;
                self.print(text)?;
            }
            // Told as a whole.
            Event::ToolCallDelta { .. } => {}
            Event::ToolCall { candidate: 0, call } => {
                self.enter(Part::Text)?;
                self.print(&format!("[calls `{}` with {}]", call.name, call.arguments))?;
            }
            // The others are shown when they are complete.
            Event::Reasoning { .. } | Event::Delta { .. } | Event::ToolCall { .. } => {}
            Event::Done { .. } | Event::Error { .. } => self.status.finish(),
        }
        Ok(())
    }

    /// Reasoning and text are told apart by brightness, and without colour by words.
    fn enter(&mut self, part: Part) -> Result<(), CtlError> {
        if self.part == part {
            return Ok(());
        }
        self.status.finish();
        let left = std::mem::replace(&mut self.part, part);
        let colour = self.out.colour_on_stdout();
        if left == Part::Reasoning {
            self.out.write(if colour { "\x1b[0m" } else { "" })?;
            self.new_line()?;
            self.out.write(if colour { "\n" } else { "[answer]\n" })?;
        }
        if part == Part::Reasoning {
            self.out.write(if colour { "\x1b[2m" } else { "[thinking]\n" })?;
        }
        Ok(())
    }

    fn print(&mut self, text: &str) -> Result<(), CtlError> {
        if let Some(last) = text.chars().last() {
            self.at_line_start = last == '\n';
        }
        if !self.out.stdout_is_terminal() {
            return self.out.write(text);
        }
        let text = printable(text);
        match crossterm::terminal::size() {
            Ok((columns @ 1.., _)) if !self.out.is_dumb() => {
                self.out.write(&self.wrap.push(&text, usize::from(columns)))
            }
            _ => self.out.write(&text),
        }
    }

    fn new_line(&mut self) -> Result<(), CtlError> {
        if !self.at_line_start {
            self.at_line_start = true;
            self.wrap = Wrap::default();
            self.out.write("\n")?;
        }
        Ok(())
    }

    /// Whatever follows begins on a line of its own, in the usual colour.
    fn end(mut self) -> Result<(), CtlError> {
        self.status.finish();
        if self.part == Part::Reasoning && self.out.colour_on_stdout() {
            self.out.write("\x1b[0m")?;
        }
        self.new_line()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_protocol::{Message, Role, Timings};

    #[test]
    fn costs_in_words() {
        let mut reply = ChatReply {
            request: "r".into(),
            message: Message::text(Role::Assistant, ""),
            finish: FinishReason::End,
            stop: None,
            usage: Usage {
                prompt_tokens: 30,
                cached_tokens: 20,
                completion_tokens: 43,
                ..Usage::default()
            },
            timings: Timings {
                load_us: 210_000,
                queue_us: 9_000,
                prefill_us: 50_000,
                decode_us: 810_000,
            },
            logprobs: Vec::new(),
            others: Vec::new(),
        };
        assert_eq!(
            costs(&reply),
            "43 tokens in 0.81 s · 51.9 tokens/s · prompt 30 tokens (20 reused) in 0.05 s · loading 0.21 s"
        );
        reply.usage = Usage { prompt_tokens: 1, ..Usage::default() };
        reply.timings = Timings::default();
        assert_eq!(costs(&reply), "0 tokens in 0.00 s · prompt 1 token in 0.00 s");
    }

    #[test]
    fn what_was_left_out_in_words() {
        assert_eq!(left_out(&Usage::default()), None);
        let usage = |dropped_messages, shifted_tokens| Usage {
            dropped_messages,
            shifted_tokens,
            ..Usage::default()
        };
        for (usage, words) in [
            (usage(1, 0), "[the oldest message was left out]"),
            (
                usage(4, 1),
                "[the oldest 4 messages were left out, and 1 token left the full context]",
            ),
            (usage(0, 9), "[9 tokens left the full context]"),
        ] {
            assert_eq!(left_out(&usage).as_deref(), Some(words));
        }
    }

    #[test]
    fn request_names_differ() {
        assert_ne!(request_name(), request_name());
    }
}
