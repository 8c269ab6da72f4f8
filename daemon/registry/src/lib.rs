//! Models from the network and to it: registries that speak the OCI protocol (Ollama's, Hugging Face's, any other) and plain URLs.
//!
//! A [`Puller`] fetches what a model is made of into the store, and only then names it. Each blob is fetched by one task,
//! in parts over several connections, and whoever wants the same blob waits for the same task; when nobody waits any more
//! it ends, and what it fetched stays in its partial file for the next time.
//!
//! A registry is a stranger. What it says is bounded (sizes, redirects, time without a byte), what it sends is nothing until
//! its hash is right, and it gets no secret but its own: see `http`.

mod auth;
mod blobs;
mod elsewhere;
mod error;
mod fetch;
mod http;
mod key;
mod layout;
mod limiter;
mod manifest;
mod note;
mod pace;
mod patience;
mod pull;
mod push;
mod repair;
mod sending;
mod shards;
mod source;
mod token;
mod upload;

pub use elsewhere::{Elsewhere, Reach, fetch_elsewhere};
pub use error::PullError;
pub use http::Secret;
pub use key::Key;
pub use layout::import_layout;
pub use pull::{BlobProgress, BlobState, Pulled, Puller};
pub use push::Pushed;
pub use source::{Repository, Source};

/// As in `Settings::mirrors`.
pub use reqwest::Url;
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

/// How a [`Puller`] behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Connections at once at most, for all pulls together.
    pub n_streams: usize,
    /// For all pulls together.
    pub bytes_per_second: Option<NonZeroU64>,
    /// How long a connection may bring nothing before it is given up for another.
    pub stall: Duration,
    /// The wait after a first failure; it doubles with each one that follows without progress.
    pub retry: Duration,
    /// By host as it is written in a model's name: base URLs that are asked first, in this order.
    pub mirrors: HashMap<String, Vec<Url>>,
    /// By host, with the port if one is written.
    pub secrets: HashMap<String, Secret>,
    /// The user's key for Ollama's registry, made when it is needed first.
    pub key: Option<PathBuf>,
    /// Where it is noted how far uploads are.
    pub uploads: Option<PathBuf>,
}
