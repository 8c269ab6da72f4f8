//! HTTP on the socket: `POST /rpc` and a WebSocket on `/rpc`, both served by jsonrpsee from the same method table.

use super::raw::{invalid_request, stream_in_batch, too_large};
use super::{Caller, Connection};
use crate::rpc::{method_not_found, object};
use hearth_protocol::{ErrorKind, RpcError};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::{Method, Request, Response, StatusCode, header};
use jsonrpsee::core::middleware::{
    Batch, BatchEntry, Notification, RpcServiceBuilder, RpcServiceT,
};
use jsonrpsee::core::server::{BatchResponseBuilder, MethodCallback, MethodResponse};
use jsonrpsee::server::{HttpBody, Methods, Server, ServerConfig, serve_with_graceful_shutdown};
use jsonrpsee::types::ErrorCode;
use jsonrpsee::types::error::OVERSIZED_REQUEST_CODE;
use serde_json::Value;
use std::convert::Infallible;
use std::io;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tower::Service;

pub(super) async fn serve(
    connection: Connection,
    caller: Caller,
    first: Vec<u8>,
    stream: UnixStream,
) -> io::Result<()> {
    let limit = u32::try_from(connection.daemon.config.max_request_bytes).unwrap_or(u32::MAX);
    let config = ServerConfig::builder()
        .max_request_body_size(limit)
        .max_response_body_size(u32::MAX)
        .max_connections(u32::MAX >> 8)
        .set_message_buffer_capacity(16)
        .build();
    let known = connection.methods.clone();
    let rpc = Server::builder()
        .set_config(config)
        .set_rpc_middleware(
            RpcServiceBuilder::new()
                .layer_fn(move |inner| OurErrors { inner, known: known.clone() }),
        )
        .to_service_builder()
        .connection_id(connection.id)
        .build(connection.methods, connection.stop.clone());
    let routes = tower::service_fn(move |mut request: Request<Incoming>| {
        let mut rpc = rpc.clone();
        request.extensions_mut().insert(caller);
        if request.method() == Method::POST {
            request.extensions_mut().insert(Post);
        }
        async move {
            Ok::<_, Infallible>(match refusal(&request) {
                Some(response) => response,
                None => match rpc.call(request).await {
                    Ok(response) => with_kind(response, limit).await,
                    Err(error) => answer(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        ErrorKind::Internal,
                        &error.to_string(),
                    ),
                },
            })
        }
    });
    let (reader, writer) = stream.into_split();
    let stream = tokio::io::join(io::Cursor::new(first).chain(reader), writer);
    serve_with_graceful_shutdown(stream, routes, connection.stop.shutdown())
        .await
        .map_err(io::Error::other)
}

/// What is answered to a request for anything but the RPC endpoint.
fn refusal(request: &Request<Incoming>) -> Option<Response<HttpBody>> {
    let upgrade = request.headers().contains_key(header::UPGRADE);
    let (status, message) = match (request.uri().path(), request.method()) {
        ("/rpc", &Method::POST) => return None,
        ("/rpc", &Method::GET) if upgrade => return None,
        ("/rpc", _) => {
            (StatusCode::METHOD_NOT_ALLOWED, "`/rpc` takes POST, or GET for a WebSocket")
        }
        _ => (StatusCode::NOT_FOUND, "there is only `/rpc` here"),
    };
    Some(answer(status, ErrorKind::InvalidRequest, message))
}

