//! `GET /blobs/DIGEST`: the bytes of a blob, which go to the client as fast as it takes them.
//!
//! So whoever exports a model writes the files themselves, and needs no access to the store's folders.

use super::body::Named;
use super::routes::BYTES;
use super::{Core, refusal};
use crate::rpc::{Daemon, blocking};
use axum::body::Body;
use axum::http::{StatusCode, Uri, header::CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use hearth_protocol::{ErrorKind, RpcError};
use hearth_store::Digest;
use hyper::body::{Bytes, Frame, SizeHint};
use std::fs::File;
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc::{Receiver, channel};

/// What is held of a blob for a client that does not read: two of these.
const CHUNK_BYTES: usize = 256 << 10;

struct BlobBody {
    chunks: Receiver<io::Result<Vec<u8>>>,
    n_left: u64,
}

/// Whoever may read the store's list may read what is in it.
pub(super) async fn blob(core: Core, Named(digest): Named, uri: Uri) -> Response {
    match open(&core.daemon, &digest).await {
        Ok(body) => ([(CONTENT_TYPE, BYTES)], Body::new(body)).into_response(),
        Err(error) => refusal(uri.path(), StatusCode::NOT_FOUND, &error),
    }
}

async fn open(daemon: &Daemon, digest: &str) -> Result<BlobBody, RpcError> {
    let digest: Digest = digest
        .parse()
        .map_err(|error| RpcError::new(ErrorKind::InvalidParams, format!("{error}")))?;
    let stores = Arc::clone(&daemon.stores);
    let file = blocking(move || stores.open_blob(&digest)).await?;
    let size = file.metadata().map_err(|error| {
        RpcError::new(ErrorKind::Io, format!("cannot read blob `{digest}`: {error}"))
    })?;
    let (sender, chunks) = channel(1);
    tokio::spawn(async move {
        let mut file = file;
        // No thread waits for the client.
        while let Ok(place) = sender.reserve().await {
            let (back, read) = match tokio::task::spawn_blocking(|| read(file)).await {
                Ok((_, Ok(chunk))) if chunk.is_empty() => return,
                Ok(read) => read,
                Err(_) => return,
            };
            file = back;
            let failed = read.is_err();
            place.send(read);
            if failed {
                return;
            }
        }
    });
    Ok(BlobBody { chunks, n_left: size.len() })
}

fn read(mut file: File) -> (File, io::Result<Vec<u8>>) {
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    let result = file.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut chunk);
    (file, result.map(|_| chunk))
}

impl hyper::body::Body for BlobBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let chunk = ready!(self.chunks.poll_recv(context));
        Poll::Ready(chunk.map(|chunk| {
            let chunk = chunk?;
            self.n_left = self.n_left.saturating_sub(chunk.len() as u64);
            Ok(Frame::data(chunk.into()))
        }))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.n_left)
    }
}
