//! One blob's way into the store.
//!
//! Runs of missing pieces are fetched in ascending order, each over a connection of its own, as many at once as [`Pace`] says.
//! One that is alone is long; where there are several they are short, so that the hash, which is computed in order, is never far
//! behind. A run that fails is asked for again from its first missing piece, at the next place there is; it is given up when
//! [`MAX_ATTEMPTS`] in a row brought no piece. A piece is hashed and written while the next one comes, and what was written is
//! brought to disk while more is.

use crate::blobs::News;
use crate::error::PullError;
use crate::http::{Ask, Endpoint, Net};
use crate::pace::Pace;
use crate::patience::MAX_ATTEMPTS;
use crate::pull::BlobState;
use hearth_store::{Digest, Partial, PartialKey, StoreError, Stores};
use reqwest::header::{CONTENT_RANGE, ETAG, HeaderMap};
use reqwest::{Response, StatusCode, Url};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;
use tokio::sync::{OwnedMutexGuard, mpsc, watch};
use tokio::task::{JoinError, JoinSet, spawn_blocking};
use tokio::time::sleep;

/// What one connection of several is asked for at once.
const RUN_PIECES: u64 = 32;
/// What one is asked for that is alone. Those of other blobs may wait for their turn.
const LONG_RUN_PIECES: u64 = 256;
/// Pieces that wait to be hashed and written: what comes need not wait for every moment in which that takes longer.
const WAITING_PIECES: usize = 4;
/// What may wait for the disk at the end.
const SYNC_BYTES: u64 = 64 << 20;

/// What is to be fetched, and where it can be had.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) key: PartialKey,
    pub(crate) size: u64,
    /// Not empty; the last is where it really lives.
    pub(crate) places: Vec<Place>,
    /// Whether what an earlier run left is sure to be of the same content.
    pub(crate) can_resume: bool,
}

#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) url: Url,
    /// Its version, where there is no digest to tell.
    pub(crate) etag: Option<String>,
}

struct Fetch {
    wanted: Wanted,
    net: Arc<Net>,
    partial: Partial,
    pace: watch::Sender<Pace>,
    /// Held by the one that reads everything, where a server knows no ranges.
    whole: tokio::sync::Mutex<()>,
    news: News,
    /// Released after the partial is closed.
    _turn: OwnedMutexGuard<()>,
}

/// What one connection is to bring. The end comes nearer when others come to help.
#[derive(Debug, Default)]
struct Run {
    start: u64,
    end: AtomicU64,
}

/// To the one that writes, and back.
struct Queue {
    pieces: mpsc::Sender<(u64, Vec<u8>)>,
    spares: mpsc::UnboundedReceiver<Vec<u8>>,
}

/// Brings a blob into the store, unless it is there and right. Its turn is what keeps two of these from one partial.
pub(crate) async fn fetch(
    net: Arc<Net>,
    stores: Arc<Stores>,
    wanted: Wanted,
    news: News,
    turn: OwnedMutexGuard<()>,
) -> Result<Digest, PullError> {
    let opened = {
        let (net, stores) = (Arc::clone(&net), Arc::clone(&stores));
        blocking(move || open(net, &stores, wanted, news, turn)).await?
    };
    let fetch = match opened {
        Opened::Present(digest) => return Ok(digest),
        Opened::Begun(fetch) => fetch,
    };
    tokio::try_join!(fetch.fetch_all(), fetch.sync_along())?;
    blocking(move || {
        fetch.news.tell(BlobState::Finishing, fetch.partial.n_bytes());
        let expected = match fetch.wanted.key {
            PartialKey::Content(digest) => Some(digest),
            PartialKey::Origin(_) => None,
        };
        let digest = fetch.partial.publish(stores.own(), expected)?;
        fetch.news.tell(BlobState::Done, fetch.wanted.size);
        Ok(digest)
    })
    .await
}

enum Opened {
    Present(Digest),
    Begun(Arc<Fetch>),
}

