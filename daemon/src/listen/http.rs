//! HTTP on the socket: `POST /rpc`, a WebSocket on `/rpc`, and `GET /blobs/DIGEST`.
//!
//! A POST holds one request and gets one reply; whatever mistake it makes, the error is the one that raw JSON-RPC gets.

use super::calls::Answerer;
use super::download::{self, BlobBody};
use super::framing::{Frame, Framer};
use super::users::Held;
use super::{Connection, websocket};
use crate::rpc::Daemon;
use hearth_protocol::{ErrorKind, RpcError};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue, UPGRADE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncReadExt, Chain, Join};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// The longest head of an HTTP request. A longer one ends the connection.
const MAX_HEAD: usize = 32 << 10;

type Answer = Response<Either<Full<Bytes>, BlobBody>>;
type Stream = Join<Chain<io::Cursor<Vec<u8>>, OwnedReadHalf>, OwnedWriteHalf>;

pub(super) async fn serve(
    connection: Connection,
    first: Vec<u8>,
    stream: UnixStream,
) -> io::Result<()> {
    let (reader, writer) = stream.into_split();
    let stream: Stream = tokio::io::join(io::Cursor::new(first).chain(reader), writer);
    let answerer = Arc::new(Answerer::new(&connection));
    let upgraded = Arc::new(Mutex::new(None));
    let service = service_fn(|request| {
        let (answerer, upgraded) = (Arc::clone(&answerer), Arc::clone(&upgraded));
        let daemon = &connection.daemon;
        async move { route(request, daemon, &answerer, &upgraded).await }
    });
    let http = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut http = pin!(http);
    tokio::select! {
        ended = http.as_mut() => ended.map_err(io::Error::other)?,
        () = connection.stop.stopped() => {
            http.as_mut().graceful_shutdown();
            http.await.map_err(io::Error::other)?;
        }
    }
    let upgraded = upgraded.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(upgraded) = upgraded {
        let upgraded = upgraded.await.map_err(io::Error::other)?;
        // It is what it was made from, a few lines above.
        if let Ok(parts) = upgraded.downcast::<TokioIo<Stream>>() {
            let (reader, writer) = parts.io.into_inner().into_inner();
            let reader = io::Cursor::new(parts.read_buf).chain(reader);
            websocket::serve(&connection, reader, writer).await;
        }
    }
    Ok(())
}

async fn route(
    mut request: Request<Incoming>,
    daemon: &Daemon,
    answerer: &Answerer,
    upgraded: &Mutex<Option<OnUpgrade>>,
) -> Result<Answer, hyper::Error> {
    if request.method() == Method::GET
        && let Some(digest) = request.uri().path().strip_prefix("/blobs/")
    {
        return Ok(match download::open(daemon, digest).await {
            Ok(body) => Response::new(Either::Right(body)),
            Err(error) => refusal(StatusCode::NOT_FOUND, &error),
        });
    }
    let wants_upgrade = request.headers().contains_key(UPGRADE);
    let is_json = request
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let (status, why) = match (request.uri().path(), request.method()) {
        ("/rpc", &Method::POST) if is_json => return post(answerer, request.into_body()).await,
        ("/rpc", &Method::POST) => {
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, "a POST needs `Content-Type: application/json`")
        }
        ("/rpc", &Method::GET) if wants_upgrade => {
            match soketto::handshake::http::Server::new().receive_request(&request) {
                Ok(response) => {
                    let on_upgrade = hyper::upgrade::on(&mut request);
                    *upgraded.lock().unwrap_or_else(PoisonError::into_inner) = Some(on_upgrade);
                    return Ok(response.map(|()| Either::Left(Full::default())));
                }
                Err(_) => {
                    (StatusCode::BAD_REQUEST, "this is no request for a WebSocket of version 13")
                }
            }
        }
        ("/rpc", _) => {
            (StatusCode::METHOD_NOT_ALLOWED, "`/rpc` takes POST, or GET for a WebSocket")
        }
        _ => (StatusCode::NOT_FOUND, "there are only `/rpc` and `/blobs/DIGEST` here"),
    };
    Ok(refusal(status, &RpcError::new(ErrorKind::InvalidRequest, why)))
}

async fn post(answerer: &Answerer, body: Incoming) -> Result<Answer, hyper::Error> {
    let frame = read(answerer.max_request_bytes, answerer.account.hold(), body).await?;
    let status = match frame {
        Frame::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
        Frame::Crowded => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    };
    Ok(match answerer.answer(frame, None).await {
        Some(reply) => answer(status, String::from(Box::<str>::from(reply))),
        // A notification.
        None => {
            let mut nothing = Response::new(Either::Left(Full::default()));
            *nothing.status_mut() = StatusCode::NO_CONTENT;
            nothing
        }
    })
}

/// The one request of a body, or what is wrong with it. A body is read to its end in any case, or the client might not get
/// to read the answer.
async fn read(limit: usize, mut held: Held, mut body: Incoming) -> Result<Frame, hyper::Error> {
    let mut framer = Framer::new(limit);
    let mut found = None;
    let mut wrong = (body.size_hint().lower() > limit as u64).then_some(Frame::TooLong);
    while let Some(part) = body.frame().await {
        let Ok(bytes) = part?.into_data() else { continue };
        if wrong.is_some() {
            continue;
        }
        framer.push(&bytes);
        while let Some(frame) = framer.next() {
            if found.replace(frame).is_some() {
                wrong = Some(Frame::Second);
            }
        }
        if !held.set(framer.held()) {
            wrong = Some(Frame::Crowded);
        }
        if wrong.is_some() {
            framer = Framer::new(limit);
        }
    }
    Ok(wrong.or_else(|| framer.end()).or(found).unwrap_or(Frame::Cut))
}

fn refusal(status: StatusCode, error: &RpcError) -> Answer {
    answer(status, serde_json::json!({ "error": error }).to_string())
}

fn answer(status: StatusCode, body: String) -> Answer {
    let mut response = Response::new(Either::Left(Full::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
