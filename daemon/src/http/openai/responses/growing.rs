//! A response as it grows: its items, and the events that tell of them.
//!
//! Thoughts and text are told one after another. A call stays open until it is known to be one, which is at the end; until
//! then others may begin.
//!
//! **Invariants.** The events' numbers go up by one. Each item that was added is done before the last event, and the response
//! in that event has each as it was when it was done.

use crate::http::{Token, status_of, told};
use crate::random;
use axum::body::Bytes;
use hearth_protocol::{ChatReply, Event, FinishReason, Logprob, RpcError, ToolCallDelta, Usage};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// Events, each as it is sent.
pub(super) type Told = Vec<Bytes>;

pub(super) struct Growing {
    response: Map<String, Value>,
    items: Vec<Item>,
    /// The thoughts or the text that grow now.
    open: Option<usize>,
    /// Calls by their ids.
    calls: HashMap<String, usize>,
    n_told: u64,
    summarizes: bool,
    encloses: bool,
}

struct Item {
    id: String,
    kind: Kind,
    text: String,
    logprobs: Vec<Value>,
    status: &'static str,
}

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    Reasoning,
    Text,
    Call { id: String, name: String },
}

impl Growing {
    pub(super) fn new(
        model: &str,
        repeated: Map<String, Value>,
        summarizes: bool,
        encloses: bool,
    ) -> Self {
        let mut response = Map::new();
        let is_background = repeated.get("background") == Some(&Value::Bool(true));
        for (name, value) in [
            ("id", json!(random::name("resp_"))),
            ("object", json!("response")),
            ("created_at", json!(Timestamp::now().as_second())),
            ("completed_at", Value::Null),
            ("status", json!(if is_background { "queued" } else { "in_progress" })),
            ("error", Value::Null),
            ("incomplete_details", Value::Null),
            ("model", json!(model)),
            ("output", json!([])),
            ("usage", Value::Null),
        ] {
            response.insert(name.into(), value);
        }
        response.extend(repeated);
        let (items, calls) = (Vec::new(), HashMap::new());
        Self { response, items, open: None, calls, n_told: 0, summarizes, encloses }
    }

    pub(super) fn id(&self) -> &str {
        self.response["id"].as_str().unwrap_or_default()
    }

    /// As it is now.
    pub(super) fn response(&self) -> Value {
        let mut response = self.response.clone();
        response["output"] = self.items.iter().map(|item| self.json(item)).collect();
        Value::Object(response)
    }

    pub(super) fn begin(&mut self, out: &mut Told) {
        self.tell_response("response.created", out);
        if self.response["status"] == "queued" {
            self.tell_response("response.queued", out);
            self.response["status"] = "in_progress".into();
        }
        self.tell_response("response.in_progress", out);
    }

    /// Any event but the terminal ones.
    pub(super) fn take(&mut self, event: Event<ChatReply>, out: &mut Told) {
        match event {
            Event::Reasoning { text, .. } => {
                let at = self.go_on(Kind::Reasoning, out);
                self.grow(at, &text, Vec::new(), out);
            }
            Event::Delta { text, logprobs, .. } => {
                let at = self.go_on(Kind::Text, out);
                self.grow(at, &text, logprobs.into_iter().map(chance).collect(), out);
            }
            Event::ToolCallDelta { delta: ToolCallDelta { id, name, arguments, .. }, .. } => {
                let at = match self.calls.get(&id) {
                    Some(at) => *at,
                    None => {
                        self.close_open("completed", out);
                        let at = self.add(Kind::Call { id: id.clone(), name }, out);
                        self.calls.insert(id, at);
                        at
                    }
                };
                if !arguments.is_empty() {
                    self.grow(at, &arguments, Vec::new(), out);
                }
            }
            Event::ToolCall { call, .. } => {
                if let Some(at) = self.calls.remove(&call.id) {
                    self.close(at, "completed", out);
                }
            }
            _ => {}
        }
    }

