//! A whole model: its manifest, its blobs, its name.

use crate::Settings;
use crate::blobs::{Blobs, Download};
use crate::error::PullError;
use crate::fetch::{Place, Wanted, blocking};
use crate::http::{Ask, Endpoint, Net};
use crate::manifest::{self, Ingredient, Recipe};
use crate::source::Repository;
use hearth_store::{Digest, ModelName, PartialKey, Piece, Stores};
use reqwest::header::{CONTENT_RANGE, ETAG, LAST_MODIFIED};
use reqwest::{Response, StatusCode, Url};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// For a manifest, which takes no part of a minute.
const MAX_ASKS: u32 = 4;

/// How often progress is told.
const TICK_MS: u64 = 100;
/// What a rate is measured over.
const RATE_TICKS: usize = 20;

/// Pulls models into the store that is written to.
#[derive(Debug)]
pub struct Puller {
    net: Arc<Net>,
    stores: Arc<Stores>,
    blobs: Blobs,
}

/// What a pull has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// As it is spelled on disk.
    pub name: ModelName,
    /// The digest of the manifest.
    pub id: Digest,
    pub size: u64,
}

/// How far one blob is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobProgress {
    /// Not known before the end where only a URL is.
    pub digest: Option<Digest>,
    pub kind: &'static str,
    pub size: u64,
    pub state: BlobState,
    /// Never goes down within a state, nor from checking a partial to fetching the rest.
    pub n_bytes: u64,
    /// Over the last two seconds; 0 unless it is being fetched.
    pub bytes_per_second: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobState {
    Waiting,
    /// Reading what is on disk already.
    Checking,
    Fetching,
    /// Waiting for the disk.
    Finishing,
    Done,
}

impl Puller {
    pub fn new(stores: Arc<Stores>, settings: Settings) -> Self {
        Self { net: Arc::new(Net::new(settings)), stores, blobs: Blobs::default() }
    }

    /// Pulls what a registry has under a tag now. Dropping the future keeps what was fetched.
    pub async fn registry(
        &self,
        repository: &Repository,
        name: &ModelName,
        progress: &watch::Sender<Vec<BlobProgress>>,
    ) -> Result<Pulled, Arc<PullError>> {
        let endpoints = self.endpoints(repository)?;
        let (recipe, ingredients) = self.recipe(&endpoints, repository).await?;
        let watched = ingredients.into_iter().map(|Ingredient { digest, size, kind }| {
            let path = format!("/v2/{}/blobs/{digest}", repository.path);
            let places = endpoints.iter().map(|endpoint| Place {
                url: endpoint.url(&path),
                endpoint: Arc::clone(endpoint),
                etag: None,
            });
            let key = PartialKey::Content(digest);
            let wanted = Wanted { key, size, places: places.collect(), can_resume: true };
            Watched::new(Some(digest), kind, size, self.download(wanted))
        });
        watch_all(watched.collect(), progress).await?;
        let (store, name) = (Arc::clone(self.stores.own()), name.clone());
        let pulled = blocking(move || {
            let (name, manifest) = match recipe {
                Recipe::Ollama(manifest) => (store.commit(&name, &manifest)?, manifest),
                Recipe::Files(files) => {
                    let pieces: Vec<_> = files.iter().map(Ingredient::piece).collect();
                    store.adopt(&name, &pieces)?
                }
            };
            Ok(Pulled { name, id: manifest.id(), size: manifest.size() })
        });
        Ok(pulled.await?)
    }

    /// Pulls one GGUF file.
    pub async fn url(
        &self,
        url: &Url,
        name: &ModelName,
        progress: &watch::Sender<Vec<BlobProgress>>,
    ) -> Result<Pulled, Arc<PullError>> {
        let endpoint = Arc::new(Endpoint::new(Arc::clone(&self.net), url.clone()));
        // The first byte tells how many there are, and of which version.
        let ask = Ask { range: Some(0..1), ..Ask::default() };
        let mut patience = self.patience();
        let response = loop {
            match endpoint.get(url, &ask).await {
                Ok(response) => break response,
                Err(error) => patience.wait(error).await?,
            }
        };
        let size = size_of(&response)
            .ok_or_else(|| endpoint.bad_answer("no length of what it has".into()))?;
        let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let version = text(ETAG).or(text(LAST_MODIFIED)).map(str::to_owned);
        let etag = text(ETAG).map(str::to_owned);
        drop(response);
        let identity = format!("{url}\n{size}\n{}", version.as_deref().unwrap_or_default());
        let wanted = Wanted {
            key: PartialKey::Origin(Digest::of(identity.as_bytes())),
            size,
            places: vec![Place { endpoint, url: url.clone(), etag }],
            can_resume: version.is_some(),
        };
        let watched = Watched::new(None, "model", size, self.download(wanted));
        let digests = watch_all(vec![watched], progress).await?;
        let (store, name) = (Arc::clone(self.stores.own()), name.clone());
        let pulled = blocking(move || {
            let pieces: Vec<_> = digests
                .into_iter()
                .map(|digest| Piece { digest, size, is_license: false })
                .collect();
            let (name, manifest) = store.adopt(&name, &pieces)?;
            Ok(Pulled { name, id: manifest.id(), size: manifest.size() })
        });
        Ok(pulled.await?)
    }

    fn download(&self, wanted: Wanted) -> Arc<Download> {
        self.blobs.download(&self.net, &self.stores, wanted)
    }

