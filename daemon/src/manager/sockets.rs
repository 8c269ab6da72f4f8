//! Sockets that a service manager made, and what each is for.
//!
//! Systemd hands over all it has, with the names of their units; launchd is asked for each name that there is.

use super::KEPT;
use anyhow::{Context as _, bail};
use listenfd::ListenFd;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

/// Sockets that listen already.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    /// By the first bytes, JSON-RPC or HTTP.
    pub(crate) unix: Vec<UnixListener>,
    /// HTTP.
    pub(crate) tcp: Vec<TcpListener>,
    /// HTTP, on what the configuration of an earlier daemon named.
    pub(crate) kept: Vec<TcpListener>,
}

enum Given {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Sockets {
    /// Takes them. To be called before there are threads.
    pub(crate) fn take() -> anyhow::Result<Self> {
        let mut sockets = Self::default();
        for (name, given) in systemds()?.into_iter().chain(launchds()?) {
            sockets.add(&name, given)?;
        }
        Ok(sockets)
    }

    fn add(&mut self, name: &str, given: Given) -> anyhow::Result<()> {
        match given {
            Given::Unix(_) if name == "http" => bail!(
                "the service manager gives a Unix socket by the name `http`, which is for TCP\nhint: name it `rpc`, where HTTP is spoken, too: with `FileDescriptorName=` in its unit, or as a key under `Sockets` of launchd's"
            ),
            Given::Tcp(_) if name == "rpc" => bail!(
                "the service manager gives a TCP socket by the name `rpc`, and only HTTP is spoken over TCP\nhint: put it into a unit of its own with `FileDescriptorName=http`, as in hearth-http.socket, or under the key `http` of launchd's `Sockets`"
            ),
            Given::Unix(unix) => {
                unix.set_nonblocking(true)?;
                self.unix.push(unix);
            }
            Given::Tcp(tcp) => {
                tcp.set_nonblocking(true)?;
                if name == KEPT { &mut self.kept } else { &mut self.tcp }.push(tcp);
            }
        }
        Ok(())
    }

    /// Where the first Unix socket is.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        self.unix.first()?.local_addr().ok()?.as_pathname().map(Into::into)
    }
}

fn systemds() -> anyhow::Result<Vec<(String, Given)>> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut given = ListenFd::from_env();
    let n_given = given.len();
    let take = |n| {
        let name = names.next().unwrap_or_default().to_owned();
        if let Ok(Some(unix)) = given.take_unix_listener(n) {
            return Ok((name, Given::Unix(unix)));
        }
        let tcp = given.take_tcp_listener(n).ok().flatten().with_context(|| {
            format!("the service manager gives `{name}`, which is no stream socket\nhint: use `ListenStream=` in its unit")
        })?;
        Ok((name, Given::Tcp(tcp)))
    };
    (0..n_given).map(take).collect()
}

#[cfg(target_os = "macos")]
fn launchds() -> anyhow::Result<Vec<(String, Given)>> {
    use rustix::net::{AddressFamily, getsockname};
    let mut all = Vec::new();
    for name in [c"rpc", c"http"] {
        let sockets = hearth_abi::launchd::sockets(name);
        for socket in sockets.with_context(|| format!("launchd does not give {name:?}"))? {
            let given = match getsockname(&socket)?.address_family() {
                AddressFamily::UNIX => Given::Unix(socket.into()),
                _ => Given::Tcp(socket.into()),
            };
            all.push((name.to_string_lossy().into_owned(), given));
        }
    }
    Ok(all)
}

/// Only macOS has it.
#[cfg(not(target_os = "macos"))]
fn launchds() -> anyhow::Result<Vec<(String, Given)>> {
    Ok(Vec::new())
}
