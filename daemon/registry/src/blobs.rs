//! Downloads under way, so that whoever wants the same blob waits for the same one.
//!
//! A download lives as long as somebody holds its [`Transfer`], and an upload too. The next one of the same blob waits until the last write of
//! the one before is done.

use crate::error::PullError;
use crate::fetch::{Wanted, fetch};
use crate::http::Net;
use crate::pull::BlobState;
use hearth_store::{Digest, PartialKey, Stores};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::watch;
use tokio::task::AbortHandle;

#[derive(Debug, Default)]
pub(crate) struct Blobs {
    running: Mutex<HashMap<PartialKey, Slot>>,
}

#[derive(Debug)]
struct Slot {
    transfer: Weak<Transfer>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug)]
pub(crate) struct Transfer {
    news: watch::Receiver<Progress>,
    task: AbortHandle,
}

#[derive(Debug, Clone)]
pub(crate) struct Progress {
    pub(crate) state: BlobState,
    pub(crate) n_bytes: u64,
    pub(crate) end: Option<Result<Digest, Arc<PullError>>>,
}

/// Where a blob's way says how far it is.
#[derive(Debug, Clone)]
pub(crate) struct News(watch::Sender<Progress>);

impl Blobs {
    /// The download of this blob, begun if there is none.
    pub(crate) fn download(
        &self,
        net: &Arc<Net>,
        stores: &Arc<Stores>,
        wanted: Wanted,
    ) -> Arc<Transfer> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|_, slot| {
            slot.transfer.strong_count() > 0 || Arc::strong_count(&slot.turn) > 1
        });
        let slot = running.get(&wanted.key);
        if let Some(download) = slot.and_then(|slot| slot.transfer.upgrade())
            && download.progress().end.is_none()
        {
            return download;
        }
        let turn = slot.map(|slot| Arc::clone(&slot.turn)).unwrap_or_default();
        let key = wanted.key;
        let (net, stores, its_turn) = (Arc::clone(net), Arc::clone(stores), Arc::clone(&turn));
        let download = Arc::new(Transfer::begin(async move |news| {
            let turn = its_turn.lock_owned().await;
            fetch(net, stores, wanted, news, turn).await
        }));
        running.insert(key, Slot { transfer: Arc::downgrade(&download), turn });
        download
    }
}

impl Transfer {
    pub(crate) fn begin<W>(work: impl FnOnce(News) -> W) -> Self
    where
        W: Future<Output = Result<Digest, PullError>> + Send + 'static,
    {
        let (sender, news) =
            watch::channel(Progress { state: BlobState::Waiting, n_bytes: 0, end: None });
        let work = work(News(sender.clone()));
        let task = tokio::spawn(async move {
            let end = work.await;
            sender.send_modify(|progress| progress.end = Some(end.map_err(Arc::new)));
        });
        Self { news, task: task.abort_handle() }
    }

    pub(crate) fn progress(&self) -> Progress {
        self.news.borrow().clone()
    }

    pub(crate) async fn wait(&self) -> Result<Digest, Arc<PullError>> {
        let mut news = self.news.clone();
        let ended = news.wait_for(|progress| progress.end.is_some()).await;
        let end = ended.ok().and_then(|progress| progress.end.clone());
        end.unwrap_or_else(|| Err(Arc::new(PullError::Task { reason: "it was dropped".into() })))
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl News {
    pub(crate) fn tell(&self, state: BlobState, n_bytes: u64) {
        self.0.send_modify(|progress| {
            // Several connections tell; what one saw may be older than what another told.
            let n_bytes =
                if progress.state == state { progress.n_bytes.max(n_bytes) } else { n_bytes };
            (progress.state, progress.n_bytes) = (state, n_bytes);
        });
    }

    /// Waits for at least so many bytes, and gives how many are there.
    pub(crate) async fn await_bytes(&self, n_bytes: u64) -> u64 {
        let mut news = self.0.subscribe();
        let told = news.wait_for(|progress| progress.n_bytes >= n_bytes).await;
        told.map_or(n_bytes, |progress| progress.n_bytes)
    }

    pub(crate) fn is_wanted(&self) -> bool {
        !self.0.is_closed()
    }
}
