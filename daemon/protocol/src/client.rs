//! A small blocking client: one connection, one call or stream at a time.
//!
//! It speaks raw JSON-RPC lines and needs nothing but the standard library and serde. [`Canceller`] ends a running
//! stream, or its thinking, from another thread, such as a signal handler's.

use crate::{
    CancelMethod, CancelParams, ChatEndThinking, EndThinkingParams, Method, RpcError, StreamMethod,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Write};
use std::marker::PhantomData;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No daemon answered at this path.
    #[error("cannot connect to `{}`: {source}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection to the daemon broke: {0}")]
    Io(#[from] io::Error),
    /// The daemon closed the connection before the answer was complete.
    #[error("the daemon closed the connection before it answered")]
    Closed,
    /// What came is not the protocol.
    #[error("the daemon answered something that is not its protocol: {0}")]
    Protocol(String),
    /// The daemon answered with an error.
    #[error(transparent)]
    Rpc(#[from] RpcError),
}

/// The system's socket. On macOS `/var/run` is emptied at each boot, and launchd makes no folders in it.
pub const SYSTEM_SOCKET: &str =
    if cfg!(target_os = "macos") { "/var/run/hearth.sock" } else { "/run/hearth/hearth.sock" };

/// Sockets to try, in order: `$HEARTH_SOCKET` alone if it is set, else the user's and then the system's.
pub fn default_socket_paths() -> Vec<PathBuf> {
    if let Some(path) = std::env::var_os("HEARTH_SOCKET").filter(|path| !path.is_empty()) {
        return vec![path.into()];
    }
    let user = std::env::var_os("XDG_RUNTIME_DIR")
        .map(|dir| PathBuf::from(dir).join("hearth/hearth.sock"));
    user.into_iter().chain([SYSTEM_SOCKET.into()]).collect()
}

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<UnixStream>,
    line: String,
    next_id: u64,
}

impl Client {
    /// Connects to a socket.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path)
            .map_err(|source| ClientError::Connect { path: path.into(), source })?;
        Ok(Self { reader: BufReader::new(stream), line: String::new(), next_id: 1 })
    }

    /// Calls a method and waits for its reply.
    pub fn call<M: Method>(&mut self, params: &M::Params) -> Result<M::Reply, ClientError> {
        let id = self.send(M::NAME, params)?;
        self.reply(id)
    }

    /// Calls a method by its name, for scripts and for showing a reply exactly as it came.
    pub fn call_value(
        &mut self,
        method: &str,
        params: &impl serde::Serialize,
    ) -> Result<Value, ClientError> {
        let id = self.send(method, params)?;
        self.reply(id)
    }

    /// Starts a stream. Other calls on this client have to wait until it ended.
    pub fn stream<M: StreamMethod>(
        &mut self,
        params: &M::Params,
    ) -> Result<Stream<'_, M>, ClientError> {
        let id = self.send(M::STREAM, params)?;
        let subscription = self.reply::<Value>(id)?;
        Ok(Stream { client: self, subscription, ended: false, method: PhantomData })
    }

    /// A handle that cancels requests over the same connection, from another thread.
    pub fn canceller(&self) -> io::Result<Canceller> {
        Canceller::of(self.reader.get_ref())
    }

    fn send(&mut self, method: &str, params: &impl serde::Serialize) -> Result<u64, ClientError> {
        let id = self.next_id;
        self.next_id += 1;
        write_line(
            self.reader.get_ref(),
            &json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }),
        )?;
        Ok(id)
    }

    /// Reads until the reply with this id, passing over what belongs to streams that ended.
    fn reply<R: DeserializeOwned>(&mut self, id: u64) -> Result<R, ClientError> {
        loop {
            let mut message = self.read()?;
            let ours = message["id"] == id;
            // An error without an id says that the daemon could not read the request at all.
            if !message["error"].is_null() && (ours || message["id"].is_null()) {
                return Err(ClientError::Rpc(parse(message["error"].take())?));
            }
            if ours {
                return parse(message["result"].take());
            }
        }
    }

    fn read(&mut self) -> Result<Value, ClientError> {
        self.line.clear();
        if self.reader.read_line(&mut self.line)? == 0 {
            return Err(ClientError::Closed);
        }
        serde_json::from_str(&self.line).map_err(|error| ClientError::Protocol(error.to_string()))
    }
}

/// Events of one stream.
#[derive(Debug)]
pub struct Stream<'a, M: StreamMethod> {
    client: &'a mut Client,
    subscription: Value,
    ended: bool,
    method: PhantomData<M>,
}

impl<M: StreamMethod> Stream<'_, M> {
    /// The next event, or `None` after the terminal one.
    pub fn next_event(&mut self) -> Result<Option<M::Event>, ClientError> {
        while !self.ended {
            let mut message = self.client.read()?;
            if message["method"] == M::EVENT
                && message["params"]["subscription"] == self.subscription
            {
                let event = message["params"]["result"].take();
                self.ended = event["type"] == "done" || event["type"] == "error";
                return parse(event).map(Some);
            }
        }
        Ok(None)
    }
}

/// Cancels requests from another thread.
#[derive(Debug)]
pub struct Canceller {
    stream: UnixStream,
}

impl Canceller {
    pub(crate) fn of(stream: &UnixStream) -> io::Result<Self> {
        Ok(Self { stream: stream.try_clone()? })
    }

    /// Asks the daemon to end a request. Its stream still ends with a terminal event.
    pub fn cancel(&self, request: &str) -> io::Result<()> {
        self.send::<CancelMethod>(&CancelParams { request: request.into() })
    }

    /// Asks the daemon to let a request think no more, but answer.
    pub fn end_thinking(&self, request: &str) -> io::Result<()> {
        self.send::<ChatEndThinking>(&EndThinkingParams { request: request.into() })
    }

    /// The reply is read, and passed over, by whoever reads the stream.
    fn send<M: Method>(&self, params: &M::Params) -> io::Result<()> {
        let id = format!("{} beside a stream", M::NAME);
        write_line(
            &self.stream,
            &json!({ "jsonrpc": "2.0", "id": id, "method": M::NAME, "params": params }),
        )
    }

    /// Ends the connection, for a daemon that does not answer: whoever reads it gets [`ClientError::Closed`].
    pub fn hang_up(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Both)
    }
}

fn write_line(mut stream: &UnixStream, value: &Value) -> io::Result<()> {
    let mut line = value.to_string();
    line.push('\n');
    stream.write_all(line.as_bytes())
}

fn parse<T: DeserializeOwned>(value: Value) -> Result<T, ClientError> {
    serde_json::from_value(value).map_err(|error| ClientError::Protocol(error.to_string()))
}
