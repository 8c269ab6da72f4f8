//! Making the socket file, and taking it away again.
//!
//! A lock file beside the socket says whether a daemon is alive, so that a socket left by one that was killed is
//! replaced, and a living daemon's never is.

use anyhow::{Context, bail};
use rustix::fs::FlockOperation;
use std::fs::{File, Permissions};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;

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
    async fn a_path_that_is_too_long_is_said_to_be() {
        let dir = tempfile::tempdir().unwrap();
        let error = bind(&dir.path().join("x".repeat(108)), 0o600).unwrap_err().to_string();
        assert!(error.contains("the path is too long for a socket\nhint: "), "{error}");
    }
}
