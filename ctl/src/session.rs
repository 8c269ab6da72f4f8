//! A connection to the daemon, with errors that help.
//!
//! Sockets are tried in order until one answers. Every reply passes through [`Session::explain`], so that a reply which
//! cannot be read, or a method the daemon does not know, is checked against the daemon's version before it is reported.

use crate::absent::{self, Tried};
use crate::error::CtlError;
use crate::interrupt::{Interrupt, Watch};
use crate::wire::AsSent;
use hearth_protocol::{
    Blob, Client, ClientError, DaemonStatus, Empty, ErrorKind, Method, Stream, StreamMethod,
    default_socket_paths,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Debug)]
pub(crate) struct Session {
    client: Client,
    path: PathBuf,
    interrupt: Interrupt,
    /// Nothing more can be asked over this connection, by our own doing.
    is_spent: bool,
}

/// `--socket` alone if it was given, else the usual places.
pub(crate) fn socket_paths(option: Option<&Path>) -> Vec<PathBuf> {
    option.map_or_else(default_socket_paths, |path| vec![path.into()])
}

impl Session {
    pub(crate) fn open(paths: &[PathBuf]) -> Result<Self, CtlError> {
        let mut tried = Vec::new();
        for path in paths {
            match Client::connect(path) {
                Ok(client) => {
                    return Ok(Self {
                        client,
                        path: path.clone(),
                        interrupt: Interrupt::default(),
                        is_spent: false,
                    });
                }
                Err(ClientError::Connect { path, source }) => tried.push(Tried { path, source }),
                Err(other) => {
                    return Err(CtlError::failed(other.to_string(), "run the command again"));
                }
            }
        }
        Err(absent::explain(&tried))
    }

    /// The same socket again, with the same handling of Ctrl-C.
    pub(crate) fn reconnect(&mut self) -> Result<(), CtlError> {
        let interrupt = self.interrupt.clone();
        *self = Self { interrupt, ..Self::open(std::slice::from_ref(&self.path))? };
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The reply as it came.
    pub(crate) fn call<M: Method>(&mut self, params: &M::Params) -> Result<Value, CtlError> {
        self.call_named(M::NAME, params)
    }

    pub(crate) fn call_named(
        &mut self,
        method: &str,
        params: &impl serde::Serialize,
    ) -> Result<Value, CtlError> {
        let interrupt = self.interrupt.clone();
        let _watch = watch(&interrupt, &self.client, None)?;
        let result = self.client.call_value(method, params);
        result.map_err(|error| {
            let error = self.explain(error);
            self.spend(error)
        })
    }

    /// The reply, understood.
    pub(crate) fn ask<M: Method>(&mut self, params: &M::Params) -> Result<M::Reply, CtlError> {
        let reply = self.call::<M>(params)?;
        self.read(reply)
    }

    /// Understands what [`Session::call`] gave.
    pub(crate) fn read<R: DeserializeOwned>(&self, reply: Value) -> Result<R, CtlError> {
        serde_json::from_value(reply).map_err(|error| self.unreadable(&error.to_string()))
    }

    /// Starts a stream and gives each event to `on_event`, until one is the last. `request` is what Ctrl-C cancels; without
    /// one it ends the connection, and with it the work.
    pub(crate) fn stream<M: StreamMethod>(
        &mut self,
        params: &M::Params,
        request: Option<&str>,
        mut on_event: impl FnMut(Value, &Watch<'_>) -> Result<(), StreamError>,
    ) -> Result<(), CtlError> {
        let interrupt = self.interrupt.clone();
        let mut watch = watch(&interrupt, &self.client, request)?;
        let result = (|| {
            let mut stream: Stream<'_, AsSent<M>> = self.client.stream(params)?;
            let mut first = stream.next_event()?;
            if first.as_ref().is_some_and(was_not_begun)
                && let Ok(client) = Client::connect(&self.path)
            {
                self.client = client;
                watch = self::watch(&interrupt, &self.client, request)?;
                stream = self.client.stream(params)?;
                first = stream.next_event()?;
            }
            while let Some(event) = first {
                on_event(event, &watch)?;
                first = stream.next_event()?;
            }
            Ok(())
        })();
        result.map_err(|error| {
            let error = match error {
                StreamError::Client(error) => self.explain(error),
                StreamError::Unreadable(error) => self.unreadable(&error.to_string()),
                StreamError::Ours(error) => error,
            };
            self.spend(error)
        })
    }

    /// Gives a blob's bytes to `on_bytes` as they come.
    pub(crate) fn fetch(
        &self,
        digest: &str,
        mut on_bytes: impl FnMut(&[u8]) -> Result<(), CtlError>,
    ) -> Result<(), CtlError> {
        let mut blob = Blob::open(&self.path, digest).map_err(|error| self.explain(error))?;
        let canceller = blob.canceller().map_err(|error| self.explain(error.into()))?;
        let _watch = self.interrupt.watch(canceller, None);
        let mut chunk = vec![0; 1 << 20];
        loop {
            match blob.read(&mut chunk) {
                Ok(0) if blob.n_left() == 0 => return Ok(()),
                Ok(0) => return Err(self.explain(ClientError::Closed)),
                Ok(n_read) => on_bytes(&chunk[..n_read])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.explain(error.into())),
            }
        }
    }

    /// Whether it was given up here, so that a new connection is no news about the daemon.
    pub(crate) fn is_spent(&self) -> bool {
        self.is_spent
    }

    /// After Ctrl-C hung up, or what came made no sense, work may still go on over there until this connection ends.
    fn spend(&mut self, error: CtlError) -> CtlError {
        self.is_spent |= matches!(error, CtlError::Interrupted | CtlError::Failed { .. });
        error
    }

    pub(crate) fn interrupted(&self) -> bool {
        self.interrupt.happened()
    }

    fn explain(&self, error: ClientError) -> CtlError {
        match error {
            ClientError::Closed if self.interrupted() => CtlError::Interrupted,
            ClientError::Closed => CtlError::Disconnected,
            ClientError::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                self.unreadable(&error.to_string())
            }
            ClientError::Io(_) if self.interrupted() => CtlError::Interrupted,
            ClientError::Io(error) if is_lost(&error) => CtlError::Disconnected,
            ClientError::Protocol(message) => self.unreadable(&message),
            ClientError::Rpc(error) => {
                // What a daemon of another version does not know is no fault of the person's.
                let suspicious = matches!(
                    error.kind(),
                    Some(ErrorKind::MethodNotFound | ErrorKind::InvalidParams)
                );
                let hint = if suspicious { self.version_difference() } else { None };
                CtlError::Rpc { error, hint }
            }
            other @ (ClientError::Io(_) | ClientError::Connect { .. }) => {
                CtlError::failed(other.to_string(), "run the command again")
            }
        }
    }

