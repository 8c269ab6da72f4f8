//! One request, with everything that keeps a stranger in bounds: redirects, secrets, time and size.
//!
//! **Invariant.** A secret goes to the host that it is configured for, and a token to the registry that it was made for;
//! neither follows a redirect to elsewhere. What is asked for over TLS never comes without.

use crate::Settings;
use crate::error::PullError;
use crate::key::Key;
use crate::limiter::Limiter;
use bytes::Bytes;
use hearth_store::{DEFAULT_HOST, quote};
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION, RANGE, RETRY_AFTER,
};
use reqwest::{Client, Method, Response, StatusCode, Url, redirect};
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::timeout;

const MAX_REDIRECTS: usize = 10;
const CONNECT: Duration = Duration::from_secs(15);
/// Of what a registry says when it refuses.
const MAX_REASON_BYTES: usize = 4 << 10;
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// What opens a door at one host.
#[derive(Clone)]
pub enum Secret {
    Password {
        user: String,
        password: String,
    },
    /// Sent as it is, such as a token of Hugging Face's.
    Token(String),
    /// Signs for tokens, at a registry that is one of Ollama's kind.
    Key(Arc<Key>),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// `user:password`, an ed25519 key in OpenSSH's format, or a token alone. The error is a reason.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with("-----BEGIN") {
            return Key::parse(text).map(|key| Self::Key(Arc::new(key)));
        }
        Ok(match text.trim().split_once(':') {
            Some((user, password)) => {
                Self::Password { user: user.into(), password: password.into() }
            }
            None => Self::Token(text.trim().into()),
        })
    }
}

/// What all pulls share.
#[derive(Debug)]
pub(crate) struct Net {
    /// Made when it is needed first: it reads the system's certificates, which takes milliseconds and megabytes.
    client: OnceLock<Client>,
    /// Of the user, for Ollama's own registry.
    key: OnceLock<Key>,
    pub(crate) settings: Settings,
    pub(crate) streams: Semaphore,
    pub(crate) limiter: Limiter,
}

impl Net {
    pub(crate) fn new(settings: Settings) -> Self {
        let streams = Semaphore::new(settings.n_streams);
        let limiter = Limiter::new(settings.bytes_per_second);
        Self { client: OnceLock::new(), key: OnceLock::new(), settings, streams, limiter }
    }

    pub(crate) fn client(&self) -> Result<&Client, PullError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        // Only the first call has an effect, and all mean the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .user_agent(concat!("hearth/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT)
            .referer(false)
            .build()
            .map_err(|error| PullError::Task { reason: describe(&error) })?;
        Ok(self.client.get_or_init(|| client))
    }

    fn key(&self, host: &str) -> Result<Option<&Key>, PullError> {
        match (self.settings.secrets.get(host), &self.settings.key) {
            (Some(Secret::Key(key)), _) => Ok(Some(key)),
            (None, Some(path)) if host == DEFAULT_HOST => {
                if self.key.get().is_none() {
                    let _ = self.key.set(Key::at(path)?);
                }
                Ok(self.key.get())
            }
            _ => Ok(None),
        }
    }
}

/// One server, and what it has been told about who asks.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) net: Arc<Net>,
    pub(crate) base: Url,
    /// Such as `host:5000`.
    pub(crate) host: String,
    authorization: Mutex<Option<HeaderValue>>,
}

#[derive(Debug, Default)]
pub(crate) struct Ask {
    /// GET if nothing is said.
    pub(crate) method: Method,
    pub(crate) accept: Option<&'static str>,
    pub(crate) range: Option<Range<u64>>,
    /// Its media type, and itself.
    pub(crate) body: Option<(String, Bytes)>,
    /// How long the answer may take; as long as a stall if nothing is said.
    pub(crate) patience: Option<Duration>,
}

impl Endpoint {
    pub(crate) fn new(net: Arc<Net>, base: Url) -> Self {
        let host = authority(&base);
        let authorization = match net.settings.secrets.get(&host) {
            Some(Secret::Token(token)) => secret_value(&format!("Bearer {token}")),
            _ => None,
        };
        Self { net, base, host, authorization: Mutex::new(authorization) }
    }

