//! `model.import`

use super::{Daemon, Handled, Source, store_error};
use crate::listen::Caller;
use crate::supervisor::parse_name;
use hearth_protocol::{
    ErrorKind, ImportMode, ImportParams, Imported, ModelImport, ProgressEvent, RpcError,
};
use hearth_store::{ImportStage, Placed};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub(super) async fn handle(
    daemon: Arc<Daemon>,
    caller: Caller,
    params: ImportParams,
) -> Handled<ModelImport> {
    let mut import = start(daemon, caller, params);
    loop {
        match import.next().await {
            Some(ProgressEvent::Done { reply }) => return Ok(reply),
            Some(ProgressEvent::Error { error }) => return Err(error),
            Some(ProgressEvent::Progress { .. }) => {}
            None => {
                return Err(RpcError::new(
                    ErrorKind::Internal,
                    "the import ended without a result",
                ));
            }
        }
    }
}

pub(super) fn start(daemon: Arc<Daemon>, _: Caller, params: ImportParams) -> Import {
    // The import sees that nobody listens any more by this channel being closed.
    let (progress, news) = watch::channel(None);
    let task = tokio::task::spawn_blocking(move || import(&daemon, params, &progress));
    Import { task: Some(task), news }
}

pub(super) struct Import {
    task: Option<JoinHandle<Result<Imported, RpcError>>>,
    news: watch::Receiver<Option<(&'static str, f32)>>,
}

impl Source<ProgressEvent<Imported>> for Import {
    async fn next(&mut self) -> Option<ProgressEvent<Imported>> {
        let task = self.task.as_mut()?;
        while self.news.changed().await.is_ok() {
            if let Some((stage, fraction)) = *self.news.borrow() {
                return Some(ProgressEvent::Progress { stage: stage.into(), fraction });
            }
        }
        let result = task.await;
        self.task = None;
        Some(match result {
            Ok(Ok(reply)) => ProgressEvent::Done { reply },
            Ok(Err(error)) => ProgressEvent::Error { error },
            Err(error) => {
                let error =
                    RpcError::new(ErrorKind::Internal, format!("the import ended badly: {error}"));
                ProgressEvent::Error { error }
            }
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