    /// The last of its items, and what it came to. [`Growing::end`] tells of it.
    pub(super) fn finish(&mut self, reply: &ChatReply, reasoning_tokens: u32, out: &mut Told) {
        let is_cut = matches!(reply.finish, FinishReason::MaxTokens | FinishReason::ContextFull);
        let status = if is_cut { "incomplete" } else { "completed" };
        self.close_all(status, out);
        if is_cut {
            self.response["incomplete_details"] = json!({ "reason": "max_output_tokens" });
        }
        self.response["completed_at"] = json!(Timestamp::now().as_second());
        self.response["usage"] = cost(&reply.usage, reasoning_tokens);
        self.response["status"] = status.into();
    }

    /// Ends it with an error.
    pub(super) fn fail(&mut self, error: &RpcError, out: &mut Told) {
        self.close_all("incomplete", out);
        let code =
            if status_of(error).is_client_error() { "invalid_prompt" } else { "server_error" };
        self.response["error"] = json!({ "code": code, "message": told(error) });
        self.response["status"] = "failed".into();
    }

    /// Ends it because its client wanted that.
    pub(super) fn cancel(&mut self, out: &mut Told) {
        self.close_all("incomplete", out);
        self.response["status"] = "cancelled".into();
    }

    pub(super) fn end(&mut self, out: &mut Told) {
        let kind = last_event(&self.response["status"]);
        self.tell_response(kind, out);
    }

    /// The place of what grows now, which is of this kind.
    fn go_on(&mut self, kind: Kind, out: &mut Told) -> usize {
        match self.open {
            Some(at) if self.items[at].kind == kind => at,
            _ => {
                self.close_open("completed", out);
                let at = self.add(kind, out);
                self.open = Some(at);
                at
            }
        }
    }

    fn add(&mut self, kind: Kind, out: &mut Told) -> usize {
        let prefix = match kind {
            Kind::Reasoning => "rs_",
            Kind::Text => "msg_",
            Kind::Call { .. } => "fc_",
        };
        let at = self.items.len();
        let (text, logprobs, status) = (String::new(), Vec::new(), "in_progress");
        self.items.push(Item { id: random::name(prefix), kind, text, logprobs, status });
        let mut item = self.json(&self.items[at]);
        for parts in ["content", "summary"] {
            if item[parts].is_array() {
                item[parts] = json!([]);
            }
        }
        self.tell("response.output_item.added", json!({ "output_index": at, "item": item }), out);
        if let Some(words) = self.words(at) {
            let part = part(&self.items[at]);
            self.tell_of(at, words.part_added, json!({ (words.index): 0, "part": part }), out);
        }
        at
    }

    fn grow(&mut self, at: usize, text: &str, logprobs: Vec<Value>, out: &mut Told) {
        let mut more = json!({ "delta": text });
        if self.items[at].kind == Kind::Text {
            more["logprobs"] = logprobs.clone().into();
        }
        self.items[at].text.push_str(text);
        self.items[at].logprobs.extend(logprobs);
        match self.words(at) {
            Some(words) => {
                more[words.index] = 0.into();
                self.tell_of(at, words.delta, more, out);
            }
            None => self.tell_of(at, "response.function_call_arguments.delta", more, out),
        }
    }

    fn close_open(&mut self, status: &'static str, out: &mut Told) {
        if let Some(at) = self.open.take() {
            self.close(at, status, out);
        }
    }

    /// What only looked like a call is not one.
    fn close_all(&mut self, status: &'static str, out: &mut Told) {
        self.close_open(status, out);
        let mut calls: Vec<usize> = self.calls.drain().map(|(_, at)| at).collect();
        calls.sort_unstable();
        for at in calls {
            self.close(at, "incomplete", out);
        }
    }

    fn close(&mut self, at: usize, status: &'static str, out: &mut Told) {
        self.items[at].status = status;
        let item = &self.items[at];
        let (text, part) = (item.text.clone(), part(item));
        match (self.words(at), &item.kind) {
            (Some(words), kind) => {
                let mut done = json!({ (words.index): 0, "text": text });
                if *kind == Kind::Text {
                    done["logprobs"] = item.logprobs.clone().into();
                }
                self.tell_of(at, words.done, done, out);
                self.tell_of(at, words.part_done, json!({ (words.index): 0, "part": part }), out);
            }
            (None, Kind::Call { name, .. }) if status == "completed" => {
                let done = json!({ "name": name, "arguments": text });
                self.tell_of(at, "response.function_call_arguments.done", done, out);
            }
            (None, _) => {}
        }
        let item = self.json(&self.items[at]);
        self.tell("response.output_item.done", json!({ "output_index": at, "item": item }), out);
    }

