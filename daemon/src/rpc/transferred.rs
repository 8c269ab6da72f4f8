//! Models on their way from or to elsewhere: how far each blob is, and how it ended.

use super::reported::telling;
use super::store_error;
use super::work::{About, Events};
use hearth_protocol::{ErrorKind, RpcError, TransferBlob, TransferEvent, TransferState};
use hearth_registry::{BlobProgress, BlobState, PullError};
use serde::Serialize;
use std::sync::Arc;
use tokio::sync::watch;

/// Does it, and tells meanwhile how far it is.
pub(super) async fn transferred<R: Serialize, T>(
    events: &Events<TransferEvent<R>>,
    work: impl AsyncFnOnce(&watch::Sender<Vec<BlobProgress>>) -> Result<T, Arc<PullError>>,
) -> Result<T, RpcError> {
    let event = |blobs: &Vec<BlobProgress>| TransferEvent::Progress {
        blobs: blobs.iter().map(blob).collect(),
    };
    let result = telling(events, work, event).await;
    result.map_err(|error| transfer_error(&error))
}

impl<R: Serialize + Send + Sync + 'static> About<R> for TransferEvent<R> {
    fn accepted(request: String) -> Self {
        Self::Accepted { request }
    }

    fn ended(result: Result<R, RpcError>) -> Self {
        match result {
            Ok(reply) => Self::Done { reply },
            Err(error) => Self::Error { error },
        }
    }
}

fn blob(progress: &BlobProgress) -> TransferBlob {
    TransferBlob {
        digest: progress.digest.map(|digest| digest.to_string()),
        kind: progress.kind.into(),
        state: match progress.state {
            BlobState::Waiting => TransferState::Waiting,
            BlobState::Checking => TransferState::Checking,
            BlobState::Fetching => TransferState::Fetching,
            BlobState::Sending => TransferState::Sending,
            BlobState::Finishing => TransferState::Finishing,
            BlobState::Done => TransferState::Done,
        },
        size_bytes: progress.size,
        done_bytes: progress.n_bytes,
        bytes_per_second: progress.bytes_per_second,
    }
}

pub(super) fn transfer_error(error: &PullError) -> RpcError {
    let kind = match error {
        PullError::Store(error) => return store_error(error),
        PullError::BadSource { .. } => ErrorKind::InvalidParams,
        PullError::NotFound { .. } => ErrorKind::ModelNotFound,
        PullError::BadLayout { .. } => ErrorKind::BadModel,
        PullError::Task { .. } => ErrorKind::Internal,
        _ => ErrorKind::Network,
    };
    let wire = RpcError::new(kind, error.to_string());
    match error.hint() {
        Some(hint) => wire.with_hint(hint),
        None => wire,
    }
}