fn answer(status: StatusCode, kind: ErrorKind, message: &str) -> Response<HttpBody> {
    let body = serde_json::json!({ "error": RpcError::new(kind, message) }).to_string();
    let mut response = Response::new(HttpBody::from(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// Longer than every error that jsonrpsee makes by itself.
const SHORT: u64 = 512;

/// What jsonrpsee cannot read it refuses by itself, with an error that has no kind.
async fn with_kind(response: Response<HttpBody>, limit: u32) -> Response<HttpBody> {
    if response.body().size_hint().exact().is_none_or(|len| len > SHORT) {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let bytes = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            let (status, kind) = (StatusCode::INTERNAL_SERVER_ERROR, ErrorKind::Internal);
            return answer(status, kind, &error.to_string());
        }
    };
    let ours = serde_json::from_slice::<Value>(&bytes).ok().and_then(|mut reply| {
        let error = reply.get_mut("error").filter(|error| error["data"]["kind"].is_null())?;
        let code = i32::try_from(error["code"].as_i64()?).ok()?;
        *error = serde_json::to_value(own_error(code, limit)?).ok()?;
        Some(reply.to_string())
    });
    match ours {
        Some(ours) => {
            head.headers.remove(header::CONTENT_LENGTH);
            Response::from_parts(head, HttpBody::from(ours))
        }
        None => Response::from_parts(head, HttpBody::from(bytes.to_vec())),
    }
}

fn own_error(code: i32, limit: u32) -> Option<RpcError> {
    if code == OVERSIZED_REQUEST_CODE {
        return Some(too_large(limit as usize));
    }
    match ErrorCode::from(code) {
        ErrorCode::ParseError => {
            Some(RpcError::new(ErrorKind::ParseError, "the request cannot be read as JSON-RPC 2.0"))
        }
        ErrorCode::InvalidRequest => Some(invalid_request("it is incomplete or of wrong types")),
        _ => None,
    }
}

/// Marks requests that came by POST, which cannot be sent events.
#[derive(Clone, Copy)]
struct Post;

/// Gives unknown methods, batches and misplaced streams the same errors here as on the raw protocol.
#[derive(Clone)]
struct OurErrors<S> {
    inner: S,
    known: Methods,
}

impl<S> RpcServiceT for OurErrors<S>
where
    S: RpcServiceT<MethodResponse = MethodResponse> + Send + Sync + Clone + 'static,
{
    type MethodResponse = MethodResponse;
    type NotificationResponse = S::NotificationResponse;
    type BatchResponse = MethodResponse;

    fn call<'a>(
        &self,
        request: jsonrpsee::types::Request<'a>,
    ) -> impl Future<Output = MethodResponse> + Send + 'a {
        let refusal = match self.known.method(&request.method) {
            None => Some(method_not_found(&request.method)),
            Some(MethodCallback::Subscription(_)) if request.extensions.get::<Post>().is_some() => {
                Some(
                    RpcError::new(ErrorKind::InvalidRequest, "a POST cannot be answered by a stream")
                        .with_hint("call the method without `.stream`, or subscribe over a WebSocket or the raw protocol"),
                )
            }
            Some(_) => None,
        };
        let inner = self.inner.clone();
        async move {
            match refusal {
                Some(error) => MethodResponse::error(request.id, object(error)),
                None => inner.call(request).await,
            }
        }
    }

    fn batch<'a>(&self, batch: Batch<'a>) -> impl Future<Output = MethodResponse> + Send + 'a {
        let this = self.clone();
        async move {
            let mut answers = BatchResponseBuilder::new_with_limit(usize::MAX);
            for entry in batch {
                let answer = match entry {
                    Ok(BatchEntry::Call(request)) => match this.known.method(&request.method) {
                        Some(MethodCallback::Subscription(_)) => {
                            MethodResponse::error(request.id, object(stream_in_batch()))
                        }
                        _ => this.call(request).await,
                    },
                    Ok(BatchEntry::Notification(notification)) => {
                        this.notification(notification).await;
                        continue;
                    }
                    Err(error) => {
                        let (_, id) = error.into_parts();
                        let error = invalid_request("it is incomplete or of wrong types");
                        MethodResponse::error(id, object(error))
                    }
                };
                let _ = answers.append(answer);
            }
            MethodResponse::from_batch(answers.finish())
        }
    }

    fn notification<'a>(
        &self,
        notification: Notification<'a>,
    ) -> impl Future<Output = Self::NotificationResponse> + Send + 'a {
        self.inner.notification(notification)
    }
}
