//! `model.import`

use super::work::{Events, Request, Work};
use super::{Daemon, store_error};
use crate::supervisor::parse_name;
use hearth_protocol::{
    ErrorKind, ImportMode, ImportParams, Imported, ModelImport, ProgressEvent, RpcError,
};
use hearth_store::{ImportStage, Placed};
use std::ops::ControlFlow;
use std::path::PathBuf;
use tokio::sync::watch;

impl Work for ModelImport {
    type Event = ProgressEvent<Imported>;

    fn name(params: &mut ImportParams) -> Option<String> {
        params.request.take()
    }

    async fn run(
        request: Request,
        params: ImportParams,
        events: Events<Self::Event>,
    ) -> Result<Imported, RpcError> {
        // The import sees by this channel being closed that it is to end.
        let (progress, mut news) = watch::channel(None);
        let task = tokio::task::spawn_blocking(move || import(&request.daemon, params, &progress));
        while news.changed().await.is_ok() {
            let told = *news.borrow();
            if let Some((stage, fraction)) = told {
                let stage = String::from(stage);
                events.tell(ProgressEvent::Progress { stage, fraction }).await;
            }
        }
        task.await.unwrap_or_else(|error| {
            Err(RpcError::new(ErrorKind::Internal, format!("the import ended badly: {error}")))
        })
    }
}

fn import(
    daemon: &Daemon,
    params: ImportParams,
    news: &watch::Sender<Option<(&'static str, f32)>>,
) -> Result<Imported, RpcError> {
    let name = parse_name(&params.name)?;
    let path = PathBuf::from(params.path);
    if !path.is_absolute() {
        return Err(RpcError::new(
            ErrorKind::InvalidParams,
            format!("`{}` is not an absolute path", path.display()),
        )
        .with_hint("the daemon does not know the caller's working directory"));
    }
    let mode = match params.mode {
        ImportMode::Auto => hearth_store::ImportMode::Auto,
        ImportMode::Copy => hearth_store::ImportMode::Copy,
        ImportMode::Reflink => hearth_store::ImportMode::Reflink,
        ImportMode::Link => hearth_store::ImportMode::Link,
    };
    let mut told = None;
    let mut progress = |progress: hearth_store::ImportProgress| {
        let stage = match progress.stage {
            ImportStage::Checking => "checking",
            ImportStage::Copying => "copying",
            ImportStage::Hashing => "hashing",
            ImportStage::Syncing => "writing to disk",
            ImportStage::Finishing => "finishing",
        };
        let percent =
            (progress.bytes_done * 100).checked_div(progress.bytes_total).unwrap_or(0).min(100);
        if told != Some((stage, percent)) {
            told = Some((stage, percent));
            news.send_replace(Some((
                stage,
                f32::from(u8::try_from(percent).unwrap_or(100)) / 100.0,
            )));
        }
        if news.is_closed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let imported = hearth_store::import(&daemon.store, &path, &name, mode, &mut progress)
        .map_err(|error| store_error(&error))?;
    let how = match imported.placed {
        Placed::Copied => "copy",
        Placed::Reflinked => "reflink",
        Placed::Linked => "link",
        Placed::Reused => "present",
    };
    tracing::info!(model = %imported.name, how, "Model imported");
    Ok(Imported { name: imported.name.to_string(), id: imported.id.hex(), how: how.into() })
}
