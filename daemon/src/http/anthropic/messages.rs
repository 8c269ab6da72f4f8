//! The handlers, and the whole answer.

use super::request::Request;
use super::stream::Stream;
use super::usage::{End, Usage};
use super::{Answer, with_id};
use crate::http::body::{self, Answering};
use crate::http::{Core, images, json_response, object_of};
use crate::random;
use axum::body::Body;
use axum::http::StatusCode;
use hearth_protocol::{ChatCount, ChatReply, ChatSend, Event};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

/// An event's name is in its data too, where most clients read it.
const EVENTS: &str = "text/event-stream; charset=utf-8";

/// Nothing is signed here, but clients drop thoughts that have no signature.
pub(super) const SIGNATURE: &str = "unsigned";

/// As it is at its end, or at its beginning.
#[derive(Serialize, JsonSchema)]
pub(super) struct Message {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    role: &'static str,
    model: String,
    content: Vec<Value>,
    #[serde(flatten)]
    end: End,
    usage: Usage,
}

impl Message {
    pub(super) fn new(model: String, content: Vec<Value>, end: End, usage: Usage) -> Self {
        Self {
            id: random::name("msg_"),
            kind: "message",
            role: "assistant",
            model,
            content,
            end,
            usage,
        }
    }
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Counted {
    input_tokens: u32,
}

pub(super) async fn messages(core: Core, body: Body) -> Answer {
    let asked = body::read::<Request>(&core, body).await?;
    let request = asked.value;
    request.check_max_tokens()?;
    let (model, stops) = (request.model.clone(), request.stop_sequences.clone());
    let streams = request.stream;
    let params = images::resolved(&core, request.params()?).await?;
    if !streams {
        let reply = core.run::<ChatSend>(params).await?;
        let body = whole(model, &stops, reply);
        drop(asked.held);
        return Ok(with_id(json_response(StatusCode::OK, &body), &random::name("req_")));
    }
    let mut answering = Answering::new(core.start::<ChatSend>(params), asked.held);
    // The first that a stream says is what its prompt costs.
    answering.begin(|event| matches!(event, Event::Prefill { .. })).await?;
    let mut stream = Stream::new(model, stops);
    let response = answering.stream(EVENTS, move |event, out| stream.take(event, out));
    Ok(with_id(response, &random::name("req_")))
}

pub(super) async fn count_tokens(core: Core, body: Body) -> Answer {
    let asked = body::read::<Request>(&core, body).await?;
    let params = images::resolved(&core, asked.value.params()?).await?;
    let counted = core.run::<ChatCount>(params).await?;
    let body = Counted { input_tokens: counted.prompt_tokens };
    drop(asked.held);
    Ok(with_id(json_response(StatusCode::OK, &body), &random::name("req_")))
}

fn whole(model: String, stops: &[String], reply: ChatReply) -> Message {
    let (end, usage) = (End::new(&reply, stops), Usage::of(&reply.usage));
    let message = reply.message;
    let mut content = Vec::new();
    if let Some(thinking) = message.reasoning {
        content.push(json!({ "type": "thinking", "thinking": thinking, "signature": SIGNATURE }));
    }
    if !message.content.is_empty() {
        content.push(json!({ "type": "text", "text": message.content }));
    }
    content.extend(message.tool_calls.into_iter().map(|call| {
        let input = object_of(&call.arguments);
        json!({ "type": "tool_use", "id": call.id, "name": call.name, "input": input })
    }));
    Message::new(model, content, end, usage)
}
