//! `model.import`

use super::given::{absolute, check_readable};
use super::reported::{Reporter, reported};
use super::transferred::transfer_error;
use super::work::{Events, Request, Work};
use super::{Daemon, store_error};
use crate::supervisor::parse_name;
use hearth_protocol::{
    ErrorKind, ImportMode, ImportParams, Imported, ModelImport, ProgressEvent, RpcError,
};
use hearth_registry::import_layout;
use hearth_store::{ImportStage, Placed};

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
        let work = move |reporter: &mut Reporter| import(&request.daemon, params, reporter);
        reported(&events, work).await
    }
}

fn import(
    daemon: &Daemon,
    params: ImportParams,
    reporter: &mut Reporter,
) -> Result<Imported, RpcError> {
    let name = params.name.as_deref().map(parse_name).transpose()?;
    let path = absolute(&params.path)?;
    let mode = import_mode(params.mode);
    let (name, id, placed) = if path.is_dir() {
        let mut progress = |done, total| reporter.tell("copying", done, total);
        let (imported, placed) =
            import_layout(&daemon.store, path, name.as_ref(), mode, &mut progress)
                .map_err(|error| transfer_error(&error))?;
        (imported.name, imported.id, placed)
    } else {
        let Some(name) = name else {
            let message = "there is no name for the model";
            return Err(RpcError::new(ErrorKind::InvalidParams, message)
                .with_hint("a GGUF file does not say it"));
        };
        check_readable(path)?;
        let mut progress = |progress: hearth_store::ImportProgress| {
            reporter.tell(stage_name(progress.stage), progress.bytes_done, progress.bytes_total)
        };
        let imported = hearth_store::import(&daemon.store, path, &name, mode, &mut progress)
            .map_err(|error| store_error(&error))?;
        (imported.name, imported.id, imported.placed)
    };
    let how = match placed {
        Placed::Copied => "copy",
        Placed::Reflinked => "reflink",
        Placed::Linked => "link",
        Placed::Reused => "present",
    };
    tracing::info!(model = %name, how, "Model imported");
    Ok(Imported { name: name.to_string(), id: id.hex(), how: how.into() })
}

pub(super) fn import_mode(mode: ImportMode) -> hearth_store::ImportMode {
    match mode {
        ImportMode::Auto => hearth_store::ImportMode::Auto,
        ImportMode::Copy => hearth_store::ImportMode::Copy,
        ImportMode::Reflink => hearth_store::ImportMode::Reflink,
        ImportMode::Link => hearth_store::ImportMode::Link,
    }
}

/// For a person.
pub(super) fn stage_name(stage: ImportStage) -> &'static str {
    match stage {
        ImportStage::Checking => "checking",
        ImportStage::Copying => "copying",
        ImportStage::Hashing => "hashing",
        ImportStage::Syncing => "writing to disk",
        ImportStage::Finishing => "finishing",
    }
}
