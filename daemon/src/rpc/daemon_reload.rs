//! `daemon.reload`, which SIGHUP is too.

use super::{Daemon, Handled};
use crate::listen::Caller;
use crate::manager;
use hearth_protocol::{DaemonReload, Empty, ErrorKind, Reloaded, RpcError};
use std::sync::Arc;

pub(super) async fn handle(
    daemon: Arc<Daemon>,
    _: Caller,
    Empty {}: Empty,
) -> Handled<DaemonReload> {
    daemon.reload().await.map_err(|error| {
        RpcError::new(ErrorKind::BadConfiguration, format!("{error:#}"))
            .with_hint("correct it and reload again; until then all stays as it was")
    })
}

impl Daemon {
    /// Reads the configuration again, and looks for backends again.
    pub(crate) async fn reload(self: &Arc<Self>) -> anyhow::Result<Reloaded> {
        manager::reloading();
        let settings = Arc::clone(&self.settings);
        let result = tokio::task::spawn_blocking(move || settings.reload()).await?;
        match &result {
            Ok(needs_restart) if needs_restart.is_empty() => {
                tracing::info!("Configuration reloaded")
            }
            Ok(needs_restart) => tracing::warn!(
                "Configuration reloaded, but these keys wait for a restart: {}",
                needs_restart.join(", ")
            ),
            Err(error) => tracing::warn!("The configuration stays as it was: {error:#}"),
        }
        if result.is_ok() {
            self.supervisor.probe();
        }
        manager::ready(self);
        let needs_restart = result?.into_iter().map(Into::into).collect();
        Ok(Reloaded { needs_restart })
    }
}
