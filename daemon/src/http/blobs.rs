//! `/blobs/sha256:…` and `/api/blobs/sha256:…`: files that the daemon cannot open by their paths, sent to it.
//!
//! A body goes to disk as it comes, a few pieces of it in memory at a time, and has a name only if its hash is the one that
//! was announced.

use super::body::Named;
use super::routes::{BYTES, Routes, Says};
use super::{Core, download, refusal, status_of};
use crate::rpc::{apart, store_error};
use axum::body::{Body, Bytes};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use hearth_protocol::{ErrorKind, ModelCreate, RpcError};
use hearth_store::{Blob, Digest, NewBlob, Store, StoreError};
use http_body_util::BodyExt;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Pieces between the socket and the disk, of some kilobytes each.
const PIECES: usize = 16;

/// The same under either path; Ollama has no download.
pub(super) fn routes(path: &'static str) -> Routes {
    let sent = Says::new("Brings a file that is named by its digest.").takes_bytes();
    Routes::default()
        .post(path, upload, sent.ends(200).ends(201))
        .head(path, look, Says::new("Whether a file is there.").ends(200))
        .get(path, download::blob, Says::new("The bytes of a file.").sends(BYTES))
}

async fn look(core: Core, Named(digest): Named) -> Response {
    let found = async {
        core.permit::<ModelCreate>().await?;
        Ok(present(&core.daemon.store, parse(&digest)?).await)
    };
    match found.await {
        Ok(true) => StatusCode::OK.into_response(),
        Ok(false) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => status_of(&error).into_response(),
    }
}

/// Whatever the answer, the body is read to its end, or the client might not get to read it.
async fn upload(core: Core, Named(digest): Named, uri: Uri, body: Body) -> Response {
    let (pieces, incoming) = mpsc::channel(PIECES);
    let written = async {
        core.permit::<ModelCreate>().await?;
        let digest = parse(&digest)?;
        if present(&core.daemon.store, digest).await {
            return Ok(StatusCode::OK);
        }
        write(&core.daemon.store, digest, incoming).await
    };
    let (written, read) = tokio::join!(written, read(body, pieces));
    let written = read.and(written);
    written.map_or_else(
        |error| refusal(uri.path(), status_of(&error), &error),
        IntoResponse::into_response,
    )
}

fn parse(digest: &str) -> Result<Digest, RpcError> {
    digest.parse().map_err(|error| store_error(&error))
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
async fn read(mut body: Body, pieces: mpsc::Sender<Bytes>) -> Result<(), RpcError> {
    while let Some(part) = body.frame().await {
        let part = part.map_err(|_| {
            RpcError::new(ErrorKind::InvalidRequest, "the request ended before its body did")
        })?;
        if let Ok(piece) = part.into_data() {
            let _ = pieces.send(piece).await;
        }
    }
    Ok(())
}

async fn write(
    store: &Arc<Store>,
    digest: Digest,
    mut incoming: mpsc::Receiver<Bytes>,
) -> Result<StatusCode, RpcError> {
    let store = Arc::clone(store);
    let mut work = move || -> Result<Blob, StoreError> {
        let mut blob = NewBlob::create(&store)?;
        while let Some(piece) = incoming.blocking_recv() {
            blob.append(&piece)?;
        }
        blob.publish(Some(digest))
    };
    let wire_error = |error| match error {
        StoreError::WrongContent { .. } => {
            RpcError::new(ErrorKind::InvalidParams, error.to_string())
                .with_hint("nothing is kept of it; send the file again")
        }
        error => store_error(&error),
    };
    apart(move || work().map_err(wire_error)).await.map(|_| StatusCode::CREATED)
}
