//! Calls of one connection, whatever it speaks: frames in, replies out.
//!
//! Each call runs as a future of its connection, so that closing it drops them all and every place they hold. Replies
//! and notifications go through one bounded channel to the one writer: a client that does not read stalls its own calls
//! and nothing else.

use super::framing::Frame;
use super::users::{Account, Held, too_long};
use super::{Caller, Connection};
use crate::rpc::{method_not_found, object};
use hearth_protocol::{ErrorKind, RpcError};
use jsonrpsee::core::id_providers::RandomIntegerIdProvider;
use jsonrpsee::core::server::{
    BatchResponseBuilder, BoundedSubscriptions, ConnectionId, Extensions, MethodCallback,
    MethodResponse, MethodSink, Methods, SubscriptionState,
};
use jsonrpsee::core::traits::IdProvider;
use jsonrpsee::types::{Id, InvalidRequest, Notification, Params, Request};
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Messages on their way to one client. Streams merge what waits beyond that.
pub(super) const OUTGOING: usize = 16;
/// Calls of one connection at the same time. One more is read when one has ended.
const MAX_CALLS: usize = 256;
/// Streams of one connection at the same time. One more is refused.
const MAX_STREAMS: u32 = 1024;
/// Calls in one batch, whose replies are all in memory before the first is sent. A longer batch is refused.
const MAX_BATCH: usize = 256;

pub(super) type Outgoing = mpsc::Sender<Box<RawValue>>;

/// Calls that run side by side.
pub(super) struct Calls {
    answerer: Arc<Answerer>,
    pub(super) outgoing: Outgoing,
    running: JoinSet<()>,
}

impl Calls {
    pub(super) fn new(connection: &Connection, caller: Caller, outgoing: Outgoing) -> Self {
        let answerer = Arc::new(Answerer::new(connection, caller));
        Self { answerer, outgoing, running: JoinSet::new() }
    }

    pub(super) async fn begin(&mut self, frame: Frame) {
        while self.running.try_join_next().is_some() {}
        if self.running.len() >= MAX_CALLS {
            tokio::select! {
                _ = self.running.join_next() => {}
                () = self.outgoing.closed() => return,
            }
        }
        let (answerer, outgoing) = (Arc::clone(&self.answerer), self.outgoing.clone());
        self.running.spawn(async move {
            if let Some(answer) = answerer.answer(frame, Some(&outgoing)).await {
                let _ = outgoing.send(answer).await;
            }
        });
    }

    /// Waits for the calls that run. Streams go on by themselves, as long as the writer does.
    pub(super) async fn finish(mut self) {
        let outgoing = self.outgoing.clone();
        drop(self.outgoing);
        tokio::select! {
            () = async { while self.running.join_next().await.is_some() {} } => {}
            () = outgoing.closed() => {}
        }
    }
}

/// What answers a connection's calls.
pub(super) struct Answerer {
    id: ConnectionId,
    methods: Methods,
    extensions: Extensions,
    subscriptions: BoundedSubscriptions,
    ids: RandomIntegerIdProvider,
    pub(super) max_request_bytes: usize,
    pub(super) account: Arc<Account>,
}

impl Answerer {
    pub(super) fn new(connection: &Connection, caller: Caller) -> Self {
        let mut extensions = Extensions::new();
        extensions.insert(caller);
        Self {
            id: ConnectionId(connection.id),
            methods: connection.server.methods.clone(),
            extensions,
            subscriptions: BoundedSubscriptions::new(MAX_STREAMS),
            ids: RandomIntegerIdProvider,
            max_request_bytes: connection.server.daemon.config().max_request_bytes,
            account: connection.account(),
        }
    }

    /// The answer to a frame, or none where it has gone out already or is not due. Without `outgoing` there are no streams.
    pub(super) async fn answer(
        &self,
        frame: Frame,
        outgoing: Option<&Outgoing>,
    ) -> Option<Box<RawValue>> {
        let error = match frame {
            Frame::Value(bytes) => {
                let mut held = self.account.hold();
                if held.set(bytes.len()) {
                    return self.value(&bytes, &Arc::new(held), outgoing).await;
                }
                self.account.crowded()
            }
            Frame::Crowded => self.account.crowded(),
            Frame::Garbage => {
                RpcError::new(ErrorKind::ParseError, "a request begins with `{`, and this does not")
                    .with_hint("this socket speaks JSON-RPC 2.0 and HTTP; try `ctl status`")
            }
            Frame::TooLong => too_long(self.max_request_bytes),
            Frame::Second => {
                RpcError::new(ErrorKind::ParseError, "a POST holds one request, and this one more")
                    .with_hint("send them as a batch, or over a WebSocket or the raw protocol")
            }
            Frame::Cut => RpcError::new(
                ErrorKind::ParseError,
                "the input ended before there was a whole request",
            )
            .with_hint("a request is one JSON object, or an array of them"),
        };
        Some(MethodResponse::error(Id::Null, object(error)).into_json())
    }

