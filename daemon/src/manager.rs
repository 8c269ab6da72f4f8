//! What a service manager gives, and what it is told: systemd's protocols, which others speak too. Launchd gives, and is told
//! nothing.
//!
//! Given are listening sockets, which exist before the daemon and after it, so that nobody is refused in between. Told is when
//! the daemon is ready, reloads and stops, what it does, and that it lives. Without a manager nothing here does anything.

mod sockets;

use crate::rpc::Daemon;
use sd_notify::NotifyState;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use sockets::Sockets;

/// The most between two signs of life.
const PULSE: Duration = Duration::from_secs(5);

/// Of a socket of ours that the manager keeps from one daemon to the next.
const KEPT: &str = "kept";

/// Whether somebody listens to what is told.
fn is_there() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("Telling the service manager: {error}");
    }
}

/// Has the manager keep these sockets for the next daemon, and none that it kept before. False without a manager.
pub(crate) fn keep(listeners: &[impl AsFd]) -> bool {
    tell(&[NotifyState::FdStoreRemove, NotifyState::FdName(KEPT)]);
    for listener in listeners {
        let state = [NotifyState::FdStore, NotifyState::FdName(KEPT)];
        if let Err(error) = sd_notify::notify_with_fds(&state, &[listener.as_fd()]) {
            tracing::warn!("Giving a socket to the service manager: {error}");
        }
    }
    is_there()
}

/// The daemon is there, for the first time or again.
pub(crate) fn ready(daemon: &Daemon) {
    tell(&[NotifyState::Ready, NotifyState::Status(&status(daemon))]);
}

/// The daemon takes no new requests.
pub(crate) fn stopping(daemon: &Daemon) {
    tell(&[NotifyState::Stopping, NotifyState::Status(&status(daemon))]);
}

/// The configuration is being read again, until the next [`ready`].
pub(crate) fn reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
}

/// Gives signs of life from now on. They stop when the runtime hangs, or a lock that requests need is never given back; and
/// while the daemon stops, they ask for the time to do so.
pub(crate) async fn pulse(daemon: Arc<Daemon>) {
    if !is_there() {
        return;
    }
    let every = sd_notify::watchdog_enabled().map_or(PULSE, |limit| PULSE.min(limit / 3));
    let mut ticks = tokio::time::interval(every);
    let extension = u32::try_from((3 * every).as_micros()).unwrap_or(u32::MAX);
    loop {
        ticks.tick().await;
        let status = status(&daemon);
        let mut state = vec![NotifyState::Watchdog, NotifyState::Status(&status)];
        if daemon.requests.is_draining() {
            state.push(NotifyState::ExtendTimeoutUsec(extension));
        }
        tell(&state);
    }
}

/// What a person reads in `systemctl status`.
fn status(daemon: &Daemon) -> String {
    let mut text = if daemon.requests.is_draining() {
        "Stopping".to_owned()
    } else {
        format!("Listening on {}", daemon.config().socket.display())
    };
    let loaded = daemon.supervisor.loaded().len();
    let running = daemon.requests.n_running() as usize;
    for (n, what) in [(loaded, "model loaded"), (running, "request running")] {
        match n {
            0 => {}
            1 => text.push_str(&format!(", 1 {what}")),
            n => text.push_str(&format!(", {n} {}", what.replacen(' ', "s ", 1))),
        }
    }
    text
}
