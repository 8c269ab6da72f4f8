//! Methods whose work takes a while: each run is entered among the requests, says how it gets on, and can be ended at any
//! moment by being dropped.
//!
//! [`Work::run`] is all that such a method has to say. From it are made `NAME`, which waits for the result, `NAME.stream`,
//! which sends the events too, and [`Running`], by which this process's own code hears them.
//!
//! **Invariant.** Whatever ends a stream, but the end of its connection, it ends with one terminal event.

use super::requests::Wishes;
use super::{Daemon, admit, object, permit};
use crate::listen::Caller;
use hearth_protocol::{ErrorKind, Event, Method, ProgressEvent, RpcError, StreamMethod};
use jsonrpsee::core::server::{MethodSink, PendingSubscriptionSink, RpcModule};
use jsonrpsee::types::{
    ErrorObjectOwned, SubscriptionId, SubscriptionPayload, SubscriptionResponse,
};
use serde::Serialize;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use tokio::sync::mpsc;

/// A method that runs for a while.
pub(crate) trait Work: Method {
    type Event: About<Self::Reply>;

    /// The caller's own name for the request.
    fn name(params: &mut Self::Params) -> Option<String>;

    /// Dropping the future gives back whatever it holds.
    fn run(
        request: Request,
        params: Self::Params,
        events: Events<Self::Event>,
    ) -> impl Future<Output = Result<Self::Reply, RpcError>> + Send;
}

/// An event that can say how a request begins and ends.
pub(crate) trait About<R>: Serialize + Send + Sync + 'static {
    fn accepted(request: String) -> Self;
    fn ended(result: Result<R, RpcError>) -> Self;
}

impl<R: Serialize + Send + Sync + 'static> About<R> for Event<R> {
    fn accepted(request: String) -> Self {
        Self::Accepted { request }
    }

    fn ended(result: Result<R, RpcError>) -> Self {
        match result {
            Ok(reply) => Self::Done { reply },
            Err(error) => Self::Error { error },
        }
    }
}

impl<R: Serialize + Send + Sync + 'static> About<R> for ProgressEvent<R> {
    fn accepted(request: String) -> Self {
        Self::Accepted { request }
    }

    fn ended(result: Result<R, RpcError>) -> Self {
        match result {
            Ok(reply) => Self::Done { reply },
            Err(error) => Self::Error { error },
        }
    }
}

/// Whose request it is.
pub(crate) struct Request {
    pub(super) daemon: Arc<Daemon>,
    pub(super) caller: Caller,
    pub(super) name: String,
    pub(super) wishes: Wishes,
}

/// Where a request's events go; nowhere if only its result is wanted.
pub(crate) struct Events<E>(To<E>);

enum To<E> {
    Nowhere,
    Subscriber(Subscriber),
    Running(mpsc::Sender<E>),
}

#[derive(Clone)]
struct Subscriber {
    out: MethodSink,
    method: &'static str,
    subscription: SubscriptionId<'static>,
}

impl<E: Serialize> Events<E> {
    /// Waits until there is room for one more.
    pub(super) async fn tell(&self, event: E) {
        let Subscriber { out, method, subscription } = match &self.0 {
            To::Nowhere => return,
            To::Subscriber(subscriber) => subscriber,
            To::Running(events) => {
                let _ = events.send(event).await;
                return;
            }
        };
        let payload = SubscriptionPayload { subscription: subscription.clone(), result: event };
        let message = SubscriptionResponse::new((*method).into(), payload);
        if let Ok(message) = serde_json::value::to_raw_value(&message) {
            // Nobody there: whoever drives the request notices by itself.
            let _ = out.send(message).await;
        }
    }
}

async fn drive<M: Work>(
    daemon: Arc<Daemon>,
    caller: Caller,
    mut params: M::Params,
    events: Events<M::Event>,
) -> Result<M::Reply, RpcError> {
    let entry = daemon.requests.register(caller, M::name(&mut params))?;
    let (name, wishes) = (entry.name().to_string(), entry.wishes());
    let request = Request { daemon, caller, name, wishes };
    let run = async {
        events.tell(M::Event::accepted(request.name.clone())).await;
        M::run(request, params, events).await
    };
    tokio::select! {
        biased;
        error = entry.wishes().end() => Err(error),
        result = run => result,
    }
}

