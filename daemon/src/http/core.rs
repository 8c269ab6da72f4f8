//! What dialects have of the daemon: its methods, called as the one whose request it is.

use crate::listen::{Account, Caller};
use crate::rpc::{self, Daemon, Registered, Running, Work};
use axum::extract::FromRequestParts;
use axum::http::{StatusCode, request::Parts};
use hearth_protocol::{Method, RpcError};
use hearth_sessions::{SessionError, Sessions};
use std::sync::Arc;

#[derive(Clone)]
pub(crate) struct Core {
    pub(super) daemon: Arc<Daemon>,
    pub(super) account: Arc<Account>,
    caller: Caller,
}

impl Core {
    pub(crate) fn new(daemon: &Arc<Daemon>, account: Arc<Account>, caller: Caller) -> Self {
        Self { daemon: Arc::clone(daemon), account, caller }
    }

    pub(super) fn uid(&self) -> u32 {
        self.caller.uid
    }

    /// Reads or writes what is kept of the one whose request it is.
    pub(super) async fn kept<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Arc<Sessions>, u32) -> Result<T, SessionError> + Send + 'static,
    ) -> Result<T, RpcError> {
        let uid = self.caller.uid;
        rpc::kept(&self.daemon, move |sessions| act(sessions, uid)).await
    }

    /// Enters a request under this name.
    pub(super) fn register(&self, name: &str) -> Result<Registered, RpcError> {
        self.daemon.requests.register(self.caller, Some(name.into()))
    }

    pub(super) fn cancel(&self, name: &str) -> Result<(), RpcError> {
        self.daemon.requests.cancel(self.caller, name)
    }

    /// Whether the one whose request it is may call a method.
    pub(super) async fn permit<M: Method>(&self) -> Result<(), RpcError> {
        rpc::permit::<M>(&self.daemon, self.caller).await
    }

    /// Begins a method that takes a while, and hears its events.
    pub(super) fn start<M>(&self, params: M::Params) -> Running<M::Event>
    where
        M: Work,
    {
        Running::start::<M>(Arc::clone(&self.daemon), self.caller, params)
    }

    /// A method that takes a while, up to its result.
    pub(super) async fn run<M: Work>(&self, params: M::Params) -> Result<M::Reply, RpcError> {
        rpc::run::<M>(Arc::clone(&self.daemon), self.caller, params).await
    }

    /// A method that is answered at once, by its handler.
    pub(super) async fn call<M, F>(
        &self,
        handler: fn(Arc<Daemon>, Caller, M::Params) -> F,
        params: M::Params,
    ) -> Result<M::Reply, RpcError>
    where
        M: Method,
        F: Future<Output = Result<M::Reply, RpcError>>,
    {
        self.permit::<M>().await?;
        handler(Arc::clone(&self.daemon), self.caller, params).await
    }
}

/// Put there by whoever took the request off the connection.
impl<S: Sync> FromRequestParts<S> for Core {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        parts.extensions.get::<Self>().cloned().ok_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}