    /// A URL on this server. The path's parts are names that were checked.
    pub(crate) fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}{path}"));
        url
    }

    /// The answer, if it is one that is good for something.
    pub(crate) async fn ask(&self, url: &Url, ask: &Ask) -> Result<Response, PullError> {
        let shown = self.shown().await;
        let response = self.follow(url, ask, shown.as_ref()).await?;
        if !self.is_refusal(&response) || !self.renew(shown, &response).await? {
            return self.accept(url, response).await;
        }
        let shown = self.shown().await;
        let response = self.follow(url, ask, shown.as_ref()).await?;
        self.accept(url, response).await
    }

    /// What this server is shown of who asks.
    pub(crate) async fn shown(&self) -> Option<HeaderValue> {
        self.authorization.lock().await.clone()
    }

    /// Whether it is this server that wants to know who asks, and not one that a redirect led to.
    pub(crate) fn is_refusal(&self, response: &Response) -> bool {
        response.status() == StatusCode::UNAUTHORIZED && same_origin(response.url(), &self.base)
    }

    /// Answers a refusal of what was shown. Says whether there is something else to show now.
    pub(crate) async fn renew(
        &self,
        shown: Option<HeaderValue>,
        refusal: &Response,
    ) -> Result<bool, PullError> {
        let mut authorization = self.authorization.lock().await;
        // Unless another request has brought a new one meanwhile.
        if *authorization == shown {
            match self.answer(refusal.headers()).await? {
                Some(value) => *authorization = Some(value),
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    pub(crate) fn key(&self) -> Result<Option<&Key>, PullError> {
        self.net.key(&self.host)
    }

    /// The whole of a small answer.
    pub(crate) async fn read(&self, response: Response, max: usize) -> Result<Vec<u8>, PullError> {
        let (bytes, is_whole) = self.read_some(response, max).await?;
        if is_whole {
            return Ok(bytes);
        }
        Err(self.bad_answer(format!("more than the {max} bytes that are read of such an answer")))
    }

    /// The next bytes of a body, or none at its end.
    pub(crate) async fn chunk(
        &self,
        response: &mut Response,
    ) -> Result<Option<impl Deref<Target = [u8]> + use<>>, PullError> {
        let chunk = self.in_time(response.chunk()).await?;
        let chunk = chunk.map_err(|error| self.broken(&error))?;
        if let Some(chunk) = &chunk {
            self.net.limiter.take(chunk.len()).await;
        }
        Ok(chunk)
    }

    pub(crate) fn bad_answer(&self, reason: String) -> PullError {
        PullError::BadAnswer { host: self.host.clone(), reason }
    }

    async fn read_some(
        &self,
        mut response: Response,
        max: usize,
    ) -> Result<(Vec<u8>, bool), PullError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk(&mut response).await? {
            let room = max - bytes.len();
            bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if chunk.len() > room {
                return Ok((bytes, false));
            }
        }
        Ok((bytes, true))
    }

    async fn follow(
        &self,
        url: &Url,
        ask: &Ask,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, PullError> {
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.net.client()?.request(ask.method.clone(), url.clone());
            if let Some(accept) = ask.accept {
                request = request.header(ACCEPT, accept);
            }
            if let Some(range) = &ask.range {
                request = request.header(RANGE, format!("bytes={}-{}", range.start, range.end - 1));
            }
            if let Some((media_type, body)) = &ask.body {
                request = request.header(CONTENT_TYPE, media_type).body(body.clone());
            }
            if let Some(value) = authorization.filter(|_| same_origin(&url, &self.base)) {
                request = request.header(AUTHORIZATION, value);
            }
            let limit = ask.patience.unwrap_or(self.net.settings.stall);
            let response = self.within(limit, request.send()).await?;
            let response = response.map_err(|error| self.unreachable(&error))?;
            if !response.status().is_redirection()
                || !matches!(ask.method, Method::GET | Method::HEAD)
            {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION).and_then(|to| to.to_str().ok());
            let Some(next) = location.and_then(|to| url.join(to).ok()) else {
                return Err(self.bad_answer("a redirect to nowhere".into()));
            };
            if !may_follow(&url, &next) {
                return Err(self.bad_answer(format!(
                    "a redirect from `{}` to the scheme `{}`",
                    url.scheme(),
                    next.scheme()
                )));
            }
            url = next;
        }
        Err(self.bad_answer(format!("more than {MAX_REDIRECTS} redirects")))
    }

    pub(crate) async fn accept(
        &self,
        url: &Url,
        response: Response,
    ) -> Result<Response, PullError> {
        match response.status() {
            status if status.is_success() => Ok(response),
            status => self.accept_nothing(url, status, response).await,
        }
    }

    pub(crate) async fn accept_nothing<T>(
        &self,
        url: &Url,
        status: StatusCode,
        response: Response,
    ) -> Result<T, PullError> {
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .map(|seconds| Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
        // What another host says, to which a redirect has led, is nobody's business here.
        let reason = if same_origin(response.url(), &self.base) {
            self.reason(response).await
        } else {
            status.canonical_reason().unwrap_or_default().to_owned()
        };
        let host = self.host.clone();
        let what = url.path().trim_start_matches('/').to_owned();
        Err(match status {
            StatusCode::NOT_FOUND | StatusCode::GONE => PullError::NotFound { host, what },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let key = self.key().ok().flatten().map(|key| key.public().to_owned());
                PullError::Denied { host, what, reason, key }
            }
            status => PullError::Status { host, status: status.as_u16(), reason, retry_after },
        })
    }

    async fn reason(&self, response: Response) -> String {
        let status = response.status().canonical_reason().unwrap_or_default().to_owned();
        let Ok((body, _)) = self.read_some(response, MAX_REASON_BYTES).await else { return status };
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let said = json["errors"][0]["message"].as_str().or(json["error"].as_str());
        let text = said.map_or_else(|| String::from_utf8_lossy(&body).into_owned(), str::to_owned);
        let text = quote(text.trim());
        if text.is_empty() { status } else { text }
    }

    pub(crate) async fn in_time<T>(&self, work: impl Future<Output = T>) -> Result<T, PullError> {
        self.within(self.net.settings.stall, work).await
    }

    async fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = T>,
    ) -> Result<T, PullError> {
        let seconds = limit.as_secs();
        let late = |_| PullError::Stalled { host: self.host.clone(), seconds };
        timeout(limit, work).await.map_err(late)
    }

    pub(crate) fn unreachable(&self, error: &reqwest::Error) -> PullError {
        PullError::Unreachable { host: self.host.clone(), reason: describe(error) }
    }

    pub(crate) fn broken(&self, error: &reqwest::Error) -> PullError {
        PullError::Broken { host: self.host.clone(), reason: describe(error) }
    }
}

