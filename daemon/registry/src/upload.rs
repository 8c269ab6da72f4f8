//! One blob's way into a registry.
//!
//! It is sent in chunks, in order. After a chunk whose fate is not known the registry is asked how far it is; one that has
//! lost the upload is asked whether it has the blob, and sent all of it again if not. It is given up when [`MAX_ATTEMPTS`]
//! in a row came no further than any before. What an earlier push has sent of it, the registry is not sent again.

use crate::blobs::News;
use crate::error::PullError;
use crate::fetch::blocking;
use crate::http::{Ask, Endpoint, may_follow, same_origin};
use crate::note::Note;
use crate::patience::MAX_ATTEMPTS;
use crate::pull::BlobState;
use crate::sending;
use bytes::Bytes;
use hearth_store::{Digest, StoreError};
use md5::{Digest as _, Md5};
use reqwest::header::{AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, LOCATION, RANGE};
use reqwest::{Method, Response, StatusCode, Url};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// What is sent again at most when a connection breaks. Storage behind registries wants parts of at least 5 MiB.
const CHUNK_BYTES: u64 = 16 << 20;
/// That storage takes 10,000 parts.
const MAX_CHUNKS: u64 = 8000;
/// How long a registry may take to look at all of a blob.
const COMMIT: Duration = Duration::from_secs(600);
const BYTES: &str = "application/octet-stream";

#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) endpoint: Arc<Endpoint>,
    /// Such as `library/smollm2`.
    pub(crate) repository: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) path: PathBuf,
    /// Repositories of the same registry that may have it.
    pub(crate) mounts: Vec<String>,
}

/// An upload that the registry has begun.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) url: Url,
    /// What the registry has.
    pub(crate) n_bytes: u64,
    /// Whether it said so since the last thing that went wrong.
    pub(crate) is_sure: bool,
    /// An earlier push has begun it.
    pub(crate) is_noted: bool,
    /// The MD5 of each part that went to storage behind the registry.
    pub(crate) parts: Vec<[u8; 16]>,
}

impl Upload {
    pub(crate) async fn run(self, news: News) -> Result<Digest, PullError> {
        let net = Arc::clone(&self.endpoint.net);
        let _stream = net.streams.acquire().await;
        news.tell(BlobState::Checking, 0);
        let (note, mut session) = self.noted().await?;
        let (mut n_failed, mut furthest) = (0, 0);
        loop {
            let Err(error) = self.advance(&mut session, note.as_ref(), &news).await else {
                if let Some(note) = note {
                    note.remove();
                }
                news.tell(BlobState::Done, self.size);
                return Ok(self.digest);
            };
            let n_bytes = session.as_ref().map_or(0, |session| session.n_bytes);
            if n_bytes > furthest {
                (furthest, n_failed) = (n_bytes, 0);
            }
            n_failed += 1;
            // Where a token has expired, the next attempt has a new one.
            let may_pass = error.is_transient() || matches!(error, PullError::Denied { .. });
            if !may_pass && session.as_ref().is_some_and(|session| session.is_noted) {
                tracing::debug!(%error, "Beginning again");
                (session, n_failed, furthest) = (None, 0, 0);
                continue;
            }
            if !may_pass || session.is_none() && !error.is_transient() || n_failed >= MAX_ATTEMPTS {
                return Err(error);
            }
            tracing::debug!(%error, "Sending again");
            if let Some(session) = &mut session {
                session.is_sure = false;
            }
            let wait = net.settings.retry * 2_u32.pow(n_failed - 1);
            sleep(error.retry_after().unwrap_or(wait)).await;
        }
    }

