//! Files that a caller names by their paths, which the daemon opens as itself.

use hearth_protocol::{ErrorKind, RpcError};
use std::fs::{self, File};
use std::io;
use std::path::Path;

pub(super) fn absolute(path: &str) -> Result<&Path, RpcError> {
    let path = Path::new(path);
    if path.is_absolute() {
        return Ok(path);
    }
    let message = format!("`{}` is not an absolute path", path.display());
    let hint = "the daemon does not know the caller's working directory";
    Err(RpcError::new(ErrorKind::InvalidParams, message).with_hint(hint))
}

/// Opening anything but a file might wait for ever.
pub(super) fn check_readable(path: &Path) -> Result<(), RpcError> {
    let metadata = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if !metadata.is_file() {
        let message = format!("`{}` is neither a file nor a folder", path.display());
        return Err(
            RpcError::new(ErrorKind::InvalidParams, message).with_hint("a model is made of files")
        );
    }
    File::open(path).map(drop).map_err(|error| unreadable(path, &error))
}

pub(super) fn unreadable(path: &Path, error: &io::Error) -> RpcError {
    let path = path.display();
    let hint = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            format!(
                "check with `ls -l {path}` that it is there; a service does not see all folders"
            )
        }
        _ => "give the daemon's user access, or send the file as `ctl import` does".into(),
    };
    let message = format!("the daemon cannot open `{path}`: {error}");
    RpcError::new(ErrorKind::FileUnreadable, message).with_hint(hint)
}
