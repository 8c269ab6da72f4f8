//! `chat.send`, `chat.count` and `chat.render`: what a worker answers, with a session around it where one is named.
//!
//! A session's turn is kept whole, question and answer together, or not at all: what is cancelled or fails is as if it had
//! never been asked.

use super::jobs::{Ask, ask, unexpected};
use super::kept::{from_text, kept, messages, to_text};
use super::work::{Events, Request, Work};
use crate::worker::frames::{Job, Reply};
use hearth_protocol::{
    ChatCount, ChatParams, ChatRender, ChatReply, ChatSend, Counted, ErrorKind, Event, Message,
    Options, Rendered, Role, RpcError,
};
use hearth_sessions::Turn;
use serde::Serialize;
use std::time::Duration;

impl Work for ChatSend {
    type Event = Event<ChatReply>;

    fn name(params: &mut ChatParams) -> Option<String> {
        params.request.take()
    }

    async fn run(
        request: Request,
        mut params: ChatParams,
        events: Events<Self::Event>,
    ) -> Result<ChatReply, RpcError> {
        let turn = begin(&request, &mut params).await?;
        let model = params.model.clone();
        let (reply, load_us) = ask(&request, chat(params, Job::Chat), &events).await?;
        let Reply::Chat(mut reply) = reply else { return Err(unexpected()) };
        if let Some((turn, mut said)) = turn {
            said.push(reply.message.clone());
            let bodies = said.iter().map(to_text).collect::<Result<Vec<_>, _>>()?;
            kept(&request.daemon, move |_| turn.keep(&model, &bodies)).await?;
        }
        reply.request = request.name;
        reply.timings.load_us = load_us;
        Ok(reply)
    }
}

impl Work for ChatCount {
    type Event = Event<Counted>;

    fn name(params: &mut ChatParams) -> Option<String> {
        params.request.take()
    }

    async fn run(
        request: Request,
        params: ChatParams,
        events: Events<Self::Event>,
    ) -> Result<Counted, RpcError> {
        match only_asked(&request, params, Job::Count, &events).await? {
            Reply::Count(reply) => Ok(reply),
            _ => Err(unexpected()),
        }
    }
}

impl Work for ChatRender {
    type Event = Event<Rendered>;

    fn name(params: &mut ChatParams) -> Option<String> {
        params.request.take()
    }

    async fn run(
        request: Request,
        params: ChatParams,
        events: Events<Self::Event>,
    ) -> Result<Rendered, RpcError> {
        match only_asked(&request, params, Job::Render, &events).await? {
            Reply::Render(reply) => Ok(reply),
            _ => Err(unexpected()),
        }
    }
}

/// What is asked about a conversation, with nothing kept of it.
async fn only_asked<R: Serialize>(
    request: &Request,
    mut params: ChatParams,
    job: fn(Box<ChatParams>) -> Job,
    events: &Events<Event<R>>,
) -> Result<Reply, RpcError> {
    let _turn = begin(request, &mut params).await?;
    Ok(ask(request, chat(params, job), events).await?.0)
}

fn chat(params: ChatParams, job: fn(Box<ChatParams>) -> Job) -> Ask {
    Ask {
        model: params.model.clone(),
        keep_alive: params.keep_alive,
        timeout: params.timeout_ms.map(Duration::from_millis),
        job: job(Box::new(params)),
    }
}

/// Makes of the parameters what a worker is asked. Answers the session's turn, and what is new in it.
async fn begin(
    request: &Request,
    params: &mut ChatParams,
) -> Result<Option<(Turn, Vec<Message>)>, RpcError> {
    let Some(name) = params.session.take() else {
        if params.model.is_empty() {
            return Err(invalid("there is neither a `model` nor a `session` that has one"));
        }
        return Ok(None);
    };
    let uid = request.caller.uid;
    let turn = kept(&request.daemon, move |sessions| sessions.begin(uid, &name)).await?;
    if params.messages.is_empty() {
        return Err(invalid("`messages` has nothing new for the session"));
    }
    if params.model.is_empty() {
        params.model.clone_from(&turn.session.model);
    }
    params.options = merged(&turn.session.options, &params.options)?;
    let system = turn.session.system.iter().map(|text| Message::text(Role::System, text));
    let before = system.chain(messages(&turn.said)?).collect();
    let new = std::mem::replace(&mut params.messages, before);
    params.messages.extend_from_slice(&new);
    Ok(Some((turn, new)))
}

/// The session's options, and in their place those that are given.
fn merged(kept: &str, given: &Options) -> Result<Options, RpcError> {
    let mut merged: serde_json::Map<_, _> = from_text(kept)?;
    merged.extend(from_text::<serde_json::Map<_, _>>(&to_text(given)?)?);
    from_text(&to_text(&merged)?)
}

fn invalid(message: &str) -> RpcError {
    RpcError::new(ErrorKind::InvalidParams, message)
}