    fn json(&self, item: &Item) -> Value {
        let Item { id, status, .. } = item;
        match &item.kind {
            Kind::Text => json!({
                "id": id, "type": "message", "status": status, "role": "assistant", "content": [part(item)],
            }),
            Kind::Call { id: call, name } => json!({
                "id": id, "type": "function_call", "status": status,
                "call_id": call, "name": name, "arguments": item.text,
            }),
            Kind::Reasoning => {
                let summary = json!([{ "type": "summary_text", "text": item.text }]);
                let (summary, content) = match self.summarizes {
                    true => (summary, json!([])),
                    false => (json!([]), json!([part(item)])),
                };
                let enclosed = self.encloses.then_some(&item.text);
                json!({
                    "id": id, "type": "reasoning", "status": status,
                    "summary": summary, "content": content, "encrypted_content": enclosed,
                })
            }
        }
    }

    /// How the parts of an item are told of, if it has parts.
    fn words(&self, at: usize) -> Option<&'static Words> {
        match self.items[at].kind {
            Kind::Text => Some(&TEXT),
            Kind::Reasoning if self.summarizes => Some(&SUMMARY),
            Kind::Reasoning => Some(&THOUGHTS),
            Kind::Call { .. } => None,
        }
    }

    fn tell_of(&mut self, at: usize, kind: &str, mut event: Value, out: &mut Told) {
        event["item_id"] = self.items[at].id.as_str().into();
        event["output_index"] = at.into();
        if kind == SUMMARY.part_added || kind == SUMMARY.part_done {
            event["part"]["type"] = "summary_text".into();
        }
        self.tell(kind, event, out);
    }

    fn tell_response(&mut self, kind: &str, out: &mut Told) {
        let response = self.response();
        self.tell(kind, json!({ "response": response }), out);
    }

    fn tell(&mut self, kind: &str, mut event: Value, out: &mut Told) {
        event["type"] = kind.into();
        event["sequence_number"] = self.n_told.into();
        self.n_told += 1;
        out.push(written(&event));
    }
}

/// The names of the events of an item with parts.
struct Words {
    index: &'static str,
    part_added: &'static str,
    delta: &'static str,
    done: &'static str,
    part_done: &'static str,
}

const TEXT: Words = Words {
    index: "content_index",
    part_added: "response.content_part.added",
    delta: "response.output_text.delta",
    done: "response.output_text.done",
    part_done: "response.content_part.done",
};

const THOUGHTS: Words = Words {
    index: "content_index",
    part_added: "response.content_part.added",
    delta: "response.reasoning_text.delta",
    done: "response.reasoning_text.done",
    part_done: "response.content_part.done",
};

const SUMMARY: Words = Words {
    index: "summary_index",
    part_added: "response.reasoning_summary_part.added",
    delta: "response.reasoning_summary_text.delta",
    done: "response.reasoning_summary_text.done",
    part_done: "response.reasoning_summary_part.done",
};

fn part(item: &Item) -> Value {
    match item.kind {
        Kind::Reasoning => json!({ "type": "reasoning_text", "text": item.text }),
        _ => json!({
            "type": "output_text", "text": item.text, "annotations": [], "logprobs": item.logprobs,
        }),
    }
}

fn chance(place: Logprob) -> Value {
    let mut chance = json!(Token::from(place.chosen));
    let others = place.top_logprobs.into_iter().map(Token::from);
    chance["top_logprobs"] = others.map(|token| json!(token)).collect();
    chance
}

fn cost(usage: &Usage, reasoning_tokens: u32) -> Value {
    json!({
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": { "cached_tokens": usage.cached_tokens },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": { "reasoning_tokens": reasoning_tokens.min(usage.completion_tokens) },
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    })
}

/// The event that a response with this status ends with. OpenAI has none for one that was cancelled.
pub(super) fn last_event(status: &Value) -> &'static str {
    match status.as_str() {
        Some("completed") => "response.completed",
        Some("failed") => "response.failed",
        _ => "response.incomplete",
    }
}

pub(super) fn written(event: &Value) -> Bytes {
    let name = event["type"].as_str().unwrap_or_default();
    format!("event: {name}\ndata: {event}\n\n").into()
}
