//! Requests that run or wait, by caller and name, so that they can be cancelled and counted.

use crate::listen::Caller;
use hearth_protocol::{ErrorKind, RpcError};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

#[derive(Debug, Default)]
pub(crate) struct Requests {
    table: Arc<Table>,
    next: AtomicU64,
}

/// By caller and name; the value says why one is to end.
type Running = HashMap<(u32, String), watch::Sender<Option<RpcError>>>;

#[derive(Debug, Default)]
struct Table {
    running: Mutex<Running>,
    n_running: watch::Sender<u32>,
    draining: watch::Sender<bool>,
}

impl Table {
    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request's entry, which its drop removes.
#[derive(Debug)]
pub(crate) struct Registered {
    table: Arc<Table>,
    key: (u32, String),
    end: watch::Receiver<Option<RpcError>>,
}

impl Requests {
    /// Enters a request under the caller's name for it, or under a new one.
    pub(crate) fn register(
        &self,
        caller: Caller,
        name: Option<String>,
    ) -> Result<Registered, RpcError> {
        if *self.table.draining.borrow() {
            return Err(shutting_down("the daemon is stopping"));
        }
        let name =
            name.unwrap_or_else(|| format!("r{}", self.next.fetch_add(1, Ordering::Relaxed) + 1));
        let key = (caller.uid, name);
        let why = watch::Sender::new(None);
        let end = why.subscribe();
        match self.table.running().entry(key.clone()) {
            Entry::Occupied(_) => {
                return Err(RpcError::new(
                    ErrorKind::InvalidParams,
                    format!("a request named `{}` is running", key.1),
                )
                .with_hint("give each running request a name of its own, or none"));
            }
            Entry::Vacant(entry) => drop(entry.insert(why)),
        }
        self.table.n_running.send_modify(|n| *n += 1);
        Ok(Registered { table: Arc::clone(&self.table), key, end })
    }

    /// False if the caller has no such request.
    pub(crate) fn cancel(&self, caller: Caller, name: &str) -> bool {
        match self.table.running().get(&(caller.uid, name.to_string())) {
            Some(why) => {
                why.send_replace(Some(cancelled()));
                true
            }
            None => false,
        }
    }

    pub(crate) fn n_running(&self) -> u32 {
        *self.table.n_running.borrow()
    }

    /// Refuses new requests from now on, and waits for the running ones.
    pub(crate) async fn drain(&self) {
        self.table.draining.send_replace(true);
        let _ = self.table.n_running.subscribe().wait_for(|n| *n == 0).await;
    }

    /// Ends all that run.
    pub(crate) fn end(&self) {
        for why in self.table.running().values() {
            why.send_replace(Some(shutting_down("the daemon stopped before this was done")));
        }
    }
}

impl Registered {
    pub(crate) fn name(&self) -> &str {
        &self.key.1
    }

    /// Returns once it is to end, with the reason.
    pub(crate) async fn ended(&self) -> RpcError {
        let mut end = self.end.clone();
        let why = end.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        match why {
            Some(why) => why,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.table.running().remove(&self.key);
        self.table.n_running.send_modify(|n| *n -= 1);
    }
}

fn cancelled() -> RpcError {
    RpcError::new(ErrorKind::Cancelled, "the request was cancelled")
}

fn shutting_down(message: &str) -> RpcError {
    RpcError::new(ErrorKind::ShuttingDown, message)
        .with_hint("connect again when it has started again")
}
