//! What to say when no daemon answers: which sockets were tried, why each failed, and what to do about it.
//!
//! Only here is the service manager asked, and for no longer than half a second.

use crate::error::CtlError;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// `systemctl` answers in a few milliseconds, or hangs with the bus it asks.
const SYSTEMCTL_PATIENCE: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct Tried {
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
}

pub(crate) fn explain(tried: &[Tried]) -> CtlError {
    let mut message = String::from("no daemon answers");
    for Tried { path, source } in tried {
        let why = match source.kind() {
            io::ErrorKind::NotFound => "no such file".into(),
            io::ErrorKind::ConnectionRefused => "refused, nothing listens there".into(),
            io::ErrorKind::PermissionDenied => "permission denied".into(),
            // How the standard library says that it is too long for the kernel.
            io::ErrorKind::InvalidInput => "the path is too long for a socket".into(),
            _ => source.to_string(),
        };
        message.push_str(&format!("\n  `{}`: {why}", path.display()));
    }
    let denied = tried.iter().any(|one| one.source.kind() == io::ErrorKind::PermissionDenied);
    let hint = if denied {
        "add yourself to group `hearth`: `sudo usermod -aG hearth $USER`, then log in again".into()
    } else {
        start_hint(service_state().as_deref())
    };
    CtlError::NoDaemon { message, hint }
}

/// `state` is the unit's, if the service manager knows it.
fn start_hint(state: Option<&str>) -> String {
    match state {
        None if cfg!(target_os = "macos") => "start one with `brew services start hearth`; a terminal that was open before does not know its \
                                              socket"
            .into(),
        None => "start one with `hearthd` in another terminal, or `./dev run` in a checkout".into(),
        Some("failed") => "hearth.service has failed; `journalctl -u hearth -n 20` says why, \
                           `sudo systemctl restart hearth` tries again"
            .into(),
        Some("active") => "hearth.service is active but listens elsewhere; look for `socket` in \
                           its configuration and set HEARTH_SOCKET to it"
            .into(),
        Some("activating" | "reloading") => {
            "hearth.service is starting; try again in a moment".into()
        }
        Some(other) => {
            format!("hearth.service is {other}; start it with `sudo systemctl start hearth`")
        }
    }
}

/// The unit's state, such as `inactive`; nothing where there is no systemd or no such unit.
fn service_state() -> Option<String> {
    let mut child = Command::new("systemctl")
        .args(["show", "hearth.service", "--property=LoadState,ActiveState"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    if !wait(&mut child) {
        return None;
    }
    let mut text = String::new();
    child.stdout.take()?.read_to_string(&mut text).ok()?;
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    // A unit nobody installed is `not-found` and at the same time `inactive`.
    if value("LoadState=")? == "not-found" {
        return None;
    }
    value("ActiveState=").map(str::to_owned)
}

/// Whether it ended well and in time.
fn wait(child: &mut Child) -> bool {
    let deadline = Instant::now() + SYSTEMCTL_PATIENCE;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_connect_is_told_which_group_may() {
        let tried =
            |path: &str, kind: io::ErrorKind| Tried { path: path.into(), source: kind.into() };
        let error = explain(&[
            tried("/run/user/7/hearth/hearth.sock", io::ErrorKind::NotFound),
            tried("/run/hearth/hearth.sock", io::ErrorKind::PermissionDenied),
        ]);
        assert_eq!(
            error.to_string(),
            "no daemon answers\n  `/run/user/7/hearth/hearth.sock`: no such file\n  `/run/hearth/hearth.sock`: permission denied"
        );
        assert_eq!(
            error.hint(),
            Some(
                "add yourself to group `hearth`: `sudo usermod -aG hearth $USER`, then log in again"
            )
        );
    }

    #[test]
    fn an_active_service_listens_elsewhere() {
        assert!(start_hint(Some("active")).contains("HEARTH_SOCKET"));
        assert!(start_hint(None).contains("`./dev run`"));
    }
}
