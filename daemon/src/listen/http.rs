//! HTTP on the socket: `POST /rpc` and a WebSocket on `/rpc`, both served by jsonrpsee from the same method table.

use super::{Caller, Connection};
use crate::rpc::{method_not_found, object};
use hearth_protocol::{ErrorKind, RpcError};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode, header};
use jsonrpsee::core::middleware::{Batch, Notification, RpcServiceBuilder, RpcServiceT};
use jsonrpsee::core::server::MethodResponse;
use jsonrpsee::server::{HttpBody, Methods, Server, ServerConfig, serve_with_graceful_shutdown};
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
                .layer_fn(move |inner| NamedMethods { inner, known: known.clone() }),
        )
        .to_service_builder()
        .connection_id(connection.id)
        .build(connection.methods, connection.stop.clone());
    let routes = tower::service_fn(move |mut request: Request<Incoming>| {
        let mut rpc = rpc.clone();
        request.extensions_mut().insert(caller);
        async move {
            Ok::<_, Infallible>(match refusal(&request) {
                Some(response) => response,
                None => match rpc.call(request).await {
                    Ok(response) => response,
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

/// Gives an unknown method the same error here as on the raw protocol.
#[derive(Clone)]
struct NamedMethods<S> {
    inner: S,
    known: Methods,
}

impl<S> RpcServiceT for NamedMethods<S>
where
    S: RpcServiceT<MethodResponse = MethodResponse> + Send + Sync + Clone + 'static,
{
    type MethodResponse = MethodResponse;
    type NotificationResponse = S::NotificationResponse;
    type BatchResponse = S::BatchResponse;

    fn call<'a>(
        &self,
        request: jsonrpsee::types::Request<'a>,
    ) -> impl Future<Output = MethodResponse> + Send + 'a {
        let known = self.known.method(&request.method).is_some();
        let inner = self.inner.clone();
        async move {
            if known {
                return inner.call(request).await;
            }
            MethodResponse::error(request.id, object(method_not_found(&request.method)))
        }
    }

    fn batch<'a>(&self, batch: Batch<'a>) -> impl Future<Output = Self::BatchResponse> + Send + 'a {
        self.inner.batch(batch)
    }

    fn notification<'a>(
        &self,
        notification: Notification<'a>,
    ) -> impl Future<Output = Self::NotificationResponse> + Send + 'a {
        self.inner.notification(notification)
    }
}
