//! What is read of requests, within the limits, and the bodies of answers that stream.

use super::{Core, refusal};
use crate::listen::{Held, too_long};
use crate::rpc::Running;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Path};
use axum::http::{HeaderValue, StatusCode, header::CONTENT_TYPE, request::Parts};
use axum::response::Response;
use futures_util::stream::unfold;
use hearth_protocol::{ErrorKind, Event, ProgressEvent, RpcError};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::Display;

/// What most events take.
const EVENT: usize = 512;

/// What a path names.
pub(super) struct Named(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let named = Path::from_request_parts(parts, state).await;
        named.map(|Path(name)| Self(name)).map_err(|_| {
            let error = RpcError::new(ErrorKind::InvalidRequest, "the path is no UTF-8");
            refusal(parts.uri.path(), StatusCode::BAD_REQUEST, &error)
        })
    }
}

/// A request, which counts as the user's as long as it is held.
pub(super) struct Asked<T> {
    pub(super) value: T,
    pub(super) held: Held,
}

pub(super) async fn read<T: DeserializeOwned>(
    core: &Core,
    body: Body,
) -> Result<Asked<T>, RpcError> {
    let (bytes, held) = collect(core, body).await?;
    if bytes.is_empty() {
        return Err(RpcError::new(ErrorKind::InvalidRequest, "missing request body"));
    }
    let unfit = |why: &dyn Display| {
        RpcError::new(ErrorKind::InvalidRequest, format!("the request does not fit: {why}"))
    };
    // Serde would take an array for an object whose fields are told by their places.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(unfit(&"it is no JSON object"));
    }
    let value = serde_json::from_slice(&bytes).map_err(|error| unfit(&error))?;
    Ok(Asked { value, held })
}

async fn collect(core: &Core, mut body: Body) -> Result<(Vec<u8>, Held), RpcError> {
    let limit = core.daemon.config().max_request_bytes;
    let (mut bytes, mut held) = (Vec::new(), core.account.hold());
    let mut wrong = None;
    while let Some(part) = body.frame().await {
        let part = part.map_err(|_| {
            RpcError::new(ErrorKind::InvalidRequest, "the request ended before its body did")
        })?;
        let Ok(part) = part.into_data() else { continue };
        // To its end in any case, or the client might not get to read the answer.
        if wrong.is_some() {
            continue;
        }
        bytes.extend_from_slice(&part);
        if bytes.len() > limit {
            wrong = Some(too_long(limit));
        } else if !held.set(bytes.len()) {
            wrong = Some(core.account.crowded());
        }
        if wrong.is_some() {
            bytes = Vec::new();
        }
    }
    match wrong {
        Some(error) => Err(error),
        None => Ok((bytes, held)),
    }
}

/// Events of work that takes a while.
pub(super) trait Progress: Send + 'static {
    /// Something that is worth a line to clients that know no other progress.
    fn says_something(&self) -> bool;
    /// The error that it ends with.
    fn error(&self) -> Option<&RpcError>;
}

impl<R: Send + 'static> Progress for Event<R> {
    fn says_something(&self) -> bool {
        !matches!(
            self,
            Self::Accepted { .. }
                | Self::Loading { .. }
                | Self::Queued { .. }
                | Self::Prefill { .. }
        )
    }

    fn error(&self) -> Option<&RpcError> {
        if let Self::Error { error } = self { Some(error) } else { None }
    }
}

impl<R: Send + 'static> Progress for ProgressEvent<R> {
    fn says_something(&self) -> bool {
        !matches!(self, Self::Accepted { .. })
    }

    fn error(&self) -> Option<&RpcError> {
        if let Self::Error { error } = self { Some(error) } else { None }
    }
}

/// What runs for one answer, one after another, with the request that it was asked with.
pub(super) struct Answering<E> {
    running: VecDeque<Running<E>>,
    first: Option<E>,
    _held: Held,
}

/// Waits for the first event that says something. An error before it is the whole answer's.
pub(super) async fn begin<E: Progress>(
    running: Running<E>,
    held: Held,
) -> Result<Answering<E>, RpcError> {
    begin_all([running].into(), held).await
}

/// The same for several, of which the next is begun when the one before has ended well.
pub(super) async fn begin_all<E: Progress>(
    running: VecDeque<Running<E>>,
    held: Held,
) -> Result<Answering<E>, RpcError> {
    let mut answering = Answering { running, first: None, _held: held };
    answering.begin(E::says_something).await?;
    Ok(answering)
}

fn ended_early() -> RpcError {
    RpcError::new(ErrorKind::Internal, "the work ended without a result")
}

impl<E: Progress> Answering<E> {
    pub(super) fn new(running: Running<E>, held: Held) -> Self {
        Self { running: [running].into(), first: None, _held: held }
    }

    /// Waits for the first event of a kind, which is the next one then. An error before it is the whole answer's.
    pub(super) async fn begin(&mut self, is_it: impl Fn(&E) -> bool) -> Result<(), RpcError> {
        while let Some(event) = self.next().await {
            if let Some(error) = event.error() {
                return Err(error.clone());
            }
            if is_it(&event) {
                self.first = Some(event);
                return Ok(());
            }
        }
        Err(ended_early())
    }

    pub(super) async fn next(&mut self) -> Option<E> {
        if let Some(event) = self.first.take() {
            return Some(event);
        }
        loop {
            match self.running.front_mut()?.next().await {
                Some(event) => {
                    if event.error().is_some() {
                        self.running.truncate(1);
                    }
                    return Some(event);
                }
                None => drop(self.running.pop_front()),
            }
        }
    }

    /// Streams what `write` makes of each event, as it comes.
    pub(super) fn stream(
        self,
        kind: &'static str,
        write: impl FnMut(E, &mut Vec<u8>) + Send + 'static,
    ) -> Response {
        let stream = unfold((self, write), |(mut this, mut write)| async move {
            loop {
                let event = this.next().await?;
                let mut bytes = Vec::with_capacity(EVENT);
                write(event, &mut bytes);
                if !bytes.is_empty() {
                    return Some((Ok::<_, Infallible>(Bytes::from(bytes)), (this, write)));
                }
            }
        });
        let mut response = Response::new(Body::from_stream(stream));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }
}

impl<R: Send + 'static> Answering<Event<R>> {
    /// The end of it, where only that is wanted.
    pub(super) async fn reply(self) -> Result<R, RpcError> {
        self.replies().await?.pop().ok_or_else(ended_early)
    }

    /// The ends of all that run for it.
    pub(super) async fn replies(mut self) -> Result<Vec<R>, RpcError> {
        let mut replies = Vec::new();
        while let Some(event) = self.next().await {
            match event {
                Event::Done { reply } => replies.push(reply),
                Event::Error { error } => return Err(error),
                _ => {}
            }
        }
        Ok(replies)
    }
}
