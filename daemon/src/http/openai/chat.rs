//! `/v1/chat/completions`

use super::answer::{EVENTS, Frame, finish_reason, write_error};
use super::chat_request::{Request, params};
use super::{Answer, model_of, read};
use crate::http::{Core, DebugInfo, Token, body, image_count, images, json_response};
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use hearth_protocol::{
    ChatRender, ChatReply, ChatSend, Event, FinishReason, Logprob, Message, ToolCallDelta,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};

#[derive(Serialize, JsonSchema)]
pub(super) struct Choice {
    index: usize,
    message: Spoken,
    logprobs: Option<Logprobs>,
    finish_reason: &'static str,
}

#[derive(Serialize, JsonSchema)]
struct Spoken {
    role: &'static str,
    content: Option<String>,
    refusal: Option<String>,
    #[serde(flatten)]
    reasoning: Reasoning,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Value>,
}

/// Clients look for it under one name or the other.
#[derive(Default, Serialize, JsonSchema)]
struct Reasoning {
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
}

impl From<Option<String>> for Reasoning {
    fn from(text: Option<String>) -> Self {
        Self { reasoning: text.clone(), reasoning_content: text }
    }
}

#[derive(Serialize)]
struct Piece {
    index: u32,
    delta: Delta,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Logprobs>,
    finish_reason: Option<&'static str>,
}

#[derive(Default, Serialize)]
struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(flatten)]
    reasoning: Reasoning,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Value>,
}

#[derive(Serialize, JsonSchema)]
struct Logprobs {
    content: Vec<Chance>,
}

#[derive(Serialize, JsonSchema)]
struct Chance {
    #[serde(flatten)]
    token: Token,
    top_logprobs: Vec<Token>,
}

fn chances(logprobs: Vec<Logprob>) -> Option<Logprobs> {
    let content = logprobs.into_iter().map(|place| Chance {
        token: place.chosen.into(),
        top_logprobs: place.top_logprobs.into_iter().map(Token::from).collect(),
    });
    Some(Logprobs { content: content.collect() }).filter(|logprobs| !logprobs.content.is_empty())
}

pub(super) async fn chat(core: Core, body: Body) -> Answer {
    let asked = read::<Request>(&core, body).await?;
    let request = asked.value;
    model_of(&request.model)?;
    let (model, streams) = (request.model.clone(), request.sampling.stream);
    let counts = request.sampling.counts();
    let only_renders = request.only_renders;
    let params = images::resolved(&core, params(request)?).await?;
    if only_renders {
        let image_count = image_count(&params.messages);
        let rendered_template = core.run::<ChatRender>(params).await?.prompt;
        let frame = Frame::new("chatcmpl-", "chat.completion", model, false);
        let shown = frame.rendered::<Choice>(DebugInfo { rendered_template, image_count });
        return Ok(json_response(StatusCode::OK, &shown));
    }
    let running = core.start::<ChatSend>(params);
    let answering = body::begin(running, asked.held).await?;
    if streams {
        let frame = Frame::new("chatcmpl-", "chat.completion.chunk", model, counts);
        return Ok(stream(answering, frame));
    }
    let frame = Frame::new("chatcmpl-", "chat.completion", model, false);
    let reply = answering.reply().await?;
    let mut choices = vec![choice(0, reply.message, reply.finish, reply.logprobs)];
    for (index, other) in (1..).zip(reply.others) {
        choices.push(choice(index, other.message, other.finish, other.logprobs));
    }
    Ok(json_response(StatusCode::OK, &frame.whole(&choices, &reply.usage)))
}

/// llama-server's: the prompt that a chat would become.
pub(super) async fn apply_template(core: Core, body: Body) -> Answer {
    let asked = read::<Request>(&core, body).await?;
    model_of(&asked.value.model)?;
    let params = images::resolved(&core, params(asked.value)?).await?;
    let rendered = core.run::<ChatRender>(params).await?;
    Ok(json_response(StatusCode::OK, &rendered))
}

fn choice(index: usize, said: Message, finish: FinishReason, logprobs: Vec<Logprob>) -> Choice {
    let calls = said.tool_calls.iter().map(|call| {
        let function = json!({ "name": call.name, "arguments": call.arguments });
        json!({ "id": call.id, "type": "function", "function": function })
    });
    let message = Spoken {
        role: "assistant",
        tool_calls: calls.collect(),
        // Beside calls, no text is null.
        content: Some(said.content).filter(|text| !text.is_empty() || said.tool_calls.is_empty()),
        refusal: None,
        reasoning: said.reasoning.into(),
    };
    Choice { index, message, logprobs: chances(logprobs), finish_reason: finish_reason(finish) }
}

fn stream(answering: body::Answering<Event<ChatReply>>, frame: Frame) -> Response {
    // Of which answers, and of how many calls of each, a piece was sent.
    let (mut begun, mut n_calls) = (HashSet::new(), HashMap::new());
    answering.stream(EVENTS, move |event, out| {
        let mut piece = |index, mut delta: Delta, logprobs, finish_reason, out: &mut Vec<u8>| {
            if begun.insert(index) {
                delta.role = Some("assistant");
            }
            let logprobs = chances(logprobs);
            frame.chunk(Piece { index, delta, logprobs, finish_reason }, out);
        };
        match event {
            Event::Reasoning { candidate, text, logprobs } => {
                let delta = Delta { reasoning: Some(text).into(), ..Delta::default() };
                piece(candidate, delta, logprobs, None, out);
            }
            Event::Delta { candidate, text, logprobs } => {
                let delta = Delta { content: Some(text), ..Delta::default() };
                piece(candidate, delta, logprobs, None, out);
            }
            Event::ToolCallDelta { candidate, delta } => {
                let n_begun = n_calls.entry(candidate).or_insert(0);
                let is_first = delta.index >= *n_begun;
                *n_begun = (*n_begun).max(delta.index + 1);
                let delta = Delta { tool_calls: vec![told(delta, is_first)], ..Delta::default() };
                piece(candidate, delta, Vec::new(), None, out);
            }
            Event::Done { reply } => {
                let others = reply.others.iter().map(|other| other.finish);
                for (index, finish) in (0..).zip([reply.finish].into_iter().chain(others)) {
                    let reason = Some(finish_reason(finish));
                    piece(index, Delta::default(), Vec::new(), reason, out);
                }
                frame.end(&reply.usage, out);
            }
            Event::Error { error } => write_error(&error, out),
            _ => {}
        }
    })
}

/// Id and name come with a call's first piece, the arguments with all.
fn told(delta: ToolCallDelta, is_first: bool) -> Value {
    let ToolCallDelta { index, id, name, arguments } = delta;
    if is_first {
        let function = json!({ "name": name, "arguments": arguments });
        json!({ "index": index, "id": id, "type": "function", "function": function })
    } else {
        json!({ "index": index, "function": { "arguments": arguments } })
    }
}
