//! One request, with everything that keeps a stranger in bounds: redirects, secrets, time and size.
//!
//! **Invariant.** A secret goes to the host that it is configured for, and a token to the registry that it was made for;
//! neither follows a redirect to elsewhere. What is asked for over TLS never comes without.

use crate::Settings;
use crate::auth::{self, Challenge};
use crate::error::PullError;
use crate::limiter::Limiter;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use hearth_store::quote;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RANGE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use reqwest::{Client, Response, StatusCode, Url, redirect};
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::timeout;

const MAX_REDIRECTS: usize = 10;
const CONNECT: Duration = Duration::from_secs(15);
const MAX_TOKEN_BYTES: usize = 64 << 10;
/// Of what a registry says when it refuses.
const MAX_REASON_BYTES: usize = 4 << 10;
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// What opens a door at one host.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    Password {
        user: String,
        password: String,
    },
    /// Sent as it is, such as a token of Hugging Face's.
    Token(String),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// `user:password`, or a token alone.
    pub fn parse(text: &str) -> Self {
        match text.trim().split_once(':') {
            Some((user, password)) => {
                Self::Password { user: user.into(), password: password.into() }
            }
            None => Self::Token(text.trim().into()),
        }
    }
}

/// What all pulls share.
#[derive(Debug)]
pub(crate) struct Net {
    /// Made when it is needed first: it reads the system's certificates, which takes milliseconds and megabytes.
    client: OnceLock<Client>,
    pub(crate) settings: Settings,
    pub(crate) streams: Semaphore,
    pub(crate) limiter: Limiter,
}

impl Net {
    pub(crate) fn new(settings: Settings) -> Self {
        let streams = Semaphore::new(settings.n_streams);
        let limiter = Limiter::new(settings.bytes_per_second);
        Self { client: OnceLock::new(), settings, streams, limiter }
    }

    fn client(&self) -> Result<&Client, PullError> {
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
}

/// One server, and what it has been told about who asks.
#[derive(Debug)]
pub(crate) struct Endpoint {
    net: Arc<Net>,
    base: Url,
    /// Such as `host:5000`.
    pub(crate) host: String,
    authorization: Mutex<Option<HeaderValue>>,
}

#[derive(Debug, Default)]
pub(crate) struct Ask {
    pub(crate) accept: Option<&'static str>,
    pub(crate) range: Option<Range<u64>>,
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

