//! Downloads under way, so that whoever wants the same blob waits for the same one.
//!
//! A download lives as long as somebody holds its [`Download`]. The next one of the same blob waits until the last write of
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
    download: Weak<Download>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug)]
pub(crate) struct Download {
    news: watch::Receiver<Progress>,
    task: AbortHandle,
}

#[derive(Debug, Clone)]
pub(crate) struct Progress {
    pub(crate) state: BlobState,
    pub(crate) n_bytes: u64,
    pub(crate) end: Option<Result<Digest, Arc<PullError>>>,
}

/// Where a download says how far it is.
#[derive(Debug, Clone)]
pub(crate) struct News(watch::Sender<Progress>);

impl Blobs {
    /// The download of this blob, begun if there is none.
    pub(crate) fn download(
        &self,
        net: &Arc<Net>,
        stores: &Arc<Stores>,
        wanted: Wanted,
    ) -> Arc<Download> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|_, slot| {
            slot.download.strong_count() > 0 || Arc::strong_count(&slot.turn) > 1
        });
        let slot = running.get(&wanted.key);
        if let Some(download) = slot.and_then(|slot| slot.download.upgrade())
            && download.progress().end.is_none()
        {
            return download;
        }
        let turn = slot.map(|slot| Arc::clone(&slot.turn)).unwrap_or_default();
        let key = wanted.key;
        let download = Arc::new(Download::begin(net, stores, wanted, Arc::clone(&turn)));
        running.insert(key, Slot { download: Arc::downgrade(&download), turn });
        download
    }
}

impl Download {
    fn begin(
        net: &Arc<Net>,
        stores: &Arc<Stores>,
        wanted: Wanted,
        turn: Arc<tokio::sync::Mutex<()>>,
    ) -> Self {
        let (net, stores) = (Arc::clone(net), Arc::clone(stores));
        let (sender, news) =
            watch::channel(Progress { state: BlobState::Waiting, n_bytes: 0, end: None });
        let task = tokio::spawn(async move {
            let turn = turn.lock_owned().await;
            let end = fetch(net, stores, wanted, News(sender.clone()), turn).await;
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
        end.unwrap_or_else(|| {
            Err(Arc::new(PullError::Task { reason: "the download was dropped".into() }))
        })
    }
}

impl Drop for Download {
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

    pub(crate) fn is_wanted(&self) -> bool {
        !self.0.is_closed()
    }
}
