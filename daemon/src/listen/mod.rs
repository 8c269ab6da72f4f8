//! The Unix socket: who connects, and what they speak.
//!
//! The first bytes decide: an upper-case letter begins an HTTP method, anything else is raw JSON-RPC. Both get the same
//! method table and the same caller, whom the kernel names.

mod framing;
mod http;
mod raw;
mod socket;

use crate::rpc::Daemon;
use hearth_protocol::ErrorKind;
use jsonrpsee::server::{Methods, StopHandle};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

pub(crate) use socket::bind;

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

/// Accepts connections until the stop handle says so. Each gets a task of its own.
pub(crate) async fn serve(
    listener: UnixListener,
    daemon: Arc<Daemon>,
    methods: Methods,
    stop: StopHandle,
) {
    let next_id = AtomicU32::new(1);
    let places = Arc::new(Semaphore::new(daemon.config.max_connections));
    loop {
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
            () = stop.clone().shutdown() => return,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.clone().shutdown() => return,
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
        let connection = Connection {
            id: next_id.fetch_add(1, Ordering::Relaxed),
            daemon: Arc::clone(&daemon),
            methods: methods.clone(),
            stop: stop.clone(),
        };
        tokio::spawn(async move {
            if let Err(error) = connection.run(stream).await {
                tracing::debug!("A connection ended: {error}");
            }
            drop(place);
        });
    }
}

/// What a connection's task needs.
struct Connection {
    id: u32,
    daemon: Arc<Daemon>,
    methods: Methods,
    stop: StopHandle,
}

impl Connection {
    async fn run(self, mut stream: UnixStream) -> io::Result<()> {
        let caller = match Caller::of(&stream) {
            Ok(caller) => caller,
            Err(error) => {
                let error = hearth_protocol::RpcError::new(
                    ErrorKind::PermissionDenied,
                    format!("the kernel does not say who you are: {error}"),
                );
                return stream.write_all(&raw::error_line(&error)).await;
            }
        };
        let mut first = vec![0; 4096];
        let n = tokio::select! {
            n = stream.read(&mut first) => n?,
            () = self.stop.clone().shutdown() => return Ok(()),
        };
        first.truncate(n);
        match first.first() {
            None => Ok(()),
            Some(b'A'..=b'Z') => http::serve(self, caller, first, stream).await,
            Some(_) => raw::serve(self, caller, first, stream).await,
        }
    }
}
