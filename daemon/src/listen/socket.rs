//! Making the socket file, and taking it away again.
//!
//! A lock file beside the socket says whether a daemon is alive, so that a socket left by one that was killed is
//! replaced, and a living daemon's never is.

use anyhow::{Context, bail};
use rustix::fs::FlockOperation;
use std::fs::{File, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
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
    let listener =
        UnixListener::bind(&fresh).with_context(|| format!("cannot listen on `{shown}`"))?;
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