    /// Goes on until the blob is there or something goes wrong.
    async fn advance(
        &self,
        session: &mut Option<Session>,
        note: Option<&Arc<Note>>,
        news: &News,
    ) -> Result<(), PullError> {
        if let Some(unsure) = session.as_mut().filter(|session| !session.is_sure)
            && !self.is_known(unsure).await?
        {
            *session = None;
        }
        let session = match session {
            Some(session) => session,
            None => match self.begin().await? {
                Some(begun) => session.insert(begun),
                None => return Ok(()),
            },
        };
        let chunk_bytes = CHUNK_BYTES.max(self.size / MAX_CHUNKS);
        while session.n_bytes < self.size {
            let start = session.n_bytes;
            let end = self.size.min(start + chunk_bytes);
            let chunk = self.read(start, end).await?;
            self.send(session, chunk, news).await?;
            if let Some(note) = note.map(Arc::clone) {
                let session = session.clone();
                let written = blocking(move || {
                    note.write(&session);
                    Ok(())
                });
                written.await?;
            }
            if session.n_bytes <= start || session.n_bytes > self.size {
                return Err(self.endpoint.bad_answer("an upload that goes nowhere".into()));
            }
        }
        news.tell(BlobState::Finishing, self.size);
        self.commit(session).await
    }

    /// Where it is noted how far this is, and what an earlier push has noted.
    async fn noted(&self) -> Result<(Option<Arc<Note>>, Option<Session>), PullError> {
        let Some(folder) = self.endpoint.net.settings.uploads.clone() else {
            return Ok((None, None));
        };
        let (base, repository) = (self.endpoint.base.clone(), self.repository.clone());
        let digest = self.digest;
        blocking(move || {
            let note = Note::open(&folder, &base, &repository, digest);
            let session = note.as_ref().and_then(Note::read);
            Ok((note.map(Arc::new), session))
        })
        .await
    }

