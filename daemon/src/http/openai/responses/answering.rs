//! One response from its request to its end.
//!
//! **Invariant.** Its last event is not told before it is kept, if it is to be kept; and dropping it ends the work behind it.

use super::growing::{Growing, Told};
use super::request::{Asked, Request};
use crate::http::{Core, body, images};
use crate::listen::Held;
use crate::rpc::{from_text, messages, to_text};
use hearth_protocol::{
    ChatParams, ChatReply, ChatSend, ErrorKind, Event, Message, RpcError, Tokenize, TokenizeParams,
};
use hearth_sessions::{MessageId, Response, Turn};
use serde_json::Value;

/// As long as OpenAI keeps them.
const KEEP_S: i64 = 30 * 24 * 60 * 60;

/// What a request comes to, together with what was said before it.
pub(super) struct Prepared {
    pub(super) params: ChatParams,
    growing: Growing,
    keeping: Keeping,
}

/// What is kept at the end.
struct Keeping {
    model: String,
    stores: bool,
    parent: Option<MessageId>,
    /// What is new, before the answer.
    said: Vec<Message>,
    input: String,
    /// The session that it is a turn of.
    turn: Option<Turn>,
}

pub(super) struct Answering {
    core: Core,
    work: body::Answering<Event<ChatReply>>,
    pub(super) growing: Growing,
    keeping: Keeping,
    /// Why it ended as no answer.
    failed: Option<RpcError>,
}

pub(super) async fn prepare(core: &Core, request: Request) -> Result<Prepared, RpcError> {
    request.check()?;
    let turn = match request.conversation().map(str::to_owned) {
        Some(name) => Some(core.kept(move |sessions, uid| sessions.begin(uid, &name)).await?),
        None => None,
    };
    let (parent, before) = match (&turn, &request.previous_response_id) {
        (Some(turn), _) => (turn.session.head, messages(&turn.said)?),
        (None, Some(id)) => followed(core, id.clone()).await?,
        (None, None) => (None, Vec::new()),
    };
    let stores = request.stores();
    let mut asked = request.asked()?;
    // Here, so that what is kept has the images themselves.
    asked.params = images::resolved(core, asked.params).await?;
    let mut system = None;
    if let Some(turn) = &turn {
        system.clone_from(&turn.session.system);
        asked.repeated.insert("conversation".into(), serde_json::json!({ "id": turn.session.id }));
        if asked.params.model.is_empty() {
            asked.params.model.clone_from(&turn.session.model);
        }
    }
    let said = asked.follow(system, before);
    let Asked { params, input, repeated, summarizes, encloses, .. } = asked;
    let (model, input) = (params.model.clone(), to_text(&input)?);
    let growing = Growing::new(&model, repeated, summarizes, encloses);
    let keeping = Keeping { model, stores, parent, said, input, turn };
    Ok(Prepared { params, growing, keeping })
}

/// What was said up to the end of a response.
async fn followed(core: &Core, id: String) -> Result<(Option<MessageId>, Vec<Message>), RpcError> {
    let (head, said) = core
        .kept(move |sessions, uid| {
            let head = sessions.response(uid, &id)?.head;
            Ok((head, sessions.messages(head)?))
        })
        .await?;
    if head.is_none() {
        return Err(RpcError::new(ErrorKind::InvalidParams, "the previous response has no answer")
            .with_hint("it runs still, or was cancelled or failed; `GET` it to see"));
    }
    Ok((head, messages(&said)?))
}

impl Answering {
    pub(super) fn start(core: Core, prepared: Prepared, held: Held) -> Self {
        let Prepared { params, growing, keeping } = prepared;
        let work = body::Answering::new(core.start::<ChatSend>(params), held);
        Self { core, work, growing, keeping, failed: None }
    }

    /// Waits until the prompt is being computed.
    pub(super) async fn begin(&mut self) -> Result<(), RpcError> {
        self.work.begin(|event| matches!(event, Event::Prefill { .. })).await
    }

    pub(super) async fn next(&mut self) -> Option<Event<ChatReply>> {
        self.work.next().await
    }

    pub(super) async fn take(&mut self, event: Event<ChatReply>, out: &mut Told) {
        match event {
            Event::Done { reply } => self.finish(reply, out).await,
            Event::Error { error } => self.fail(error, out),
            event => self.growing.take(event, out),
        }
    }

    /// All of it at once.
    pub(super) async fn whole(mut self) -> Result<Value, RpcError> {
        while let Some(event) = self.next().await {
            self.take(event, &mut Vec::new()).await;
        }
        match self.failed {
            Some(error) => Err(error),
            None => Ok(self.growing.response()),
        }
    }

    async fn finish(&mut self, reply: ChatReply, out: &mut Told) {
        let reasoning_tokens = self.count(reply.message.reasoning.clone()).await;
        self.growing.finish(&reply, reasoning_tokens, out);
        match self.keep(Some(reply.message)).await {
            Ok(()) => self.growing.end(out),
            Err(error) => self.fail(error, out),
        }
    }

    pub(super) fn fail(&mut self, error: RpcError, out: &mut Told) {
        if error.kind() == Some(ErrorKind::Cancelled) {
            self.growing.cancel(out);
        } else {
            self.growing.fail(&error, out);
        }
        self.growing.end(out);
        self.failed = Some(error);
    }

    /// The engine counts all tokens together. Without a count the answer is still an answer.
    async fn count(&mut self, text: Option<String>) -> u32 {
        let Some(text) = text else { return 0 };
        let model = self.keeping.model.clone();
        let (add_special, parse_special, pieces) = (false, false, false);
        let params = TokenizeParams { model, text, add_special, parse_special, pieces };
        let counted = self.core.run::<Tokenize>(params).await;
        counted.map_or(0, |reply| u32::try_from(reply.tokens.len()).unwrap_or(u32::MAX))
    }

    /// Keeps the response as it is, with its answer if it has one.
    async fn keep(&mut self, answer: Option<Message>) -> Result<(), RpcError> {
        let Keeping { model, stores, parent, said, input, turn } = &mut self.keeping;
        let (model, stores, parent) = (model.clone(), *stores, *parent);
        let mut bodies = Vec::new();
        if let Some(answer) = answer {
            said.push(answer);
            bodies = said.iter().map(to_text).collect::<Result<_, _>>()?;
        }
        let (id, input) = (self.growing.id().to_owned(), input.clone());
        let body = to_text(&self.growing.response())?;
        // A session waits for its turn only as long as there may be an answer.
        let turn = if bodies.is_empty() { None } else { turn.take() };
        let keep = self.core.kept(move |sessions, uid| match (stores, turn) {
            (true, turn) => {
                let response =
                    Response { id: &id, parent, said: &bodies, body: &body, input: &input };
                let turn = turn.as_ref().map(|turn| (turn, model.as_str()));
                sessions.save(uid, &response, turn, KEEP_S)
            }
            (false, Some(turn)) => turn.keep(&model, &bodies),
            (false, None) => Ok(()),
        });
        keep.await
    }

    /// Keeps a response that has no answer, or none yet.
    pub(super) async fn keep_without_answer(&mut self) -> Result<(), RpcError> {
        self.keep(None).await
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.is_some()
    }
}

/// A stored response.
pub(super) async fn stored(core: &Core, id: &str) -> Result<(Value, Vec<Value>), RpcError> {
    let id = id.to_owned();
    let saved = core.kept(move |sessions, uid| sessions.response(uid, &id)).await?;
    Ok((from_text(&saved.body)?, from_text(&saved.input)?))
}
