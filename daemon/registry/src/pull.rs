//! A whole model: its manifest, its blobs, its name.

use crate::Settings;
use crate::blobs::{Blobs, Transfer};
use crate::error::PullError;
use crate::fetch::{Place, Wanted, blocking};
use crate::http::{Ask, Endpoint, Net};
use crate::manifest::{self, Ingredient, Recipe};
use crate::patience::Patience;
use crate::shards::{self, Shard};
use crate::source::Repository;
use hearth_store::{Digest, Manifest, ModelName, PartialKey, Piece, Store, Stores};
use reqwest::header::{CONTENT_RANGE, ETAG, LAST_MODIFIED};
use reqwest::{Response, StatusCode, Url};
use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// How often progress is told.
const TICK_MS: u64 = 100;
/// What a rate is measured over.
const RATE_TICKS: usize = 20;

/// Moves models between registries and one store.
#[derive(Debug)]
pub struct Puller {
    pub(crate) net: Arc<Net>,
    pub(crate) stores: Arc<Stores>,
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
    /// Over the last two seconds; 0 unless it is being fetched or sent.
    pub bytes_per_second: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobState {
    Waiting,
    /// Seeing what is there already.
    Checking,
    Fetching,
    Sending,
    /// Waiting for the disk, or for the registry.
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
        let endpoints = self.endpoints(repository);
        let (recipe, ingredients) = match self.recipe(&endpoints, repository).await {
            Ok(found) => found,
            Err(error) => match self.shards(repository).await {
                Some(shards) => return self.sharded(repository, shards, name, progress).await,
                None => return Err(error.into()),
            },
        };
        let blobs = ingredients.into_iter().map(|one| (one.digest, one.size, one.kind));
        self.blobs_of(repository, blobs, progress).await?;
        let (store, name, origin) =
            (Arc::clone(self.stores.own()), name.clone(), repository.origin());
        let pulled = blocking(move || match recipe {
            Recipe::Ollama(manifest) => {
                let name = store.commit(&name, &manifest)?;
                named(&store, name, &manifest, &origin)
            }
            Recipe::Files(files) => {
                let pieces: Vec<_> = files.iter().map(Ingredient::piece).collect();
                adopt(&store, &name, &pieces, &origin)
            }
        });
        Ok(pulled.await?)
    }

    /// Pulls one GGUF file, or all the parts of one.
    pub async fn url(
        &self,
        url: &Url,
        name: &ModelName,
        progress: &watch::Sender<Vec<BlobProgress>>,
    ) -> Result<Pulled, Arc<PullError>> {
        let pieces = self.files(url, progress).await?;
        let (store, name, origin) = (Arc::clone(self.stores.own()), name.clone(), url.to_string());
        Ok(blocking(move || adopt(&store, &name, &pieces, &origin)).await?)
    }

