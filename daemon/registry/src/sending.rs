//! A request with a body that takes a while: told as it goes, within the limit, and given up when it goes nowhere.

use crate::error::PullError;
use crate::http::Endpoint;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use reqwest::{RequestBuilder, Response};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::{mpsc, watch};

/// What is handed to the connection at once.
const PIECE_BYTES: usize = 128 << 10;

/// Sends a request with these bytes. `tell` gets how many of them are on their way.
pub(crate) async fn send(
    endpoint: &Endpoint,
    request: RequestBuilder,
    bytes: Bytes,
    tell: impl Fn(u64),
) -> Result<Response, PullError> {
    let (pieces, taken) = mpsc::channel(1);
    let body = Pieces { pieces: taken, n_left: bytes.len() as u64 };
    let (sent, mut moved) = watch::channel(());
    let feed = async move {
        for start in (0..bytes.len()).step_by(PIECE_BYTES) {
            let piece = bytes.slice(start..bytes.len().min(start + PIECE_BYTES));
            endpoint.net.limiter.take(piece.len()).await;
            let n_sent = (start + piece.len()) as u64;
            // Nobody takes it where the answer came early.
            if pieces.send(piece).await.is_err() {
                return;
            }
            tell(n_sent);
            sent.send_replace(());
        }
    };
    let answer = async {
        let mut response = std::pin::pin!(request.body(reqwest::Body::wrap(body)).send());
        loop {
            tokio::select! {
                response = &mut response => return response.map_err(|error| endpoint.broken(&error)),
                moved = endpoint.in_time(moved.changed()) => if moved?.is_err() { break },
            }
        }
        let response = endpoint.in_time(response).await?;
        response.map_err(|error| endpoint.broken(&error))
    };
    tokio::join!(feed, answer).1
}

struct Pieces {
    pieces: mpsc::Receiver<Bytes>,
    n_left: u64,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = std::task::ready!(self.pieces.poll_recv(context));
        self.n_left -= piece.as_ref().map_or(0, Bytes::len) as u64;
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.n_left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.n_left)
    }
}