    fn unreadable(&self, detail: &str) -> CtlError {
        let message = format!("the daemon's answer cannot be read: {detail}");
        let hint = self.version_difference().unwrap_or_else(|| {
            format!(
                "nothing is known about the other end but that it listens on `{}`; if it is \
                 hearthd {VERSION} this is a bug worth reporting",
                self.path.display()
            )
        });
        CtlError::failed(message, hint)
    }

    /// Asks over a fresh connection, since this one may hold half an answer.
    fn version_difference(&self) -> Option<String> {
        let mut client = Client::connect(&self.path).ok()?;
        let _watch = watch(&self.interrupt, &client, None).ok()?;
        let status = client.call_value(DaemonStatus::NAME, &Empty {}).ok()?;
        let theirs = status["version"].as_str()?;
        (theirs != VERSION).then(|| {
            format!(
                "ctl is version {VERSION} and the daemon is {theirs}; restart the daemon if it was \
                 upgraded, or use the `ctl` that came with it"
            )
        })
    }
}

/// Why a stream stopped before its last event.
#[derive(Debug)]
pub(crate) enum StreamError {
    Client(ClientError),
    Unreadable(serde_json::Error),
    Ours(CtlError),
}

impl From<ClientError> for StreamError {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl From<serde_json::Error> for StreamError {
    fn from(error: serde_json::Error) -> Self {
        Self::Unreadable(error)
    }
}

impl From<CtlError> for StreamError {
    fn from(error: CtlError) -> Self {
        Self::Ours(error)
    }
}

fn watch<'a>(
    interrupt: &'a Interrupt,
    client: &Client,
    request: Option<&str>,
) -> Result<Watch<'a>, CtlError> {
    let canceller = client.canceller().map_err(|error| {
        CtlError::failed(
            format!("cannot copy the connection's file descriptor: {error}"),
            "raise the limit on open files, `ulimit -n`",
        )
    })?;
    Ok(interrupt.watch(canceller, request.map(str::to_owned)))
}

/// Whether this first event of a stream says that the daemon stops. While it is restarted its socket takes connections, if the
/// service manager has it, and the next daemon answers them.
fn was_not_begun(event: &Value) -> bool {
    event["type"] == "error" && event["error"]["data"]["kind"] == "shutting_down"
}

fn is_lost(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected)
}