    /// Begins an upload, unless the registry has the blob or can have it from itself.
    async fn begin(&self) -> Result<Option<Session>, PullError> {
        let path = format!("/v2/{}/blobs/{}", self.repository, self.digest);
        let ask = Ask { method: Method::HEAD, ..Ask::default() };
        match self.endpoint.ask(&self.endpoint.url(&path), &ask).await {
            Ok(_) => return Ok(None),
            Err(PullError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        let url = self.endpoint.url(&format!("/v2/{}/blobs/uploads/", self.repository));
        let ask = Ask { method: Method::POST, ..Ask::default() };
        for from in &self.mounts {
            let mut url = url.clone();
            url.query_pairs_mut()
                .append_pair("mount", &self.digest.to_string())
                .append_pair("from", from);
            match self.endpoint.ask(&url, &ask).await {
                Ok(response) if response.status() == StatusCode::CREATED => return Ok(None),
                Ok(response) => return self.begun(&url, &response).map(Some),
                // Who may write here need not be allowed to read there.
                Err(error) if error.is_transient() => return Err(error),
                Err(error) => tracing::debug!(%error, from, "Cannot mount"),
            }
        }
        let response = self.endpoint.ask(&url, &ask).await?;
        self.begun(&url, &response).map(Some)
    }

    fn begun(&self, url: &Url, response: &Response) -> Result<Session, PullError> {
        let url = self.next(url, response.headers())?;
        Ok(Session { url, n_bytes: 0, is_sure: true, is_noted: false, parts: Vec::new() })
    }

    /// Asks how far an upload is. One that the registry does not know any more is over.
    async fn is_known(&self, session: &mut Session) -> Result<bool, PullError> {
        // What went to storage behind the registry is not counted there.
        if !session.parts.is_empty() {
            session.is_sure = true;
            return Ok(true);
        }
        let response = match self.endpoint.ask(&session.url, &Ask::default()).await {
            Ok(response) => response,
            Err(error) if error.is_transient() => return Err(error),
            Err(PullError::NotFound { .. } | PullError::Status { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        session.n_bytes = received(response.headers());
        if let Ok(url) = self.next(&session.url, response.headers()) {
            session.url = url;
        }
        session.is_sure = true;
        Ok(true)
    }

    async fn send(
        &self,
        session: &mut Session,
        chunk: Bytes,
        news: &News,
    ) -> Result<(), PullError> {
        let (start, end) = (session.n_bytes, session.n_bytes + chunk.len() as u64);
        let endpoint = &self.endpoint;
        let tell = |n_sent| news.tell(BlobState::Sending, start + n_sent);
        let shown = endpoint.shown().await;
        let mut request = endpoint
            .net
            .client()?
            .patch(session.url.clone())
            .header(CONTENT_TYPE, BYTES)
            .header(CONTENT_RANGE, format!("{start}-{}", end - 1))
            // Ollama's registry then says where its storage is, and takes no bytes itself.
            .header("X-Redirect-Uploads", "1");
        if let Some(value) = shown.clone().filter(|_| same_origin(&session.url, &endpoint.base)) {
            request = request.header(AUTHORIZATION, value);
        }
        let response = sending::send(endpoint, request, chunk.clone(), tell).await?;
        if response.status() == StatusCode::TEMPORARY_REDIRECT {
            let next = self.next(&session.url, response.headers())?;
            session.parts.push(self.store(&session.url, &response, chunk, news, start).await?);
            (session.url, session.n_bytes) = (next, end);
            return Ok(());
        }
        if endpoint.is_refusal(&response) {
            endpoint.renew(shown, &response).await?;
        }
        let response = endpoint.accept(&session.url, response).await?;
        session.url = self.next(&session.url, response.headers())?;
        // One that says nothing took all of it; so did one that says `0-0` of a blob of one byte.
        session.n_bytes = match received(response.headers()) {
            0 => end,
            n_bytes => n_bytes,
        };
        Ok(())
    }

    /// Sends a part where the registry says. That is another's server, which is shown nothing.
    async fn store(
        &self,
        from: &Url,
        redirect: &Response,
        chunk: Bytes,
        news: &News,
        start: u64,
    ) -> Result<[u8; 16], PullError> {
        let url = self.location(from, redirect.headers(), LOCATION.as_str())?;
        let request = self.endpoint.net.client()?.put(url.clone()).header(CONTENT_TYPE, BYTES);
        let tell = |n_sent| news.tell(BlobState::Sending, start + n_sent);
        let response = sending::send(&self.endpoint, request, chunk.clone(), tell).await?;
        self.endpoint.accept(&url, response).await?;
        Ok(Md5::digest(&chunk).into())
    }

    async fn commit(&self, session: &Session) -> Result<(), PullError> {
        let mut url = session.url.clone();
        url.query_pairs_mut().append_pair("digest", &self.digest.to_string());
        if !session.parts.is_empty() {
            let all = Md5::digest(session.parts.concat());
            let hex: String = all.iter().map(|byte| format!("{byte:02x}")).collect();
            url.query_pairs_mut().append_pair("etag", &format!("{hex}-{}", session.parts.len()));
        }
        let body = Some((BYTES.to_owned(), Bytes::new()));
        let ask = Ask { method: Method::PUT, body, patience: Some(COMMIT), ..Ask::default() };
        self.endpoint.ask(&url, &ask).await.map(drop)
    }

    async fn read(&self, start: u64, end: u64) -> Result<Bytes, PullError> {
        let path = self.path.clone();
        blocking(move || {
            let mut chunk = vec![0; usize::try_from(end - start).unwrap_or_default()];
            let read = File::open(&path).and_then(|file| file.read_exact_at(&mut chunk, start));
            read.map_err(|source| StoreError::Io { action: "read", path, source })?;
            Ok(chunk.into())
        })
        .await
    }

    /// Where the upload goes on.
    fn next(&self, from: &Url, headers: &HeaderMap) -> Result<Url, PullError> {
        let own = "docker-upload-location";
        self.location(from, headers, if headers.contains_key(own) { own } else { "location" })
    }

    fn location(&self, from: &Url, headers: &HeaderMap, name: &str) -> Result<Url, PullError> {
        let location = headers.get(name).and_then(|to| to.to_str().ok());
        let url = location.and_then(|to| from.join(to).ok()).filter(|to| may_follow(from, to));
        url.ok_or_else(|| self.endpoint.bad_answer("an upload to nowhere".into()))
    }
}

/// What a registry says it has of an upload: `0-99` is a hundred bytes, and `0-0` is taken for none.
fn received(headers: &HeaderMap) -> u64 {
    let range = headers.get(RANGE).and_then(|range| range.to_str().ok());
    let last = range.and_then(|range| range.rsplit_once('-')?.1.parse::<u64>().ok());
    last.filter(|last| *last > 0).map_or(0, |last| last.saturating_add(1))
}
