//! Making the socket file, and taking it away again.
//!
//! A lock file beside the socket says whether a daemon is alive, so that a socket left by one that was killed is
//! replaced, and a living daemon's never is. Neither is one that a service manager listens on for a daemon, which has no lock.

use anyhow::{Context, bail};
use rustix::fs::FlockOperation;
use rustix::io::{Errno, FdFlags, fcntl_setfd, ioctl_fionbio};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket};
use rustix::process::{Pid, test_kill_process};
use std::fs::{File, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixStream};

/// A listening socket of ours. Its drop removes the file.
#[derive(Debug)]
pub(crate) struct Bound {
    path: PathBuf,
    _lock: File,
}

/// Listens on a socket, making its folder if need be.
pub(crate) fn bind(path: &Path, mode: u32) -> anyhow::Result<(UnixListener, Bound)> {
    let shown = path.display();
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(folder)
        .with_context(|| format!("cannot make the folder `{}` for the socket", folder.display()))?;
    if std::fs::symlink_metadata(path).is_ok_and(|old| !old.file_type().is_socket()) {
        bail!(
            "cannot listen on `{shown}`: it is there and is no socket\nhint: name another place with `--socket` or `socket` in the configuration, or move it away"
        );
    }
    let lock_path = path.with_added_extension("lock");
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path)
        .with_context(|| format!("cannot open `{}`", lock_path.display()))?;
    if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!(
            "another hearthd listens on `{shown}`\nhint: `ctl --socket {shown} status` asks it; stop it first, or give this one another `--socket`"
        );
    }
    if is_listened_on(path) {
        bail!(
            "a service manager listens on `{shown}` for its own hearthd\nhint: `ctl --socket {shown} status` asks that one; give this one another `--socket`"
        );
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot replace the old socket `{shown}`"));
        }
        _ => {}
    }
    // Under another name until its mode is right: nobody connects before that.
    let fresh = path.with_added_extension("new");
    let _ = std::fs::remove_file(&fresh);
    let listener = match UnixListener::bind(&fresh) {
        // How the standard library says that it is too long for the kernel.
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => bail!(
            "cannot listen on `{shown}`: the path is too long for a socket\nhint: name one of at most 100 bytes with `--socket` or `socket` in the configuration"
        ),
        listener => listener.with_context(|| format!("cannot listen on `{shown}`"))?,
    };
    std::fs::set_permissions(&fresh, Permissions::from_mode(mode))
        .and_then(|()| std::fs::rename(&fresh, path))
        .with_context(|| format!("cannot set up the socket `{shown}`"))?;
    Ok((listener, Bound { path: path.into(), _lock: lock }))
}

/// Whether somebody alive does. A child that a killed daemon had just forked is none: it does not know that it listens.
fn is_listened_on(path: &Path) -> bool {
    let asked = socket(AddressFamily::UNIX, SocketType::STREAM, None).and_then(|socket| {
        fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
        ioctl_fionbio(&socket, true)?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(socket)
    });
    match asked {
        Ok(socket) => listener(socket).is_none_or(|pid| test_kill_process(pid) != Err(Errno::SRCH)),
        // Those that wait for it are too many already.
        Err(error) => error == Errno::AGAIN,
    }
}

/// Who began to listen, as far as the kernel tells.
fn listener(socket: OwnedFd) -> Option<Pid> {
    let stream = UnixStream::from_std(socket.into()).ok()?;
    Pid::from_raw(stream.peer_cred().ok()?.pid()?)
}

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_no_socket_is_not_replaced_and_an_old_socket_is() {
        let dir = tempfile::tempdir().unwrap();
        let [file, link, sock] = ["file", "link", "sock"].map(|name| dir.path().join(name));
        std::fs::write(&file, "mine").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        for path in [dir.path(), &file, &link] {
            let error = bind(path, 0o600).unwrap_err().to_string();
            assert!(error.contains("it is there and is no socket\nhint: "), "{error}");
        }
        assert_eq!(std::fs::read_to_string(&link).unwrap(), "mine");

        drop(std::os::unix::net::UnixListener::bind(&sock).unwrap());
        let (_listener, bound) = bind(&sock, 0o600).unwrap();
        std::os::unix::net::UnixStream::connect(&sock).unwrap();
        drop(bound);
        assert!(!sock.exists());
    }

    #[tokio::test]
    async fn a_socket_that_another_listens_on_without_a_lock_is_left_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let error = bind(&path, 0o600).unwrap_err().to_string();
        assert!(error.starts_with("a service manager listens on"), "{error}");
        // Also when nobody takes what is asked there.
        let address = SocketAddrUnix::new(&path).unwrap();
        let mut waiting = Vec::new();
        loop {
            let socket = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
            ioctl_fionbio(&socket, true).unwrap();
            if connect(&socket, &address).is_err() {
                break;
            }
            waiting.push(socket);
        }
        assert!(bind(&path, 0o600).is_err());
        drop((listener, waiting));
        assert!(bind(&path, 0o600).is_ok());
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_is_said_to_be() {
        let dir = tempfile::tempdir().unwrap();
        let error = bind(&dir.path().join("x".repeat(108)), 0o600).unwrap_err().to_string();
        assert!(error.contains("the path is too long for a socket\nhint: "), "{error}");
    }
}