fn open(
    net: Arc<Net>,
    stores: &Stores,
    wanted: Wanted,
    news: News,
    turn: OwnedMutexGuard<()>,
) -> Result<Opened, PullError> {
    let mut checking = |n_bytes| {
        news.tell(BlobState::Checking, n_bytes);
        if news.is_wanted() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let store = stores.own();
    if let PartialKey::Content(digest) = wanted.key {
        match store.blobs().verify(&digest, wanted.size, &mut checking) {
            Ok(()) => {
                store.blobs().touch(&digest);
                news.tell(BlobState::Done, wanted.size);
                return Ok(Opened::Present(digest));
            }
            Err(error @ StoreError::Cancelled { .. }) => return Err(error.into()),
            // Whatever is wrong with it is repaired.
            Err(_) => {}
        }
        if stores.take(&digest, wanted.size, &mut checking)? {
            store.blobs().touch(&digest);
            news.tell(BlobState::Done, wanted.size);
            return Ok(Opened::Present(digest));
        }
    }
    let partial = Partial::open(store, wanted.key, wanted.size)?;
    if wanted.can_resume {
        partial.recover(&mut checking)?;
    }
    news.tell(BlobState::Fetching, partial.n_bytes());
    let pace = watch::Sender::new(Pace::new(net.settings.n_streams, Instant::now()));
    let whole = tokio::sync::Mutex::new(());
    Ok(Opened::Begun(Arc::new(Fetch { wanted, net, partial, pace, whole, news, _turn: turn })))
}

impl Fetch {
    async fn fetch_all(self: &Arc<Self>) -> Result<(), PullError> {
        let mut pace = self.pace.subscribe();
        let mut runs = JoinSet::new();
        let mut newest = Arc::new(Run::default());
        let n_pieces = self.partial.n_pieces();
        loop {
            let n_connections = pace.borrow_and_update().n_connections();
            let most = if n_connections > 1 { RUN_PIECES } else { LONG_RUN_PIECES };
            newest.cut(self.partial.missing(newest.pieces()).start + most);
            while runs.len() < n_connections
                && let missing = self.partial.missing(newest.pieces().end..n_pieces)
                && !missing.is_empty()
            {
                newest = Arc::new(Run::new(missing.start..missing.end.min(missing.start + most)));
                runs.spawn(Arc::clone(self).fetch_run(Arc::clone(&newest)));
            }
            tokio::select! {
                fetched = runs.join_next() => match fetched {
                    Some(fetched) => fetched.map_err(task_error)??,
                    None => return Ok(()),
                },
                _ = pace.changed() => {}
            }
        }
    }

    /// Brings what has come to disk while more comes, until all is there.
    async fn sync_along(self: &Arc<Self>) -> Result<(), PullError> {
        let size = self.wanted.size;
        let mut n_synced = self.partial.n_bytes();
        loop {
            let n_bytes = self.news.await_bytes(size.min(n_synced + SYNC_BYTES)).await;
            if n_bytes == size {
                return Ok(());
            }
            n_synced = n_bytes;
            let fetch = Arc::clone(self);
            blocking(move || Ok(fetch.partial.sync()?)).await?;
        }
    }

    async fn fetch_run(self: Arc<Self>, run: Arc<Run>) -> Result<(), PullError> {
        let (mut n_failed, mut n_refused, mut place) = (0, 0, 0);
        loop {
            let missing = self.partial.missing(run.pieces());
            if missing.is_empty() {
                return Ok(());
            }
            let mut n_put = 0;
            let place_now = &self.wanted.places[place % self.wanted.places.len()];
            let fetched = {
                let _stream = self.net.streams.acquire().await;
                self.fetch_from(place_now, missing, &run, &mut n_put).await
            };
            let Err(error) = fetched else { continue };
            if n_put > 0 {
                (n_failed, n_refused) = (0, 0);
            }
            if error.is_transient() {
                n_failed += 1;
            } else {
                n_refused += 1;
            }
            if n_failed >= MAX_ATTEMPTS || n_refused >= self.wanted.places.len() {
                return Err(error);
            }
            tracing::debug!(%error, "Asking again for a part");
            place += 1;
            let wait = self.net.settings.retry * 2_u32.pow(n_failed.saturating_sub(1));
            sleep(error.retry_after().unwrap_or(wait)).await;
        }
    }

    async fn fetch_from(
        self: &Arc<Self>,
        place: &Place,
        missing: Range<u64>,
        run: &Run,
        n_put: &mut u64,
    ) -> Result<(), PullError> {
        let bytes = self.partial.bytes_of(missing.clone());
        let all = Run::new(0..self.partial.n_pieces());
        if missing == all.pieces() && missing.end <= RUN_PIECES {
            let response = self.ask_for_whole(place).await?;
            return self.receive(place, response, all.pieces(), &all, n_put).await;
        }
        let ask = Ask { range: Some(bytes.clone()), ..Ask::default() };
        let response = place.endpoint.ask(&place.url, &ask).await?;
        place.check_version(response.headers())?;
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let expected = format!("bytes {}-{}/{}", bytes.start, bytes.end - 1, self.wanted.size);
            let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
            if range != Some(expected.as_str()) {
                let range = hearth_store::quote(range.unwrap_or_default());
                return Err(place.endpoint.bad_answer(format!("`{range}` for `{expected}`")));
            }
            return self.receive(place, response, missing, run, n_put).await;
        }
        // A server without ranges sends everything to everybody; once is enough.
        drop(response);
        let _whole = self.whole.lock().await;
        if self.partial.missing(missing.clone()).is_empty() {
            return Ok(());
        }
        let response = self.ask_for_whole(place).await?;
        self.receive(place, response, all.pieces(), &all, n_put).await
    }

    async fn ask_for_whole(&self, place: &Place) -> Result<Response, PullError> {
        let response = place.endpoint.ask(&place.url, &Ask::default()).await?;
        place.check_version(response.headers())?;
        let size = self.wanted.size;
        match (response.status(), response.content_length()) {
            (StatusCode::OK, None) => Ok(response),
            (StatusCode::OK, Some(length)) if length == size => Ok(response),
            (_, length) => {
                let length = length.unwrap_or_default();
                Err(place.endpoint.bad_answer(format!("{length} bytes for the {size} of a blob")))
            }
        }
    }

    /// Takes these pieces from a body that begins with the first of them, as far as they are the run's. Those that are there
    /// already are passed over.
    async fn receive(
        self: &Arc<Self>,
        place: &Place,
        response: Response,
        pieces: Range<u64>,
        run: &Run,
        n_put: &mut u64,
    ) -> Result<(), PullError> {
        let (pieces_in, pieces_out) = mpsc::channel(WAITING_PIECES);
        let (spares_in, spares_out) = mpsc::unbounded_channel();
        let fetch = Arc::clone(self);
        let written = spawn_blocking(move || fetch.write(pieces_out, &spares_in));
        let queue = Queue { pieces: pieces_in, spares: spares_out };
        let received = self.receive_pieces(place, response, pieces, run, queue).await;
        // Also where the connection broke: what is there is not asked for again.
        *n_put += written.await.map_err(task_error)??;
        received
    }

    /// Without an error also where nobody writes any more, who has one.
    async fn receive_pieces(
        &self,
        place: &Place,
        mut response: Response,
        pieces: Range<u64>,
        run: &Run,
        mut queue: Queue,
    ) -> Result<(), PullError> {
        let mut piece = pieces.start;
        let mut buffer = Vec::new();
        let end = || pieces.end.min(run.pieces().end);
        while piece < end() {
            let Some(chunk) = place.endpoint.chunk(&mut response).await? else {
                let host = place.endpoint.host.clone();
                return Err(PullError::Broken { host, reason: "it ended too early".into() });
            };
            self.pace.send_if_modified(|pace| pace.came(chunk.len(), Instant::now()));
            let mut chunk = &chunk[..];
            while piece < end() && !chunk.is_empty() {
                let room = self.size_of(piece) - buffer.len();
                let (now, later) = chunk.split_at(room.min(chunk.len()));
                buffer.extend_from_slice(now);
                chunk = later;
                if now.len() < room {
                    continue;
                }
                if !self.partial.missing(piece..piece + 1).is_empty() {
                    let spare = queue.spares.try_recv().unwrap_or_default();
                    let whole = std::mem::replace(&mut buffer, spare);
                    if queue.pieces.send((piece, whole)).await.is_err() {
                        return Ok(());
                    }
                }
                buffer.clear();
                piece += 1;
            }
        }
        Ok(())
    }

    fn size_of(&self, piece: u64) -> usize {
        let bytes = self.partial.bytes_of(piece..piece + 1);
        usize::try_from(bytes.end - bytes.start).unwrap_or(usize::MAX)
    }

    /// Says how many pieces it were. Their buffers go back: fresh memory costs more than a copy into what is there.
    fn write(
        &self,
        mut pieces: mpsc::Receiver<(u64, Vec<u8>)>,
        spares: &mpsc::UnboundedSender<Vec<u8>>,
    ) -> Result<u64, PullError> {
        let mut n_put = 0;
        while let Some((piece, bytes)) = pieces.blocking_recv() {
            self.partial.put(piece, &bytes)?;
            self.news.tell(BlobState::Fetching, self.partial.n_bytes());
            n_put += 1;
            let _ = spares.send(bytes);
        }
        Ok(n_put)
    }
}

impl Run {
    fn new(pieces: Range<u64>) -> Self {
        Self { start: pieces.start, end: pieces.end.into() }
    }

    fn pieces(&self) -> Range<u64> {
        self.start..self.end.load(Relaxed)
    }

    /// Leaves what is behind a piece to others.
    fn cut(&self, end: u64) {
        self.end.fetch_min(end, Relaxed);
    }
}

impl Place {
    fn check_version(&self, headers: &HeaderMap) -> Result<(), PullError> {
        match &self.etag {
            Some(etag) if headers.get(ETAG).is_none_or(|now| now.as_bytes() != etag.as_bytes()) => {
                Err(self.endpoint.bad_answer("another version than a moment ago".into()))
            }
            _ => Ok(()),
        }
    }
}

/// Runs what may wait for the disk.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PullError> + Send + 'static,
) -> Result<T, PullError> {
    spawn_blocking(work).await.map_err(task_error)?
}

fn task_error(error: JoinError) -> PullError {
    PullError::Task { reason: error.to_string() }
}