    /// Fetches blobs of a repository.
    pub(crate) async fn blobs_of(
        &self,
        repository: &Repository,
        blobs: impl Iterator<Item = (Digest, u64, &'static str)>,
        progress: &watch::Sender<Vec<BlobProgress>>,
    ) -> Result<(), Arc<PullError>> {
        let endpoints = self.endpoints(repository);
        let watched = blobs.map(|(digest, size, kind)| {
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
        watch_all(watched.collect(), progress).await.map(drop)
    }

    /// Fetches the file behind a URL, or all of which it is a part.
    pub(crate) async fn files(
        &self,
        url: &Url,
        progress: &watch::Sender<Vec<BlobProgress>>,
    ) -> Result<Vec<Piece>, Arc<PullError>> {
        let mut watched = Vec::new();
        let mut sizes = Vec::new();
        for url in shards::urls(url) {
            let wanted = self.file(&url).await?;
            sizes.push(wanted.size);
            watched.push(Watched::new(None, "model", wanted.size, self.download(wanted)));
        }
        let digests = watch_all(watched, progress).await?;
        let piece = |(digest, size)| Piece { digest, size, is_license: false };
        Ok(std::iter::zip(digests, sizes).map(piece).collect())
    }

    async fn file(&self, url: &Url) -> Result<Wanted, PullError> {
        let endpoint = Arc::new(Endpoint::new(Arc::clone(&self.net), url.clone()));
        // The first byte tells how many there are, and of which version.
        let ask = Ask { range: Some(0..1), ..Ask::default() };
        let mut patience = self.patience();
        let response = loop {
            match endpoint.ask(url, &ask).await {
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
        Ok(Wanted {
            key: PartialKey::Origin(Digest::of(identity.as_bytes())),
            size,
            places: vec![Place { endpoint, url: url.clone(), etag }],
            can_resume: version.is_some(),
        })
    }

    /// The parts that a tag means at Hugging Face, whose registry does not give them.
    async fn shards(&self, repository: &Repository) -> Option<Vec<Shard>> {
        if !matches!(repository.host.as_str(), "hf.co" | "huggingface.co") {
            return None;
        }
        let endpoint = Endpoint::new(Arc::clone(&self.net), repository.base.clone());
        let mut url = endpoint.url(&shards::list_path(&repository.path));
        url.set_query(Some("recursive=true"));
        let response = endpoint.ask(&url, &Ask::default()).await.ok()?;
        let list = endpoint.read(response, shards::MAX_LIST_BYTES).await.ok()?;
        shards::find(&list, &repository.tag).ok().filter(|shards| !shards.is_empty())
    }

    async fn sharded(
        &self,
        repository: &Repository,
        shards: Vec<Shard>,
        name: &ModelName,
        progress: &watch::Sender<Vec<BlobProgress>>,
    ) -> Result<Pulled, Arc<PullError>> {
        let digests: Vec<Digest> = shards.iter().map(|shard| shard.digest).collect();
        let joined = self.stores.own().joined(&digests);
        let pieces = match joined {
            Some(file) if self.is_whole(&file, progress).await => vec![file],
            _ => {
                let endpoint =
                    Arc::new(Endpoint::new(Arc::clone(&self.net), repository.base.clone()));
                let watched = shards.iter().map(|shard| {
                    let url = endpoint.url(&shards::file_path(&repository.path, shard));
                    let place = Place { endpoint: Arc::clone(&endpoint), url, etag: None };
                    let key = PartialKey::Content(shard.digest);
                    let (size, places) = (shard.size, vec![place]);
                    let wanted = Wanted { key, size, places, can_resume: true };
                    Watched::new(Some(shard.digest), "model", size, self.download(wanted))
                });
                watch_all(watched.collect(), progress).await?;
                let piece = |shard: &Shard| Piece {
                    digest: shard.digest,
                    size: shard.size,
                    is_license: false,
                };
                shards.iter().map(piece).collect()
            }
        };
        let (store, name, origin) =
            (Arc::clone(self.stores.own()), name.clone(), repository.origin());
        Ok(blocking(move || adopt(&store, &name, &pieces, &origin)).await?)
    }

    /// Reads a file that was made of parts, and says how far it is.
    async fn is_whole(&self, file: &Piece, progress: &watch::Sender<Vec<BlobProgress>>) -> bool {
        let (store, Piece { digest, size, .. }) = (Arc::clone(self.stores.own()), *file);
        let reading = Transfer::begin(async move |news| {
            blocking(move || {
                let mut tell = |n_bytes| {
                    news.tell(BlobState::Checking, n_bytes);
                    if news.is_wanted() {
                        ControlFlow::Continue(())
                    } else {
                        ControlFlow::Break(())
                    }
                };
                store.blobs().verify(&digest, size, &mut tell)?;
                news.tell(BlobState::Done, size);
                Ok(digest)
            })
            .await
        });
        let watched = Watched::new(Some(digest), "model", size, Arc::new(reading));
        watch_all(vec![watched], progress).await.is_ok()
    }

    fn download(&self, wanted: Wanted) -> Arc<Transfer> {
        self.blobs.download(&self.net, &self.stores, wanted)
    }

    /// The mirrors, and last the registry itself.
    fn endpoints(&self, repository: &Repository) -> Vec<Arc<Endpoint>> {
        let mirrors = self.net.settings.mirrors.get(&repository.host).into_iter().flatten();
        let bases = mirrors.cloned().chain([repository.base.clone()]);
        bases.map(|base| Arc::new(Endpoint::new(Arc::clone(&self.net), base))).collect()
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
        Patience::new(self.net.settings.retry)
    }
}

fn adopt(
    store: &Store,
    name: &ModelName,
    pieces: &[Piece],
    origin: &str,
) -> Result<Pulled, PullError> {
    let (name, manifest) = store.adopt(name, pieces)?;
    named(store, name, &manifest, origin)
}

fn named(
    store: &Store,
    name: ModelName,
    manifest: &Manifest,
    origin: &str,
) -> Result<Pulled, PullError> {
    // The model is there; without its origin it can only not be repaired.
    if let Err(error) = store.set_origin(&manifest.id(), origin) {
        tracing::warn!(%error, "Not remembering where a model came from");
    }
    Ok(Pulled { name, id: manifest.id(), size: manifest.size() })
}

async fn recipe_at(
    endpoint: &Endpoint,
    path: &str,
    ask: &Ask,
) -> Result<(Recipe, Vec<Ingredient>), PullError> {
    let response = endpoint.ask(&endpoint.url(path), ask).await?;
    let bytes = endpoint.read(response, manifest::MAX_BYTES).await?;
    let recipe = Recipe::parse(bytes).map_err(|reason| endpoint.bad_answer(reason))?;
    let ingredients = recipe.ingredients().map_err(|reason| endpoint.bad_answer(reason))?;
    Ok((recipe, ingredients))
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

/// A blob on its way, with how far it was.
pub(crate) struct Watched {
    progress: BlobProgress,
    transfer: Arc<Transfer>,
    /// Bytes at the last ticks of its way, the oldest first.
    ticks: VecDeque<u64>,
}

impl Watched {
    pub(crate) fn new(
        digest: Option<Digest>,
        kind: &'static str,
        size: u64,
        transfer: Arc<Transfer>,
    ) -> Self {
        let state = BlobState::Waiting;
        let progress = BlobProgress { digest, kind, size, state, n_bytes: 0, bytes_per_second: 0 };
        Self { progress, transfer, ticks: VecDeque::new() }
    }

    fn tick(&mut self) -> BlobProgress {
        let now = self.transfer.progress();
        if matches!(now.state, BlobState::Fetching | BlobState::Sending) {
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
pub(crate) async fn watch_all(
    mut watched: Vec<Watched>,
    progress: &watch::Sender<Vec<BlobProgress>>,
) -> Result<Vec<Digest>, Arc<PullError>> {
    let transfers: Vec<_> = watched.iter().map(|one| Arc::clone(&one.transfer)).collect();
    let all = async {
        let mut waits = JoinSet::new();
        for (idx, transfer) in transfers.into_iter().enumerate() {
            waits.spawn(async move { (idx, transfer.wait().await) });
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
