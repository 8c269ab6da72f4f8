//! Raw JSON-RPC: values in, lines out.
//!
//! Each call runs as a future of this connection, so that closing it drops them all and every place they hold. Replies
//! and notifications go through one bounded channel to the one writer: a client that does not read stalls its own calls
//! and nothing else. A client that closes its writing side still gets everything it asked for.

use super::framing::{Frame, Framer};
use super::{Caller, Connection};
use crate::rpc::{method_not_found, object};
use hearth_protocol::{ErrorKind, RpcError};
use jsonrpsee::Extensions;
use jsonrpsee::core::server::{
    BatchResponseBuilder, BoundedSubscriptions, MethodCallback, MethodResponse, MethodSink,
    SubscriptionState,
};
use jsonrpsee::core::traits::IdProvider;
use jsonrpsee::server::{ConnectionId, RandomIntegerIdProvider};
use jsonrpsee::types::{Id, InvalidRequest, Notification, Params, Request};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Messages on their way to one client. Streams merge what waits beyond that.
const OUTGOING: usize = 16;
/// Calls of one connection at the same time. One more is read when one has ended.
const MAX_CALLS: usize = 256;

pub(super) async fn serve(
    connection: Connection,
    caller: Caller,
    first: Vec<u8>,
    stream: UnixStream,
) -> io::Result<()> {
    let (reader, writer) = stream.into_split();
    let (outgoing, outgoing_rx) = mpsc::channel(OUTGOING);
    let calls = Calls::new(&connection, caller, outgoing);
    let closed = tokio::spawn(write(outgoing_rx, writer));
    let result = read(&connection, calls, first, reader).await;
    // Whatever was asked for is sent before the connection goes; a client that is gone ends the writer at once.
    let _ = closed.await;
    result
}

async fn read(
    connection: &Connection,
    mut calls: Calls,
    first: Vec<u8>,
    mut reader: OwnedReadHalf,
) -> io::Result<()> {
    let mut framer = Framer::new(connection.daemon.config.max_request_bytes);
    let mut chunk = vec![0; 16 << 10];
    framer.push(&first);
    loop {
        while let Some(frame) = framer.next() {
            calls.begin(frame).await;
        }
        tokio::select! {
            n = reader.read(&mut chunk) => match n? {
                0 => break,
                n => framer.push(&chunk[..n]),
            },
            () = calls.outgoing.closed() => return Ok(()),
            () = connection.stop.clone().shutdown() => break,
        }
    }
    if framer.is_inside() {
        let error =
            RpcError::new(ErrorKind::ParseError, "the connection ended in the middle of a request");
        calls.refuse(Id::Null, error).await;
    }
    calls.finish().await;
    Ok(())
}

/// Writes until every sender is gone, or the client is.
async fn write(mut messages: mpsc::Receiver<Box<RawValue>>, mut writer: OwnedWriteHalf) {
    loop {
        let message = tokio::select! {
            message = messages.recv() => message,
            // Nobody reads any more.
            () = hung_up(&writer) => return,
        };
        let Some(message) = message else { return };
        let mut line = String::from(Box::<str>::from(message)).into_bytes();
        line.push(b'\n');
        // What is ready goes out in one write.
        while line.len() < 64 << 10
            && let Ok(message) = messages.try_recv()
        {
            line.extend_from_slice(message.get().as_bytes());
            line.push(b'\n');
        }
        if writer.write_all(&line).await.is_err() {
            return;
        }
    }
}

/// Waits until both directions are closed. A client that only stopped writing still reads.
async fn hung_up(writer: &OwnedWriteHalf) {
    // Linux says so when the client stops writing, which comes first, and costs nothing to wait for.
    #[cfg(target_os = "linux")]
    let _ = writer.ready(Interest::PRIORITY).await;
    // A registration of its own: what is cleared here, a write must not miss.
    let own = writer.as_ref().as_fd().try_clone_to_owned();
    if let Ok(own) = own.and_then(|own| UnixStream::from_std(own.into())) {
        while let Ok(ready) = own.ready(Interest::WRITABLE).await {
            if ready.is_write_closed() {
                return;
            }
            let _ = own.try_io(Interest::WRITABLE, || {
                Err::<(), _>(io::Error::from(io::ErrorKind::WouldBlock))
            });
        }
    }
    std::future::pending().await
}

/// The line that tells an error of no request in particular.
pub(super) fn error_line(error: &RpcError) -> Vec<u8> {
    let response = MethodResponse::error(Id::Null, object(error.clone()));
    let mut line = String::from(Box::<str>::from(response.into_json())).into_bytes();
    line.push(b'\n');
    line
}

/// Calls of one connection.
struct Calls {
    shared: Arc<Shared>,
    outgoing: mpsc::Sender<Box<RawValue>>,
    running: JoinSet<()>,
}

struct Shared {
    id: ConnectionId,
    methods: jsonrpsee::server::Methods,
    extensions: Extensions,
    subscriptions: BoundedSubscriptions,
    ids: RandomIntegerIdProvider,
    max_request_bytes: usize,
}