/// A method of this process's own code, up to its result.
pub(crate) async fn run<M: Work>(
    daemon: Arc<Daemon>,
    caller: Caller,
    params: M::Params,
) -> Result<M::Reply, RpcError> {
    permit::<M>(&daemon, caller).await?;
    drive::<M>(daemon, caller, params, Events(To::Nowhere)).await
}

/// A request of this process's own code, which runs while it is listened to and ends by being dropped.
pub(crate) struct Running<E> {
    events: mpsc::Receiver<E>,
    /// `None` once it has ended.
    work: Option<Pin<Box<dyn Future<Output = E> + Send>>>,
    last: Option<E>,
}

impl<E: Send + 'static> Running<E> {
    pub(crate) fn start<M: Work<Event = E>>(
        daemon: Arc<Daemon>,
        caller: Caller,
        params: M::Params,
    ) -> Self
    where
        E: About<M::Reply>,
    {
        let (to, events) = mpsc::channel(1);
        let work = async move {
            let run = async {
                permit::<M>(&daemon, caller).await?;
                drive::<M>(Arc::clone(&daemon), caller, params, Events(To::Running(to))).await
            };
            E::ended(run.await)
        };
        Self { events, work: Some(Box::pin(work)), last: None }
    }

    /// The next event; none after the terminal one.
    pub(crate) async fn next(&mut self) -> Option<E> {
        poll_fn(|context| {
            // Only the work sends, and only while it is polled: nobody need be woken for what is in the channel.
            if self.events.is_empty()
                && let Some(work) = &mut self.work
                && let Poll::Ready(last) = work.as_mut().poll(context)
            {
                (self.work, self.last) = (None, Some(last));
            }
            match self.events.try_recv() {
                Ok(event) => Poll::Ready(Some(event)),
                Err(_) if self.work.is_some() => Poll::Pending,
                Err(_) => Poll::Ready(self.last.take()),
            }
        })
        .await
    }
}

/// Registers `NAME`.
pub(super) fn call<M: Work>(module: &mut RpcModule<Daemon>)
where
    M::Reply: Clone,
{
    let registered = module.register_async_method(M::NAME, async |params, daemon, extensions| {
        let (caller, params) = admit::<M>(&daemon, &params, &extensions).await.map_err(object)?;
        let nowhere = Events(To::Nowhere);
        let reply = drive::<M>(daemon, caller, params, nowhere).await.map_err(object)?;
        Ok::<_, ErrorObjectOwned>(reply)
    });
    assert!(registered.is_ok(), "`{}` is registered twice", M::NAME);
}

/// Registers `NAME` and `NAME.stream`.
pub(super) fn stream<M>(module: &mut RpcModule<Daemon>)
where
    M: Work + StreamMethod<Event = <M as Work>::Event>,
    <M as Work>::Event: About<M::Reply>,
    M::Reply: Clone,
{
    call::<M>(module);
    let registered = module.register_subscription(
        M::STREAM,
        M::EVENT,
        M::UNSUBSCRIBE,
        move |params, pending: PendingSubscriptionSink, daemon, extensions| async move {
            let (caller, params) = match admit::<M>(&daemon, &params, &extensions).await {
                Ok(admitted) => admitted,
                Err(error) => return pending.reject(object(error)).await,
            };
            let Some(out) = extensions.get::<MethodSink>().cloned() else { return };
            let Ok(sink) = pending.accept().await else { return };
            // Past the subscription itself, which takes nothing more once it is unsubscribed.
            let to = Subscriber { out, method: M::EVENT, subscription: sink.subscription_id() };
            let last = Events(To::Subscriber(to.clone()));
            let events = Events(To::Subscriber(to));
            let result = tokio::select! {
                result = drive::<M>(daemon, caller, params, events) => result,
                () = sink.closed() => {
                    Err(RpcError::new(ErrorKind::Cancelled, "the stream was unsubscribed"))
                }
            };
            last.tell(<M as Work>::Event::ended(result)).await;
        },
    );
    assert!(registered.is_ok(), "`{}` is registered twice", M::STREAM);
}