/// The innermost cause: those around it only say that a request failed. The URL, which may hold a signature, is left out.
pub(crate) fn describe(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    quote(&cause.to_string())
}

pub(crate) fn may_follow(from: &Url, to: &Url) -> bool {
    match to.scheme() {
        "https" => true,
        "http" => from.scheme() == "http",
        _ => false,
    }
}

pub(crate) fn same_origin(a: &Url, b: &Url) -> bool {
    a.origin() == b.origin()
}

/// The host as people write it, with the port where it is not the scheme's own.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

pub(crate) fn secret_value(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_never_left() {
        let url = |text| Url::parse(text).unwrap();
        for (from, to, may) in [
            ("https://a", "https://b", true),
            ("http://a", "https://b", true),
            ("http://a", "http://b", true),
            ("https://a", "http://a", false),
            ("http://a", "file:///etc/passwd", false),
            ("http://a", "ftp://a", false),
        ] {
            assert_eq!(may_follow(&url(from), &url(to)), may, "{from} {to}");
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Secret::parse("me:pass").unwrap()), "Secret");
        assert!(matches!(Secret::parse(" hf_x\n"), Ok(Secret::Token(token)) if token == "hf_x"));
        assert!(Secret::parse("-----BEGIN OPENSSH PRIVATE KEY-----\n").is_err());
    }
}
