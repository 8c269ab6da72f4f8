//! `model.pull`

use super::transferred::{transfer_error, transferred};
use super::work::{Events, Request, Work};
use crate::config::PullConfig;
use crate::supervisor::parse_name;
use anyhow::Context as _;
use hearth_protocol::{ModelPull, PullParams, Pulled, RpcError, TransferEvent};
use hearth_registry::{Puller, Secret, Settings, Source};
use hearth_store::Stores;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// The first wait after a failure.
const RETRY: Duration = Duration::from_millis(250);

impl Work for ModelPull {
    type Event = TransferEvent<Pulled>;

    fn name(params: &mut PullParams) -> Option<String> {
        params.request.take()
    }

    async fn run(
        request: Request,
        params: PullParams,
        events: Events<Self::Event>,
    ) -> Result<Pulled, RpcError> {
        let source = Source::parse(&params.source).map_err(|error| transfer_error(&error))?;
        let name = match &params.name {
            Some(name) => parse_name(name)?,
            None => source.name().clone(),
        };
        let puller = &request.daemon.puller;
        let pulled = transferred(&events, async |progress| match &source {
            Source::Registry(repository) => puller.registry(repository, &name, progress).await,
            Source::Url(url, _) => puller.url(url, &name, progress).await,
        });
        let pulled = pulled.await?;
        tracing::info!(model = %pulled.name, bytes = pulled.size, "Model pulled");
        Ok(Pulled { name: pulled.name.to_string(), id: pulled.id.hex(), size_bytes: pulled.size })
    }
}

/// What pulls into this store, as it is configured.
pub(crate) fn puller(stores: Arc<Stores>, config: &PullConfig) -> anyhow::Result<Puller> {
    let mut secrets = HashMap::new();
    if let Some(token) = std::env::var("HF_TOKEN").ok().filter(|token| !token.is_empty()) {
        for host in ["hf.co", "huggingface.co"] {
            secrets.insert(host.to_owned(), Secret::Token(token.trim().to_owned()));
        }
    }
    for (host, path) in &config.credentials {
        let text = std::fs::read_to_string(path).with_context(|| {
            format!("cannot read the secret for `{host}` in `{}`", path.display())
        })?;
        let secret = Secret::parse(&text).map_err(|reason| {
            anyhow::anyhow!("cannot use the secret for `{host}` in `{}`: {reason}", path.display())
        })?;
        secrets.insert(host.clone(), secret);
    }
    let settings = Settings {
        n_streams: config.streams,
        bytes_per_second: config.bytes_per_second,
        stall: config.stall,
        retry: RETRY,
        mirrors: config.mirrors.clone(),
        secrets,
        key: config.key.clone(),
        uploads: config.uploads.clone(),
    };
    Ok(Puller::new(stores, settings))
}
