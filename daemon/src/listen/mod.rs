//! Who connects, and what they speak.
//!
//! On the Unix socket the first bytes decide: an upper-case letter begins an HTTP method, anything else is raw JSON-RPC. TCP
//! is for HTTP alone. Whatever they speak, `framing` finds the requests of JSON-RPC and `calls` answers them, from the same
//! method table and for the same caller, whom the kernel names; what other HTTP there is goes to `crate::http`.

mod caller;
mod calls;
mod framing;
mod guard;
mod http;
mod peer;
mod raw;
mod secret;
mod socket;
mod tcp;
mod tls;
mod unmask;
mod users;
mod websocket;

use crate::rpc::{Daemon, object};
use axum::Router;
use hearth_protocol::{ErrorKind, RpcError};
use jsonrpsee::core::server::{MethodResponse, Methods};
use jsonrpsee::types::Id;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};

pub(crate) use caller::Caller;
pub(crate) use guard::Guard;
pub(crate) use socket::{Bound, bind};
pub(crate) use tcp::bind as bind_tcp;
use tls::Greeted;
pub(crate) use tls::Tls;
use users::Users;
pub(crate) use users::{Account, Held, too_long};

/// How long who has just connected may take to ask, when the daemon stops: most have connected in order to.
const FIRST_WORDS: Duration = Duration::from_millis(500);

/// How long who connects from another machine may take for a first request that is let in. Until then all of them are one user.
const INTRODUCTION: Duration = Duration::from_secs(10);

/// Tells connections, or those who wait for them, that the daemon stops.
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

    /// For a client; later if it has not asked anything yet.
    async fn stopped_for(&self, has_asked: impl Fn() -> bool) {
        self.stopped().await;
        if !has_asked() {
            tokio::time::sleep(FIRST_WORDS).await;
        }
    }
}

/// Where clients connect, and until when.
pub(crate) struct Listener {
    pub(crate) socket: Socket,
    pub(crate) until: Stop,
}

pub(crate) enum Socket {
    Unix(UnixListener),
    Tcp(TcpListener, Option<Arc<Tls>>),
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream, SocketAddr, Option<Arc<Tls>>),
}

impl Socket {
    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
            Self::Tcp(listener, tls) => {
                let (stream, peer) = listener.accept().await?;
                Ok(Stream::Tcp(stream, peer, tls.clone()))
            }
        }
    }

    /// Where clients of HTTP find it.
    pub(crate) fn address(&self) -> Option<String> {
        let Self::Tcp(listener, tls) = self else { return None };
        let scheme = if tls.is_some() { "https://" } else { "" };
        Some(format!("{scheme}{}", listener.local_addr().ok()?))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(listener) => listener.as_fd(),
            Self::Tcp(listener, _) => listener.as_fd(),
        }
    }
}

/// What all connections share.
struct Server {
    daemon: Arc<Daemon>,
    methods: Methods,
    dialects: Router,
    users: Users,
    places: Arc<Semaphore>,
    n_connections: AtomicUsize,
    stop: Stop,
}

/// Accepts connections on every listener until they are to stop. Each gets a task of its own.
pub(crate) fn serve(listeners: Vec<Listener>, daemon: &Arc<Daemon>, methods: Methods, stop: Stop) {
    let config = daemon.config();
    let max_connections = config.max_connections;
    let server = Arc::new(Server {
        daemon: Arc::clone(daemon),
        methods,
        dialects: crate::http::router(),
        users: Users::new(max_connections, config.max_request_bytes),
        places: Arc::new(Semaphore::new(max_connections)),
        n_connections: AtomicUsize::default(),
        stop,
    });
    for listener in listeners {
        tokio::spawn(accept(listener, Arc::clone(&server)));
    }
}

async fn accept(listener: Listener, server: Arc<Server>) {
    loop {
        let place = tokio::select! {
            place = Arc::clone(&server.places).acquire_owned() => place,
            () = listener.until.stopped() => return,
        };
        let accepted = tokio::select! {
            accepted = listener.socket.accept() => accepted,
            () = listener.until.stopped() => return,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!("Accepting a connection: {error}");
                // Out of file descriptors: one has to be given back before trying again makes sense.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            let result = match stream {
                Stream::Unix(stream) => unix(server, stream).await,
                Stream::Tcp(stream, peer, tls) => over_tcp(server, stream, peer, tls).await,
            };
            if let Err(error) = result {
                tracing::debug!("A connection ended: {error}");
            }
            drop(place);
        });
    }
}