impl Calls {
    fn new(connection: &Connection, caller: Caller, outgoing: mpsc::Sender<Box<RawValue>>) -> Self {
        let id = ConnectionId(connection.id as usize);
        let mut extensions = Extensions::new();
        extensions.insert(id);
        extensions.insert(caller);
        let shared = Shared {
            id,
            methods: connection.methods.clone(),
            extensions,
            subscriptions: BoundedSubscriptions::new(u32::MAX >> 8),
            ids: RandomIntegerIdProvider,
            max_request_bytes: connection.daemon.config.max_request_bytes,
        };
        Self { shared: Arc::new(shared), outgoing, running: JoinSet::new() }
    }

    async fn begin(&mut self, frame: Frame) {
        while self.running.try_join_next().is_some() {}
        if self.running.len() >= MAX_CALLS {
            tokio::select! {
                _ = self.running.join_next() => {}
                () = self.outgoing.closed() => return,
            }
        }
        match frame {
            Frame::Value(bytes) => {
                let (shared, outgoing) = (Arc::clone(&self.shared), self.outgoing.clone());
                self.running.spawn(async move { shared.answer(bytes, outgoing).await });
            }
            Frame::Garbage => {
                let error = RpcError::new(
                    ErrorKind::ParseError,
                    "a request begins with `{`, and this line does not",
                )
                .with_hint("this socket speaks JSON-RPC 2.0 and HTTP; try `ctl status`");
                self.refuse(Id::Null, error).await;
            }
            Frame::TooLong => {
                self.refuse(Id::Null, too_large(self.shared.max_request_bytes)).await;
            }
        }
    }

    async fn refuse(&self, id: Id<'_>, error: RpcError) {
        let _ = self.outgoing.send(MethodResponse::error(id, object(error)).into_json()).await;
    }

    /// Waits for the calls that run. Streams go on by themselves, as long as the writer does.
    async fn finish(mut self) {
        let outgoing = self.outgoing.clone();
        drop(self.outgoing);
        tokio::select! {
            () = async { while self.running.join_next().await.is_some() {} } => {}
            () = outgoing.closed() => {}
        }
    }
}

impl Shared {
    async fn answer(&self, bytes: Vec<u8>, outgoing: mpsc::Sender<Box<RawValue>>) {
        let answer = if bytes.first() == Some(&b'[') {
            self.batch(&bytes, &outgoing).await
        } else {
            self.single(&bytes, &outgoing).await.map(MethodResponse::into_json)
        };
        if let Some(answer) = answer {
            let _ = outgoing.send(answer).await;
        }
    }

    async fn batch(
        &self,
        bytes: &[u8],
        outgoing: &mpsc::Sender<Box<RawValue>>,
    ) -> Option<Box<RawValue>> {
        let entries: Vec<&RawValue> = match serde_json::from_slice(bytes) {
            Ok(entries) => entries,
            Err(error) => return Some(parse_error(&error).into_json()),
        };
        if entries.is_empty() {
            let error = RpcError::new(ErrorKind::InvalidRequest, "the batch is empty");
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
                    Some(MethodResponse::error(request.id, object(stream_in_batch())))
                }
                _ => self.single(entry, outgoing).await,
            };
            if let Some(answer) = answer {
                let _ = answers.append(answer);
            }
        }
        // A batch of notifications alone is not answered.
        (!answers.is_empty()).then(|| MethodResponse::from_batch(answers.finish()).into_json())
    }

    /// Answers one call; `None` where the answer has gone out already, or none is due.
    async fn single(
        &self,
        bytes: &[u8],
        outgoing: &mpsc::Sender<Box<RawValue>>,
    ) -> Option<MethodResponse> {
        let request = match serde_json::from_slice::<Request<'_>>(bytes) {
            Ok(request) => request,
            Err(_) if is_notification(bytes) => return None,
            Err(error) if error.is_data() => return Some(refuse_request(bytes, &error)),
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
                let subscription_permit = self.subscriptions.acquire()?;
                let id_provider: &dyn IdProvider = &self.ids;
                let state =
                    SubscriptionState { conn_id: self.id, id_provider, subscription_permit };
                // The reply goes out through the sink, so that it comes before the first event.
                callback(id, params, MethodSink::new(outgoing.clone()), state, extensions).await;
                return None;
            }
        })
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
    );
    MethodResponse::error(Id::Null, object(error))
}

fn refuse_request(bytes: &[u8], error: &serde_json::Error) -> MethodResponse {
    let id =
        serde_json::from_slice::<InvalidRequest<'_>>(bytes).map_or(Id::Null, |request| request.id);
    MethodResponse::error(id, object(invalid_request(&error.to_string())))
}

pub(super) fn invalid_request(why: &str) -> RpcError {
    RpcError::new(ErrorKind::InvalidRequest, format!("the request is not JSON-RPC 2.0: {why}"))
        .with_hint("a request is an object with `jsonrpc`, `id`, `method` and perhaps `params`")
}

pub(super) fn stream_in_batch() -> RpcError {
    RpcError::new(ErrorKind::InvalidRequest, "a batch may not hold streams")
}

pub(super) fn too_large(limit: usize) -> RpcError {
    RpcError::new(ErrorKind::TooLarge, format!("the request is longer than {limit} bytes"))
        .with_hint("raise `max_request_bytes` in the configuration")
}
