//! HTTP: `POST /rpc`, a WebSocket on `/rpc`, and everything else as `crate::http` has it.
//!
//! A POST to `/rpc` holds one request and gets one reply; whatever mistake it makes, the error is the one that raw JSON-RPC
//! gets.

use super::calls::Answerer;
use super::framing::{Frame, Framer};
use super::guard::Refused;
use super::raw::Writer;
use super::users::Held;
use super::{Caller, Connection, Way, websocket};
use crate::http::{Core, drain, refusal};
use axum::body::Body;
use hearth_protocol::{ErrorKind, RpcError};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_REQUEST_HEADERS, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, UPGRADE, VARY,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncRead, AsyncReadExt, Join};
use tower_service::Service;

/// The longest head of an HTTP request. A longer one ends the connection.
const MAX_HEAD: usize = 32 << 10;

type Answer = Response<Body>;

/// What a connection goes on as, after its last request, and for whom.
type Upgraded = Mutex<Option<(OnUpgrade, Caller)>>;

pub(super) async fn serve<R, W>(connection: Connection, reader: R, writer: W) -> io::Result<()>
where
    R: AsyncRead + Unpin + Send + 'static,
    W: Writer,
{
    let connection = Arc::new(connection);
    let upgraded = Arc::new(Upgraded::default());
    let has_asked = AtomicBool::new(false);
    let service = service_fn(|request| {
        has_asked.store(true, Ordering::Relaxed);
        let (connection, upgraded) = (Arc::clone(&connection), Arc::clone(&upgraded));
        async move { let_in(request, &connection, &upgraded).await }
    });
    let http = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(tokio::io::join(reader, writer)), service)
        .with_upgrades();
    let mut http = pin!(http);
    let to_stop = connection.server.stop.stopped_for(|| has_asked.load(Ordering::Relaxed));
    tokio::select! {
        ended = http.as_mut() => ended.map_err(io::Error::other)?,
        () = connection.overdue() => {
            return Err(io::Error::other("another machine sent no request that is let in"));
        }
        () = to_stop => {
            http.as_mut().graceful_shutdown();
            http.await.map_err(io::Error::other)?;
        }
    }
    let upgraded = upgraded.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some((upgraded, caller)) = upgraded {
        let upgraded = upgraded.await.map_err(io::Error::other)?;
        // It is what it was made from, a few lines above.
        if let Ok(parts) = upgraded.downcast::<TokioIo<Join<R, W>>>() {
            let (reader, writer) = parts.io.into_inner().into_inner();
            let reader = io::Cursor::new(parts.read_buf).chain(reader);
            websocket::serve(&connection, caller, reader, writer).await;
        }
    }
    Ok(())
}

/// Looks at who asks from where, and tells a browser whose pages may read the answer.
async fn let_in(
    request: Request<Incoming>,
    connection: &Connection,
    upgraded: &Upgraded,
) -> Result<Answer, hyper::Error> {
    let guard = connection.server.daemon.settings.guard();
    match connection.way {
        Way::Unix => return route(request, connection.caller, connection, upgraded).await,
        Way::Tcp => {}
        Way::NotSecret => {
            let error = RpcError::new(ErrorKind::InvalidRequest, "this port is for HTTPS");
            let error = error.with_hint("ask for `https://` instead of `http://`");
            return Ok(refuse(request, (StatusCode::BAD_REQUEST, error)).await);
        }
    }
    let origin = match guard.origin(request.headers()) {
        Ok(origin) => origin,
        Err(refused) => return Ok(refuse(request, refused).await),
    };
    let mut answer = if origin.is_some() && request.method() == Method::OPTIONS {
        // Without a key, which browsers do not send with it.
        options(&request)
    } else {
        let admitted = guard.admit(request.headers(), request.uri(), connection.owner);
        let admitted = admitted.and_then(|caller| {
            let introduced = connection.introduce(caller);
            introduced.map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, error))?;
            Ok(caller)
        });
        match admitted {
            Ok(caller) => route(request, caller, connection, upgraded).await?,
            Err(refused) => refuse(request, refused).await,
        }
    };
    if let Some(origin) = origin {
        answer.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        answer.headers_mut().append(VARY, HeaderValue::from_static("Origin"));
    }
    Ok(answer)
}

async fn refuse(request: Request<Incoming>, (status, error): Refused) -> Answer {
    let path = request.uri().path().to_owned();
    drain(request.into_body()).await;
    refusal(&path, status, &error)
}

/// What may be asked here, which is what a browser asks before a page's request.
fn options(request: &Request<Incoming>) -> Answer {
    let mut answer = Answer::default();
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let headers = answer.headers_mut();
    let methods = HeaderValue::from_static("GET, HEAD, POST, DELETE, OPTIONS");
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
    if let Some(wanted) = request.headers().get(ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    answer
}

async fn route(
    mut request: Request<Incoming>,
    caller: Caller,
    connection: &Connection,
    upgraded: &Upgraded,
) -> Result<Answer, hyper::Error> {
    if request.method() == Method::OPTIONS {
        let answer = options(&request);
        drain(request.into_body()).await;
        return Ok(answer);
    }
    if request.headers().get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        let error = RpcError::new(ErrorKind::InvalidRequest, "compressed bodies are not read here");
        let error = error.with_hint("send it without `Content-Encoding`");
        return Ok(refuse(request, (StatusCode::UNSUPPORTED_MEDIA_TYPE, error)).await);
    }
    if request.uri().path() != "/rpc" {
        let core = Core::new(&connection.server.daemon, connection.account(), caller);
        request.extensions_mut().insert(core);
        let answer: Result<Answer, Infallible> =
            connection.server.dialects.clone().call(request).await;
        return answer.map_err(|never| match never {});
    }
    let wants_upgrade = request.headers().contains_key(UPGRADE);
    let is_json = request
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let (status, why) = match *request.method() {
        Method::POST if is_json => {
            return post(&Answerer::new(connection, caller), request.into_body()).await;
        }
        Method::POST => {
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, "a POST needs `Content-Type: application/json`")
        }
        Method::GET if wants_upgrade => {
            match soketto::handshake::http::Server::new().receive_request(&request) {
                Ok(response) => {
                    let on_upgrade = hyper::upgrade::on(&mut request);
                    *upgraded.lock().unwrap_or_else(PoisonError::into_inner) =
                        Some((on_upgrade, caller));
                    return Ok(response.map(|()| Body::empty()));
                }
                Err(_) => {
                    (StatusCode::BAD_REQUEST, "this is no request for a WebSocket of version 13")
                }
            }
        }
        _ => (StatusCode::METHOD_NOT_ALLOWED, "`/rpc` takes POST, or GET for a WebSocket"),
    };
    Ok(refuse(request, (status, RpcError::new(ErrorKind::InvalidRequest, why))).await)
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
            let mut nothing = Answer::default();
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

fn answer(status: StatusCode, body: String) -> Answer {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
