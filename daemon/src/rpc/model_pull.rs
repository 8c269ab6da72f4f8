//! `model.pull`

use super::store_error;
use super::work::{About, Events, Request, Work};
use crate::config::PullConfig;
use crate::supervisor::parse_name;
use anyhow::Context as _;
use hearth_protocol::{
    ErrorKind, ModelPull, PullBlob, PullEvent, PullParams, PullState, Pulled, RpcError,
};
use hearth_registry::{BlobProgress, BlobState, PullError, Puller, Secret, Settings, Source};
use hearth_store::Stores;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The first wait after a failure.
const RETRY: Duration = Duration::from_millis(250);

impl Work for ModelPull {
    type Event = PullEvent;

    fn name(params: &mut PullParams) -> Option<String> {
        params.request.take()
    }

    async fn run(
        request: Request,
        params: PullParams,
        events: Events<Self::Event>,
    ) -> Result<Pulled, RpcError> {
        let source = Source::parse(&params.source).map_err(|error| pull_error(&error))?;
        let name = match &params.name {
            Some(name) => parse_name(name)?,
            None => source.name().clone(),
        };
        let (progress, mut news) = watch::channel(Vec::new());
        let puller = &request.daemon.puller;
        let pull = async {
            let pulled = match &source {
                Source::Registry(repository) => puller.registry(repository, &name, &progress).await,
                Source::Url(url, _) => puller.url(url, &name, &progress).await,
            };
            // Ends the telling, after the last of it.
            drop(progress);
            pulled
        };
        let tell = async {
            while news.changed().await.is_ok() {
                let blobs = news.borrow_and_update().iter().map(blob).collect();
                events.tell(PullEvent::Progress { blobs }).await;
            }
        };
        let (pulled, ()) = tokio::join!(pull, tell);
        let pulled = pulled.map_err(|error| pull_error(&error))?;
        tracing::info!(model = %pulled.name, bytes = pulled.size, "Model pulled");
        Ok(Pulled { name: pulled.name.to_string(), id: pulled.id.hex(), size_bytes: pulled.size })
    }
}

impl About<Pulled> for PullEvent {
    fn accepted(request: String) -> Self {
        Self::Accepted { request }
    }

    fn ended(result: Result<Pulled, RpcError>) -> Self {
        match result {
            Ok(reply) => Self::Done { reply },
            Err(error) => Self::Error { error },
        }
    }
}

/// What pulls into this store, as it is configured.
pub(crate) fn puller(stores: Arc<Stores>, config: &PullConfig) -> anyhow::Result<Puller> {
    let mut secrets = HashMap::new();
    if let Some(token) = std::env::var("HF_TOKEN").ok().filter(|token| !token.is_empty()) {
        for host in ["hf.co", "huggingface.co"] {
            secrets.insert(host.to_owned(), Secret::parse(&token));
        }
    }
    for (host, path) in &config.credentials {
        let text = std::fs::read_to_string(path).with_context(|| {
            format!("cannot read the secret for `{host}` in `{}`", path.display())
        })?;
        secrets.insert(host.clone(), Secret::parse(&text));
    }
    let settings = Settings {
        n_streams: config.streams,
        bytes_per_second: config.bytes_per_second,
        stall: config.stall,
        retry: RETRY,
        mirrors: config.mirrors.clone(),
        secrets,
    };
    Ok(Puller::new(stores, settings))
}

fn blob(progress: &BlobProgress) -> PullBlob {
    PullBlob {
        digest: progress.digest.map(|digest| digest.to_string()),
        kind: progress.kind.into(),
        state: match progress.state {
            BlobState::Waiting => PullState::Waiting,
            BlobState::Checking => PullState::Checking,
            BlobState::Fetching => PullState::Fetching,
            BlobState::Finishing => PullState::Finishing,
            BlobState::Done => PullState::Done,
        },
        size_bytes: progress.size,
        done_bytes: progress.n_bytes,
        bytes_per_second: progress.bytes_per_second,
    }
}

fn pull_error(error: &PullError) -> RpcError {
    let kind = match error {
        PullError::Store(error) => return store_error(error),
        PullError::BadSource { .. } => ErrorKind::InvalidParams,
        PullError::NotFound { .. } => ErrorKind::ModelNotFound,
        PullError::Task { .. } => ErrorKind::Internal,
        _ => ErrorKind::Network,
    };
    let wire = RpcError::new(kind, error.to_string());
    match error.hint() {
        Some(hint) => wire.with_hint(hint),
        None => wire,
    }
}