    /// The answer to a GET, if it is one that is good for something.
    pub(crate) async fn get(&self, url: &Url, ask: &Ask) -> Result<Response, PullError> {
        let shown = authorization_of(&self.authorization).await;
        let response = self.follow(url, ask, shown.as_ref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED || !same_origin(response.url(), &self.base)
        {
            return self.accept(url, response).await;
        }
        let mut authorization = self.authorization.lock().await;
        // Unless another request has brought a new one meanwhile.
        if *authorization == shown {
            match self.answer(response.headers()).await? {
                Some(value) => *authorization = Some(value),
                None => return self.accept(url, response).await,
            }
        }
        let shown = authorization.clone();
        drop(authorization);
        let response = self.follow(url, ask, shown.as_ref()).await?;
        self.accept(url, response).await
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
            let mut request = self.net.client()?.get(url.clone());
            if let Some(accept) = ask.accept {
                request = request.header(ACCEPT, accept);
            }
            if let Some(range) = &ask.range {
                request = request.header(RANGE, format!("bytes={}-{}", range.start, range.end - 1));
            }
            if let Some(value) = authorization.filter(|_| same_origin(&url, &self.base)) {
                request = request.header(AUTHORIZATION, value);
            }
            let response = self.in_time(request.send()).await?;
            let response = response.map_err(|error| self.unreachable(&error))?;
            if !response.status().is_redirection() {
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

    /// What to show from now on, if there is anything.
    async fn answer(&self, headers: &HeaderMap) -> Result<Option<HeaderValue>, PullError> {
        let challenges = headers.get_all(WWW_AUTHENTICATE).iter();
        let challenge = challenges.filter_map(|text| auth::parse(text.to_str().ok()?)).next();
        match challenge {
            Some(Challenge::Bearer { realm, service, scope }) => {
                self.token(&realm, service, scope).await.map(Some)
            }
            Some(Challenge::Basic) => Ok(self.basic(&self.host)),
            None => Ok(None),
        }
    }

    async fn token(
        &self,
        realm: &str,
        service: Option<String>,
        scope: Option<String>,
    ) -> Result<HeaderValue, PullError> {
        let realm_url = Url::parse(realm).ok().filter(|realm| may_follow(&self.base, realm));
        let Some(mut url) = realm_url else {
            return Err(self.bad_answer("it sends for a token to what is no URL to go to".into()));
        };
        let pairs = [("service", service), ("scope", scope)];
        url.query_pairs_mut()
            .extend_pairs(pairs.iter().filter_map(|(key, value)| Some((key, value.as_ref()?))));
        let mut request = self.net.client()?.get(url.clone());
        // The realm may be anywhere: it gets what is configured for it, not what is for the registry.
        if let Some(value) = self.basic(&authority(&url)) {
            request = request.header(AUTHORIZATION, value);
        }
        let response = self.in_time(request.send()).await?;
        let response = response.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if !status.is_success() {
            let realm = Self::new(Arc::clone(&self.net), url.clone());
            return realm.accept_nothing(&url, status, response).await;
        }
        let body = self.read(response, MAX_TOKEN_BYTES).await?;
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let token = body["token"].as_str().or(body["access_token"].as_str());
        token
            .and_then(|token| secret_value(&format!("Bearer {token}")))
            .ok_or_else(|| self.bad_answer("no token where one was to be had".into()))
    }

    fn basic(&self, host: &str) -> Option<HeaderValue> {
        let Some(Secret::Password { user, password }) = self.net.settings.secrets.get(host) else {
            return None;
        };
        secret_value(&format!("Basic {}", BASE64.encode(format!("{user}:{password}"))))
    }

    async fn accept(&self, url: &Url, response: Response) -> Result<Response, PullError> {
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response),
            status => self.accept_nothing(url, status, response).await,
        }
    }

    async fn accept_nothing<T>(
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
                PullError::Denied { host, what, reason }
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

    async fn in_time<T>(&self, work: impl Future<Output = T>) -> Result<T, PullError> {
        let stall = self.net.settings.stall;
        timeout(stall, work)
            .await
            .map_err(|_| PullError::Stalled { host: self.host.clone(), seconds: stall.as_secs() })
    }

    fn unreachable(&self, error: &reqwest::Error) -> PullError {
        PullError::Unreachable { host: self.host.clone(), reason: describe(error) }
    }

    fn broken(&self, error: &reqwest::Error) -> PullError {
        PullError::Broken { host: self.host.clone(), reason: describe(error) }
    }
}

async fn authorization_of(authorization: &Mutex<Option<HeaderValue>>) -> Option<HeaderValue> {
    authorization.lock().await.clone()
}

/// The innermost cause: those around it only say that a request failed. The URL, which may hold a signature, is left out.
fn describe(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    quote(&cause.to_string())
}

fn may_follow(from: &Url, to: &Url) -> bool {
    match to.scheme() {
        "https" => true,
        "http" => from.scheme() == "http",
        _ => false,
    }
}

fn same_origin(a: &Url, b: &Url) -> bool {
    a.origin() == b.origin()
}

/// The host as people write it, with the port where it is not the scheme's own.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn secret_value(text: &str) -> Option<HeaderValue> {
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
        assert_eq!(format!("{:?}", Secret::parse("me:pass")), "Secret");
        assert_eq!(Secret::parse(" hf_x\n"), Secret::Token("hf_x".into()));
    }
}
