//! The Unix socket: who connects, and what they speak.
//!
//! The first bytes decide: an upper-case letter begins an HTTP method, anything else is raw JSON-RPC. Whatever they speak,
//! `framing` finds the requests and `calls` answers them, from the same method table and for the same caller, whom the
//! kernel names.

mod calls;
mod download;
mod framing;
mod http;
mod raw;
mod socket;
mod unmask;
mod users;
mod websocket;

use crate::rpc::{Daemon, object};
use hearth_protocol::{ErrorKind, RpcError};
use jsonrpsee::core::server::{MethodResponse, Methods};
use jsonrpsee::types::Id;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};

pub(crate) use socket::bind;
use users::{Account, Users};

/// Who is at the other end, as the kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Caller {
    fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        Ok(Self { uid: credentials.uid(), gid: credentials.gid() })
    }

    /// Root, the daemon's own user, or a member of the group.
    pub(crate) async fn is_admin(self, group: &str) -> bool {
        if self.uid == 0 || self.uid == rustix::process::geteuid().as_raw() {
            return true;
        }
        let group = group.to_string();
        // The user database may be on the network.
        tokio::task::spawn_blocking(move || self.is_member(&group)).await.unwrap_or(false)
    }

    fn is_member(self, group: &str) -> bool {
        let Ok(Some(group)) = nix::unistd::Group::from_name(group) else { return false };
        if group.gid.as_raw() == self.gid {
            return true;
        }
        match nix::unistd::User::from_uid(self.uid.into()) {
            Ok(Some(user)) => group.mem.contains(&user.name),
            _ => false,
        }
    }
}

/// Tells connections that the daemon stops.
#[derive(Debug, Clone)]
pub(crate) struct Stop(watch::Receiver<()>);

impl Stop {
    /// Sending says so; the sender is closed once every connection has ended.
    pub(crate) fn channel() -> (watch::Sender<()>, Self) {
        let (stop, stopped) = watch::channel(());
        (stop, Self(stopped))
    }

    async fn stopped(&self) {
        let _ = self.0.clone().changed().await;
    }
}

/// Accepts connections until they are to stop. Each gets a task of its own.
pub(crate) async fn serve(
    listener: UnixListener,
    daemon: Arc<Daemon>,
    methods: Methods,
    stop: Stop,
) {
    let max_connections = daemon.config.max_connections;
    let places = Arc::new(Semaphore::new(max_connections));
    let users = Users::new(max_connections, daemon.config.max_request_bytes);
    let mut next_id = 0;
    loop {
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
            () = stop.stopped() => return,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.stopped() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("Accepting a connection: {error}");
                // Out of file descriptors: one has to be given back before trying again makes sense.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        next_id += 1;
        let connection = Caller::of(&stream).map_err(|error| {
            let message = format!("the kernel does not say who you are: {error}");
            RpcError::new(ErrorKind::PermissionDenied, message)
        });
        let connection = connection.and_then(|caller| {
            let account = users.connect(caller.uid).map(Arc::new).ok_or_else(|| {
                let message = format!("uid {} has too many connections", caller.uid);
                RpcError::new(ErrorKind::Overloaded, message)
                    .with_hint("close some, or raise `max_connections` in the configuration")
            })?;
            let (daemon, methods, stop) = (Arc::clone(&daemon), methods.clone(), stop.clone());
            Ok(Connection { id: next_id, caller, account, daemon, methods, stop })
        });
        tokio::spawn(async move {
            let result = match connection {
                Ok(connection) => connection.run(stream).await,
                Err(error) => refuse(stream, error).await,
            };
            if let Err(error) = result {
                tracing::debug!("A connection ended: {error}");
            }
            drop(place);
        });
    }
}

async fn refuse(mut stream: UnixStream, error: RpcError) -> io::Result<()> {
    let reply = MethodResponse::error(Id::Null, object(error)).into_json();
    stream.write_all(format!("{reply}\n").as_bytes()).await
}

/// What a connection's task needs.
struct Connection {
    id: usize,
    caller: Caller,
    account: Arc<Account>,
    daemon: Arc<Daemon>,
    methods: Methods,
    stop: Stop,
}

impl Connection {
    async fn run(self, mut stream: UnixStream) -> io::Result<()> {
        let mut first = vec![0; 4096];
        let n = tokio::select! {
            n = stream.read(&mut first) => n?,
            () = self.stop.stopped() => return Ok(()),
        };
        first.truncate(n);
        match first.first() {
            None => Ok(()),
            Some(b'A'..=b'Z') => http::serve(self, first, stream).await,
            Some(_) => raw::serve(self, first, stream).await,
        }
    }
}