async fn unix(server: Arc<Server>, mut stream: UnixStream) -> io::Result<()> {
    let caller = Caller::of(&stream).map_err(|error| {
        let message = format!("the kernel does not say who you are: {error}");
        RpcError::new(ErrorKind::PermissionDenied, message)
    });
    let connection = caller.and_then(|caller| server.connect(Some(caller), Way::Unix));
    let connection = match connection {
        Ok(connection) => connection,
        Err(error) => {
            let reply = MethodResponse::error(Id::Null, object(error)).into_json();
            return stream.write_all(format!("{reply}\n").as_bytes()).await;
        }
    };
    let mut first = vec![0; 4096];
    let n = tokio::select! {
        n = stream.read(&mut first) => n?,
        () = connection.server.stop.stopped_for(|| false) => return Ok(()),
    };
    first.truncate(n);
    match first.first() {
        None => Ok(()),
        Some(b'A'..=b'Z') => {
            let (reader, writer) = stream.into_split();
            http::serve(connection, io::Cursor::new(first).chain(reader), writer).await
        }
        Some(_) => raw::serve(connection, first, stream).await,
    }
}

async fn over_tcp(
    server: Arc<Server>,
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<Arc<Tls>>,
) -> io::Result<()> {
    // An event is to go out when it is written, not when more of them fill a packet.
    stream.set_nodelay(true)?;
    let owner = if tcp::is_loopback(peer) {
        Some(peer::owner(peer, stream.local_addr()?).unwrap_or(Caller::NOBODY))
    } else {
        None
    };
    let Ok(mut connection) = server.connect(owner, Way::Tcp) else { return Ok(()) };
    let stream = match tls {
        None => stream,
        Some(tls) => {
            let greeted = tokio::select! {
                greeted = tls.greet(stream) => greeted?,
                () = connection.server.stop.stopped() => return Ok(()),
            };
            match greeted {
                Greeted::Tls(half) => return http::serve(connection, half.clone(), half).await,
                Greeted::Plain(stream) => {
                    connection.way = Way::NotSecret;
                    stream
                }
            }
        }
    };
    let (reader, writer) = stream.into_split();
    http::serve(connection, reader, writer).await
}

impl Server {
    fn connect(self: Arc<Self>, owner: Option<Caller>, way: Way) -> Result<Connection, RpcError> {
        let caller = owner.unwrap_or(Caller::NOBODY);
        let account = Mutex::new(self.account(caller)?);
        let is_known = AtomicBool::new(owner.is_some());
        let id = self.n_connections.fetch_add(1, Ordering::Relaxed);
        Ok(Connection { id, caller, owner, way, account, is_known, server: self })
    }

    fn account(&self, caller: Caller) -> Result<Arc<Account>, RpcError> {
        self.users.connect(caller.uid).map(Arc::new).ok_or_else(|| {
            let message = format!("uid {} has too many connections", caller.uid);
            RpcError::new(ErrorKind::Overloaded, message)
                .with_hint("close some, or raise `max_connections` in the configuration")
        })
    }
}

/// What a connection's task needs.
struct Connection {
    id: usize,
    caller: Caller,
    /// Who the kernel says it is.
    owner: Option<Caller>,
    way: Way,
    account: Mutex<Arc<Account>>,
    /// Whose it is has been said: by the kernel, or by a request that was let in.
    is_known: AtomicBool,
    server: Arc<Server>,
}

impl Connection {
    /// Of the user that it counts as.
    fn account(&self) -> Arc<Account> {
        Arc::clone(&self.account.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A request of this caller's was let in. Where the kernel does not say whose the connection is, it counts as theirs.
    fn introduce(&self, caller: Caller) -> Result<(), RpcError> {
        if self.owner.is_none() {
            let mut account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
            if account.uid() != caller.uid {
                *account = self.server.account(caller)?;
            }
        }
        self.is_known.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Waits until it is to be ended because nobody was let in on it.
    async fn overdue(&self) {
        let is_known = || self.is_known.load(Ordering::Relaxed);
        if !is_known() {
            tokio::time::sleep(INTRODUCTION).await;
        }
        if is_known() {
            std::future::pending::<()>().await;
        }
    }
}

/// How a connection has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Unix,
    Tcp,
    /// Over TCP, where TLS is wanted and the client did without.
    NotSecret,
}