    /// The mirrors, and last the registry itself.
    fn endpoints(&self, repository: &Repository) -> Result<Vec<Arc<Endpoint>>, PullError> {
        let mirrors = self.net.settings.mirrors.get(&repository.host).into_iter().flatten();
        let bases = mirrors.cloned().chain([repository.base.clone()]);
        Ok(bases.map(|base| Arc::new(Endpoint::new(Arc::clone(&self.net), base))).collect())
    }

    async fn recipe(
        &self,
        endpoints: &[Arc<Endpoint>],
        repository: &Repository,
    ) -> Result<(Recipe, Vec<Ingredient>), PullError> {
        let path = format!("/v2/{}/manifests/{}", repository.path, repository.tag);
        let ask = Ask { accept: Some(manifest::ACCEPT), ..Ask::default() };
        let mut result = Err(PullError::Task { reason: "there is nowhere to ask".into() });
        for endpoint in endpoints {
            let mut patience = self.patience();
            result = loop {
                match recipe_at(endpoint, &path, &ask).await {
                    Ok(recipe) => return Ok(recipe),
                    Err(error) => {
                        if let Err(error) = patience.wait(error).await {
                            break Err(error);
                        }
                    }
                }
            };
        }
        result
    }

    fn patience(&self) -> Patience {
        Patience { n_left: MAX_ASKS - 1, wait: self.net.settings.retry }
    }
}

async fn recipe_at(
    endpoint: &Endpoint,
    path: &str,
    ask: &Ask,
) -> Result<(Recipe, Vec<Ingredient>), PullError> {
    let response = endpoint.get(&endpoint.url(path), ask).await?;
    let bytes = endpoint.read(response, manifest::MAX_BYTES).await?;
    let recipe = Recipe::parse(bytes).map_err(|reason| endpoint.bad_answer(reason))?;
    let ingredients = recipe.ingredients().map_err(|reason| endpoint.bad_answer(reason))?;
    Ok((recipe, ingredients))
}

/// How often the same is asked again.
struct Patience {
    n_left: u32,
    wait: Duration,
}

impl Patience {
    /// Waits before the next attempt, or gives the error back if there is to be none.
    async fn wait(&mut self, error: PullError) -> Result<(), PullError> {
        if self.n_left == 0 || !error.is_transient() {
            return Err(error);
        }
        self.n_left -= 1;
        sleep(error.retry_after().unwrap_or(self.wait)).await;
        self.wait *= 2;
        Ok(())
    }
}

fn size_of(response: &Response) -> Option<u64> {
    match response.status() {
        StatusCode::PARTIAL_CONTENT => {
            let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
            range.rsplit_once('/')?.1.parse().ok()
        }
        _ => response.content_length(),
    }
}

/// A download of this pull, with how far it was.
struct Watched {
    progress: BlobProgress,
    download: Arc<Download>,
    /// Bytes at the last ticks of its fetching, the oldest first.
    ticks: VecDeque<u64>,
}

impl Watched {
    fn new(digest: Option<Digest>, kind: &'static str, size: u64, download: Arc<Download>) -> Self {
        let state = BlobState::Waiting;
        let progress = BlobProgress { digest, kind, size, state, n_bytes: 0, bytes_per_second: 0 };
        Self { progress, download, ticks: VecDeque::new() }
    }

    fn tick(&mut self) -> BlobProgress {
        let now = self.download.progress();
        if now.state == BlobState::Fetching {
            self.ticks.push_back(now.n_bytes);
            if self.ticks.len() > RATE_TICKS + 1 {
                self.ticks.pop_front();
            }
        } else {
            self.ticks.clear();
        }
        let n_bytes = now.n_bytes - self.ticks.front().copied().unwrap_or(now.n_bytes);
        let n_ms = TICK_MS * (self.ticks.len() as u64).saturating_sub(1);
        self.progress.bytes_per_second = (n_bytes * 1000).checked_div(n_ms).unwrap_or(0);
        (self.progress.state, self.progress.n_bytes) = (now.state, now.n_bytes);
        self.progress.clone()
    }
}

/// Tells how far all are until all are done or one has failed.
async fn watch_all(
    mut watched: Vec<Watched>,
    progress: &watch::Sender<Vec<BlobProgress>>,
) -> Result<Vec<Digest>, Arc<PullError>> {
    let downloads: Vec<_> = watched.iter().map(|one| Arc::clone(&one.download)).collect();
    let all = async {
        let mut waits = JoinSet::new();
        for (idx, download) in downloads.into_iter().enumerate() {
            waits.spawn(async move { (idx, download.wait().await) });
        }
        let mut digests = BTreeMap::new();
        while let Some(ended) = waits.join_next().await {
            let (idx, digest) =
                ended.map_err(|error| PullError::Task { reason: error.to_string() })?;
            digests.insert(idx, digest?);
        }
        Ok(digests.into_values().collect())
    };
    let mut ticks = interval(Duration::from_millis(TICK_MS));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut all = std::pin::pin!(all);
    loop {
        let end = tokio::select! {
            end = &mut all => Some(end),
            _ = ticks.tick() => None,
        };
        let now: Vec<_> = watched.iter_mut().map(Watched::tick).collect();
        progress.send_if_modified(|last| {
            let is_new = *last != now;
            *last = now;
            is_new
        });
        if let Some(end) = end {
            return end;
        }
    }
}
