//! An answer as it grows: blocks of thoughts, text and tool calls, one after another.
//!
//! **Invariant.** A block is stopped before the next is started, and before the message ends; the last event is
//! `message_stop`, or `error`.

use super::messages::{Message, SIGNATURE};
use super::usage::{End, Usage};
use super::{Failure, error_event};
use crate::http::status_of;
use hearth_protocol::{ChatReply, Event};
use serde_json::{Value, json};
use std::io::Write;

pub(super) struct Stream {
    model: String,
    stops: Vec<String>,
    has_started: bool,
    /// The last one's place; -1 before the first.
    index: i32,
    open: Option<Block>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    Thinking,
    Text,
    /// By its place among the calls.
    ToolUse(u32),
}

impl Stream {
    pub(super) fn new(model: String, stops: Vec<String>) -> Self {
        Self { model, stops, has_started: false, index: -1, open: None }
    }

    pub(super) fn take(&mut self, event: Event<ChatReply>, out: &mut Vec<u8>) {
        match event {
            Event::Prefill { cached, total, .. } => {
                if !self.has_started {
                    self.has_started = true;
                    let usage = Usage::new(total, cached, 0);
                    let message = Message::new(self.model.clone(), Vec::new(), End::default(), usage);
                    write(json!({ "type": "message_start", "message": message }), out);
                }
                write(json!({ "type": "ping" }), out);
            }
            Event::Reasoning { text, .. } => {
                self.open(Block::Thinking, || json!({ "type": "thinking", "thinking": "", "signature": "" }), out);
                self.delta(json!({ "type": "thinking_delta", "thinking": text }), out);
            }
            Event::Delta { text, .. } => {
                self.open(Block::Text, || json!({ "type": "text", "text": "" }), out);
                self.delta(json!({ "type": "text_delta", "text": text }), out);
            }
            Event::ToolCallDelta { delta, .. } => {
                let block = || json!({ "type": "tool_use", "id": delta.id, "name": delta.name, "input": {} });
                self.open(Block::ToolUse(delta.index), block, out);
                if !delta.arguments.is_empty() {
                    let json = delta.arguments;
                    self.delta(json!({ "type": "input_json_delta", "partial_json": json }), out);
                }
            }
            Event::Done { reply } => {
                self.close(out);
                let (end, usage) = (End::new(&reply, &self.stops), Usage::of(&reply.usage));
                write(json!({ "type": "message_delta", "delta": end, "usage": usage }), out);
                write(json!({ "type": "message_stop" }), out);
            }
            Event::Error { error } => {
                let Failure(error) = error.into();
                write(json!(error_event(status_of(&error), &error)), out);
            }
            Event::Accepted { .. }
            | Event::Loading { .. }
            | Event::Queued { .. }
            // Its pieces were told.
            | Event::ToolCall { .. } => {}
        }
    }

    /// Goes on with a block, or starts it.
    fn open(&mut self, block: Block, content: impl FnOnce() -> Value, out: &mut Vec<u8>) {
        if self.open == Some(block) {
            return;
        }
        self.close(out);
        self.open = Some(block);
        self.index += 1;
        let (index, content) = (self.index, content());
        write(
            json!({ "type": "content_block_start", "index": index, "content_block": content }),
            out,
        );
    }

    fn delta(&self, delta: Value, out: &mut Vec<u8>) {
        let index = self.index;
        write(json!({ "type": "content_block_delta", "index": index, "delta": delta }), out);
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        let Some(block) = self.open.take() else { return };
        if block == Block::Thinking {
            self.delta(json!({ "type": "signature_delta", "signature": SIGNATURE }), out);
        }
        write(json!({ "type": "content_block_stop", "index": self.index }), out);
    }
}

/// One event, named as its type.
fn write(event: Value, out: &mut Vec<u8>) {
    let name = event["type"].as_str().unwrap_or_default();
    // A vector takes whatever is written.
    let _ = write!(out, "event: {name}\ndata: {event}\n\n");
}
