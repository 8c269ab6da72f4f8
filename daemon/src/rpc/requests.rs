//! Requests that run or wait, by caller and name, so that they can be cancelled, hurried and counted.

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

/// What is wished of a running request.
#[derive(Debug)]
enum Wish {
    Nothing,
    /// That it thinks no more.
    Answer,
    /// That it ends, and why.
    End(RpcError),
}

/// By caller and name.
type Running = HashMap<(u32, String), watch::Sender<Wish>>;

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
    wishes: Wishes,
}

/// Hears what is wished of one request.
#[derive(Debug, Clone)]
pub(crate) struct Wishes(watch::Receiver<Wish>);

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
        let wish = watch::Sender::new(Wish::Nothing);
        let wishes = Wishes(wish.subscribe());
        match self.table.running().entry(key.clone()) {
            Entry::Occupied(_) => {
                return Err(RpcError::new(
                    ErrorKind::InvalidParams,
                    format!("a request named `{}` is running", key.1),
                )
                .with_hint("give each running request a name of its own, or none"));
            }
            Entry::Vacant(entry) => drop(entry.insert(wish)),
        }
        self.table.n_running.send_modify(|n| *n += 1);
        Ok(Registered { table: Arc::clone(&self.table), key, wishes })
    }

    pub(crate) fn cancel(&self, caller: Caller, name: &str) -> Result<(), RpcError> {
        self.wish(caller, name, |wish| *wish = Wish::End(cancelled()))
    }

    pub(crate) fn end_thinking(&self, caller: Caller, name: &str) -> Result<(), RpcError> {
        self.wish(caller, name, |wish| {
            if matches!(wish, Wish::Nothing) {
                *wish = Wish::Answer;
            }
        })
    }

    fn wish(
        &self,
        caller: Caller,
        name: &str,
        change: impl FnOnce(&mut Wish),
    ) -> Result<(), RpcError> {
        match self.table.running().get(&(caller.uid, name.to_string())) {
            Some(wish) => {
                wish.send_modify(change);
                Ok(())
            }
            None => Err(RpcError::new(
                ErrorKind::RequestNotFound,
                format!("no request of yours named `{name}` is running"),
            )
            .with_hint("it may have ended already")),
        }
    }

    pub(crate) fn n_running(&self) -> u32 {
        *self.table.n_running.borrow()
    }

    pub(crate) fn is_draining(&self) -> bool {
        *self.table.draining.borrow()
    }

    /// Refuses new requests from now on, and waits for the running ones.
    pub(crate) fn drain(&self) -> impl Future<Output = ()> + use<> {
        self.table.draining.send_replace(true);
        let mut n_running = self.table.n_running.subscribe();
        async move { drop(n_running.wait_for(|n| *n == 0).await) }
    }

    /// Ends all that run.
    pub(crate) fn end(&self) {
        for wish in self.table.running().values() {
            wish.send_replace(Wish::End(shutting_down("the daemon stopped before this was done")));
        }
    }
}

impl Registered {
    pub(crate) fn name(&self) -> &str {
        &self.key.1
    }

    pub(crate) fn wishes(&self) -> Wishes {
        self.wishes.clone()
    }
}

impl Wishes {
    /// Returns once it is to end, with the reason.
    pub(crate) async fn end(mut self) -> RpcError {
        if let Ok(wish) = self.0.wait_for(|wish| matches!(wish, Wish::End(_))).await
            && let Wish::End(why) = &*wish
        {
            return why.clone();
        }
        std::future::pending().await
    }

    /// Returns once it is to think no more.
    pub(crate) async fn answer(mut self) {
        if self.0.wait_for(|wish| !matches!(wish, Wish::Nothing)).await.is_err() {
            std::future::pending().await
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
