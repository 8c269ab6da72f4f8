//! What each user takes of the daemon: connections, and bytes of requests. Nobody can take it all.
//!
//! **Invariant.** Whatever a user sends, what is held of it is bounded, however many connections it comes on.

use hearth_protocol::{ErrorKind, RpcError};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Users that have ever connected.
#[derive(Debug)]
pub(super) struct Users {
    max_connections: usize,
    max_bytes: usize,
    users: Mutex<HashMap<u32, Arc<User>>>,
}

#[derive(Debug, Default)]
struct User {
    connections: AtomicUsize,
    bytes: AtomicUsize,
}

impl Users {
    /// A quarter of the connections is left to others, and a user's requests may hold eight times the longest.
    pub(super) fn new(max_connections: usize, max_request_bytes: usize) -> Self {
        Self {
            max_connections: (max_connections - max_connections / 4).max(1),
            max_bytes: max_request_bytes.saturating_mul(8),
            users: Mutex::default(),
        }
    }

    /// `None` if the user has enough connections.
    pub(super) fn connect(&self, uid: u32) -> Option<Account> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let user = Arc::clone(users.entry(uid).or_default());
        let account = Account { uid, user, max_bytes: self.max_bytes };
        // The drop of a refused one takes its place off again.
        let n_before = account.user.connections.fetch_add(1, Ordering::Relaxed);
        (n_before < self.max_connections).then_some(account)
    }
}

/// One connection of a user.
#[derive(Debug)]
pub(crate) struct Account {
    uid: u32,
    user: Arc<User>,
    max_bytes: usize,
}

impl Account {
    pub(super) fn uid(&self) -> u32 {
        self.uid
    }

    /// What a user hears whose requests take too much together.
    pub(crate) fn crowded(&self) -> RpcError {
        let limit = self.max_bytes;
        let message =
            format!("your requests that are being read or answered hold {limit} bytes together");
        RpcError::new(ErrorKind::Overloaded, message)
            .with_hint("try again when some of them have ended")
    }

    /// Holds nothing yet.
    pub(crate) fn hold(&self) -> Held {
        Held { user: Arc::clone(&self.user), max_bytes: self.max_bytes, bytes: 0 }
    }
}

/// What is said of a request that is longer than the limit.
pub(crate) fn too_long(limit: usize) -> RpcError {
    RpcError::new(ErrorKind::TooLarge, format!("the request is longer than {limit} bytes"))
        .with_hint("raise `max_request_bytes` in the configuration")
}

impl Drop for Account {
    fn drop(&mut self) {
        self.user.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes that are held of what a user has sent.
#[derive(Debug)]
pub(crate) struct Held {
    user: Arc<User>,
    max_bytes: usize,
    bytes: usize,
}

impl Held {
    /// False, and nothing changed, if it were too much.
    #[must_use]
    pub(crate) fn set(&mut self, bytes: usize) -> bool {
        let fits = |all: usize| {
            let all = all - self.bytes + bytes;
            (bytes <= self.bytes || all <= self.max_bytes).then_some(all)
        };
        let all = &self.user.bytes;
        if all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            return false;
        }
        self.bytes = bytes;
        true
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.user.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_gets_a_share_and_no_more_and_gives_it_back() {
        let users = Users::new(4, 100);
        let mut of_one: Vec<_> = (0..3).map(|_| users.connect(1).unwrap()).collect();
        assert!(users.connect(1).is_none());
        assert!(users.connect(1).is_none());
        let other = users.connect(2).unwrap();
        of_one.pop();
        of_one.push(users.connect(1).unwrap());

        let (mut first, mut second) = (of_one[0].hold(), of_one[1].hold());
        assert!(first.set(500) && second.set(300));
        assert!(!second.set(301) && !first.set(501));
        assert!(other.hold().set(800));
        assert!(first.set(100) && second.set(700) && !first.set(101));
        drop(second);
        assert!(first.set(800));
    }
}