    async fn value(
        &self,
        bytes: &[u8],
        held: &Arc<Held>,
        outgoing: Option<&Outgoing>,
    ) -> Option<Box<RawValue>> {
        if bytes.first() != Some(&b'[') {
            return self.single(bytes, held, outgoing).await.map(MethodResponse::into_json);
        }
        let entries = match serde_json::from_slice(bytes) {
            Ok(Entries(entries)) => entries,
            Err(error) => return Some(parse_error(&error).into_json()),
        };
        let refusal = match entries.len() {
            0 => Some(
                RpcError::new(ErrorKind::InvalidRequest, "the batch is empty")
                    .with_hint("a batch is an array of requests"),
            ),
            1..=MAX_BATCH => None,
            _ => Some(
                RpcError::new(
                    ErrorKind::TooLarge,
                    format!("the batch holds more than {MAX_BATCH} calls"),
                )
                .with_hint("send several batches, or single calls"),
            ),
        };
        if let Some(error) = refusal {
            return Some(MethodResponse::error(Id::Null, object(error)).into_json());
        }
        let mut answers = BatchResponseBuilder::new_with_limit(usize::MAX);
        for entry in entries {
            let entry = entry.get().as_bytes();
            let answer = match serde_json::from_slice::<Request<'_>>(entry) {
                Ok(request)
                    if matches!(
                        self.methods.method(&request.method),
                        Some(MethodCallback::Subscription(_))
                    ) =>
                {
                    let error =
                        RpcError::new(ErrorKind::InvalidRequest, "a batch may not hold streams")
                            .with_hint("call the method without `.stream`, or outside of a batch");
                    Some(MethodResponse::error(request.id, object(error)))
                }
                _ => self.single(entry, held, outgoing).await,
            };
            if let Some(answer) = answer {
                let _ = answers.append(answer);
            }
        }
        // A batch of notifications alone is not answered.
        (!answers.is_empty()).then(|| MethodResponse::from_batch(answers.finish()).into_json())
    }

    async fn single(
        &self,
        bytes: &[u8],
        held: &Arc<Held>,
        outgoing: Option<&Outgoing>,
    ) -> Option<MethodResponse> {
        let request = match serde_json::from_slice::<Request<'_>>(bytes) {
            Ok(request) => request,
            Err(_) if is_notification(bytes) => return None,
            Err(error) if error.is_data() => return Some(invalid_request(bytes, &error)),
            Err(error) => return Some(parse_error(&error)),
        };
        let Request { id, method, params, .. } = request;
        let params = Params::new(params.as_ref().map(|params| params.get()));
        let extensions = self.extensions.clone();
        Some(match self.methods.method(&method) {
            None => MethodResponse::error(id, object(method_not_found(&method))),
            Some(MethodCallback::Sync(callback)) => callback(id, params, usize::MAX, extensions),
            Some(MethodCallback::Async(callback)) => {
                callback(id.into_owned(), params.into_owned(), self.id, usize::MAX, extensions)
                    .await
            }
            Some(MethodCallback::Unsubscription(callback)) => {
                callback(id, params, self.id, usize::MAX, extensions)
            }
            Some(MethodCallback::Subscription(callback)) => {
                let Some(outgoing) = outgoing else {
                    let error = RpcError::new(
                        ErrorKind::InvalidRequest,
                        "a POST cannot be answered by a stream",
                    );
                    return Some(MethodResponse::error(id, object(error.with_hint(
                        "call the method without `.stream`, or subscribe over a WebSocket or the raw protocol",
                    ))));
                };
                let Some(subscription_permit) = self.subscriptions.acquire() else {
                    let error = RpcError::new(
                        ErrorKind::Overloaded,
                        format!("this connection has {MAX_STREAMS} streams already"),
                    )
                    .with_hint("try again when some of them have ended");
                    return Some(MethodResponse::error(id, object(error)));
                };
                let id_provider: &dyn IdProvider = &self.ids;
                let state =
                    SubscriptionState { conn_id: self.id, id_provider, subscription_permit };
                // The reply goes out through the sink, so that it comes before the first event.
                let sink = MethodSink::new(outgoing.clone());
                let mut extensions = extensions;
                extensions.insert(sink.clone());
                // As long as the stream, and with it what it was asked.
                extensions.insert(Arc::clone(held));
                callback(id, params, sink, state, extensions).await;
                return None;
            }
        })
    }
}

/// The calls of a batch. What is beyond the limit is read and not kept.
struct Entries<'a>(Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Vec<&'de RawValue>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a batch")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while entries.len() <= MAX_BATCH {
                    match seq.next_element()? {
                        Some(entry) => entries.push(entry),
                        None => return Ok(entries),
                    }
                }
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(entries)
            }
        }
        deserializer.deserialize_seq(Read).map(Self)
    }
}

/// A request with an id of a wrong type is none: whoever sent it waits for an answer.
fn is_notification(bytes: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Id {
        id: Option<IgnoredAny>,
    }
    serde_json::from_slice::<Notification<'_, Option<&RawValue>>>(bytes).is_ok()
        && serde_json::from_slice::<Id>(bytes).is_ok_and(|Id { id }| id.is_none())
}

fn parse_error(error: &serde_json::Error) -> MethodResponse {
    // Where, and not what: serde's own text could repeat a prompt.
    let place = format!("line {}, column {}", error.line(), error.column());
    let what = if error.is_eof() { "it ends too early" } else { "it is not JSON" };
    let error = RpcError::new(
        ErrorKind::ParseError,
        format!("the request cannot be read: {what} ({place})"),
    )
    .with_hint("a request is one JSON object, or an array of them");
    MethodResponse::error(Id::Null, object(error))
}

fn invalid_request(bytes: &[u8], error: &serde_json::Error) -> MethodResponse {
    let id =
        serde_json::from_slice::<InvalidRequest<'_>>(bytes).map_or(Id::Null, |request| request.id);
    let error = RpcError::new(
        ErrorKind::InvalidRequest,
        format!("the request is not JSON-RPC 2.0: {error}"),
    )
    .with_hint("a request is an object with `jsonrpc`, `id`, `method` and perhaps `params`");
    MethodResponse::error(id, object(error))
}
