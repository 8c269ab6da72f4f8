//! `/blobs/sha256:…`: files that the daemon cannot open by their paths, sent over the socket.
//!
//! A body goes to disk as it comes, a few pieces of it in memory at a time, and has a name only if its hash is the one that
//! was announced.

use super::Caller;
use super::http::{Answer, answer};
use crate::rpc::{Daemon, store_error};
use hearth_protocol::{ErrorKind, Method as _, ModelCreate, RpcError};
use hearth_store::{Blob, Digest, NewBlob, Store, StoreError};
use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use hyper::{Method, StatusCode};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Pieces between the socket and the disk, of some kilobytes each.
const PIECES: usize = 16;

/// Answers a request for a blob. Whatever the answer, the body is read to its end, or the client might not get to read it.
pub(super) async fn serve(
    daemon: &Daemon,
    caller: Caller,
    method: &Method,
    digest: &str,
    body: Incoming,
) -> Result<Answer, hyper::Error> {
    let (pieces, incoming) = mpsc::channel(PIECES);
    let served = async {
        let is_post = method == Method::POST;
        if !is_post && method != Method::HEAD {
            let error = RpcError::new(ErrorKind::InvalidRequest, "`/blobs` takes POST and HEAD");
            return Err((StatusCode::METHOD_NOT_ALLOWED, error));
        }
        if !caller.is_admin(&daemon.config.admin_group).await {
            let message = format!("uid {} may not call `{}`", caller.uid, ModelCreate::NAME);
            let error = RpcError::new(ErrorKind::PermissionDenied, message);
            return Err((StatusCode::FORBIDDEN, error));
        }
        let digest: Digest =
            digest.parse().map_err(|error| (StatusCode::BAD_REQUEST, store_error(&error)))?;
        match (present(&daemon.store, digest).await, is_post) {
            (true, _) => Ok(StatusCode::OK),
            (false, true) => write(&daemon.store, digest, incoming).await,
            (false, false) => {
                let message = format!("there is no blob `{digest}`");
                Err((StatusCode::NOT_FOUND, RpcError::new(ErrorKind::InvalidParams, message)))
            }
        }
    };
    let (served, read) = tokio::join!(served, read(body, pieces));
    read?;
    Ok(match served {
        Ok(status) => answer(status, String::from("{}")),
        Err((status, error)) => answer(status, serde_json::json!({ "error": error }).to_string()),
    })
}

async fn present(store: &Arc<Store>, digest: Digest) -> bool {
    let store = Arc::clone(store);
    let present = tokio::task::spawn_blocking(move || {
        let is_there = store.blobs().get(&digest).is_ok();
        if is_there {
            store.blobs().touch(&digest);
        }
        is_there
    });
    present.await.unwrap_or(false)
}

/// Reads on when nobody takes the pieces any more.
async fn read(mut body: Incoming, pieces: mpsc::Sender<Bytes>) -> Result<(), hyper::Error> {
    while let Some(part) = body.frame().await {
        if let Ok(piece) = part?.into_data() {
            let _ = pieces.send(piece).await;
        }
    }
    Ok(())
}

async fn write(
    store: &Arc<Store>,
    digest: Digest,
    mut incoming: mpsc::Receiver<Bytes>,
) -> Result<StatusCode, (StatusCode, RpcError)> {
    let store = Arc::clone(store);
    let work = tokio::task::spawn_blocking(move || -> Result<Blob, StoreError> {
        let mut blob = NewBlob::create(&store)?;
        while let Some(piece) = incoming.blocking_recv() {
            blob.append(&piece)?;
        }
        blob.publish(Some(digest))
    });
    match work.await {
        Ok(Ok(_)) => Ok(StatusCode::CREATED),
        Ok(Err(error @ StoreError::WrongContent { .. })) => {
            let error = RpcError::new(ErrorKind::InvalidParams, error.to_string())
                .with_hint("nothing is kept of it; send the file again");
            Err((StatusCode::BAD_REQUEST, error))
        }
        Ok(Err(error)) => Err((StatusCode::INTERNAL_SERVER_ERROR, store_error(&error))),
        Err(error) => {
            let error = RpcError::new(ErrorKind::Internal, format!("a task ended badly: {error}"));
            Err((StatusCode::INTERNAL_SERVER_ERROR, error))
        }
    }
}
