//! Which HTTP requests are let in over TCP, and as whose.
//!
//! A process of this machine is its user, as on the Unix socket. One of another machine has to bring a key. A web page in a
//! user's browser acts as that user, so a request must not come from a page of a foreign origin, nor to a name that somebody
//! else's name server may have given this machine's address.

use super::Caller;
use super::secret::read_secret;
use crate::config::HttpConfig;
use anyhow::{Context, bail};
use hearth_protocol::{ErrorKind, RpcError};
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue, ORIGIN};
use hyper::{StatusCode, Uri};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;

/// A shorter key could be guessed.
const MIN_KEY: usize = 16;

/// Where applications that are no web pages say they come from.
const APPLICATIONS: [&str; 5] = ["app:", "file:", "tauri:", "vscode-webview:", "vscode-file:"];

#[derive(Debug)]
pub(crate) struct Guard {
    origins: Vec<String>,
    /// By the hash of the key, so that comparing takes the same time for all wrong ones.
    keys: HashMap<[u8; 32], Caller>,
    open: bool,
    hostname: String,
}

/// What is not let in, and why.
pub(super) type Refused = (StatusCode, RpcError);

impl Guard {
    pub(crate) fn new(config: &HttpConfig) -> anyhow::Result<Self> {
        Ok(Self {
            origins: config.origins.clone(),
            keys: config.keys.as_deref().map(read_keys).transpose()?.unwrap_or_default(),
            open: config.open,
            hostname: rustix::system::uname().nodename().to_string_lossy().to_lowercase(),
        })
    }

    /// Whose request it is. `owner` is who the kernel says is at the other end, which it does within this machine.
    pub(super) fn admit(
        &self,
        headers: &HeaderMap,
        uri: &Uri,
        owner: Option<Caller>,
    ) -> Result<Caller, Refused> {
        if let Some(caller) = key(headers).and_then(|key| self.keys.get(&hash(key))) {
            return Ok(*caller);
        }
        match owner {
            Some(owner) if self.is_own_name(headers, uri) => Ok(owner),
            Some(_) => Err((
                StatusCode::FORBIDDEN,
                RpcError::new(
                    ErrorKind::PermissionDenied,
                    "the request's `Host` is no name of this machine",
                )
                .with_hint("ask for `localhost` or an address, or send a key"),
            )),
            None if self.open => Ok(Caller::NOBODY),
            None => Err((
                StatusCode::UNAUTHORIZED,
                RpcError::new(ErrorKind::PermissionDenied, "the request has no key that is known")
                    .with_hint(
                        "send `Authorization: Bearer KEY`; who runs this has a file of the keys",
                    ),
            )),
        }
    }

    /// The origin to answer to, where a page asks.
    pub(super) fn origin(&self, headers: &HeaderMap) -> Result<Option<HeaderValue>, Refused> {
        let Some(origin) = headers.get(ORIGIN) else { return Ok(None) };
        if origin.to_str().is_ok_and(|origin| self.may_ask(origin)) {
            return Ok(Some(origin.clone()));
        }
        let error = RpcError::new(
            ErrorKind::PermissionDenied,
            "pages of the request's `Origin` may not ask here",
        );
        Err((
            StatusCode::FORBIDDEN,
            error.with_hint("name it in `http.origins` or `OLLAMA_ORIGINS`"),
        ))
    }

    fn may_ask(&self, origin: &str) -> bool {
        let Ok(uri) = origin.parse::<Uri>() else {
            return APPLICATIONS.iter().any(|scheme| origin.starts_with(scheme));
        };
        let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
        (is_web && matches!(uri.host(), Some("localhost" | "127.0.0.1" | "0.0.0.0" | "[::1]")))
            || APPLICATIONS.iter().any(|scheme| origin.starts_with(scheme))
            || self.origins.iter().any(|known| matches(known, origin))
    }

    /// Names that only this machine and its network give to it.
    fn is_own_name(&self, headers: &HeaderMap, uri: &Uri) -> bool {
        let named = headers.get(HOST).and_then(|host| host.to_str().ok());
        let Some(authority) = named.or(uri.authority().map(|authority| authority.as_str())) else {
            // Before HTTP/1.1, which no browser speaks any more.
            return true;
        };
        let Ok(authority) = authority.parse::<hyper::http::uri::Authority>() else { return false };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_lowercase();
        // Whoever writes an address has asked no name server.
        host.parse::<IpAddr>().is_ok()
            || host == "localhost"
            || host == self.hostname
            || [".localhost", ".local", ".internal"].iter().any(|suffix| host.ends_with(suffix))
    }
}

/// Whether an origin is one that is known, with `*` for any text.
fn matches(known: &str, origin: &str) -> bool {
    match known.split_once('*') {
        None => known == origin,
        Some((start, rest)) => {
            let Some(mut tail) = origin.strip_prefix(start) else { return false };
            loop {
                if matches(rest, tail) {
                    return true;
                }
                let mut letters = tail.chars();
                if letters.next().is_none() {
                    return false;
                }
                tail = letters.as_str();
            }
        }
    }
}

/// As OpenAI's clients and Ollama's send it, or as Anthropic's do.
fn key(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| value.strip_prefix("Bearer "));
    bearer.or_else(|| headers.get("x-api-key").and_then(|value| value.to_str().ok()))
}

fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.trim()).into()
}

/// Lines of a user and a key. Whoever brings the key is that user.
fn read_keys(path: &Path) -> anyhow::Result<HashMap<[u8; 32], Caller>> {
    let shown = path.display();
    let text = read_secret(path).with_context(|| format!("cannot read the keys in `{shown}`"))?;
    let mut keys = HashMap::new();
    for (n, line) in text.lines().enumerate().map(|(n, line)| (n + 1, line.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (user, key) = line
            .split_once(char::is_whitespace)
            .with_context(|| format!("line {n} of `{shown}` is no user and key"))?;
        let key = key.trim();
        if key.len() < MIN_KEY {
            bail!(
                "the key in line {n} of `{shown}` is shorter than {MIN_KEY} characters\nhint: `openssl rand -hex 24` makes one"
            );
        }
        let uid = match user.parse() {
            Ok(uid) => uid,
            Err(_) => nix::unistd::User::from_name(user)
                .ok()
                .flatten()
                .with_context(|| {
                    format!("line {n} of `{shown}` names `{user}`, who is no user here")
                })?
                .uid
                .as_raw(),
        };
        keys.insert(hash(key), Caller::user(uid));
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(origins: &[&str]) -> Guard {
        let origins = origins.iter().map(ToString::to_string).collect();
        let keys = HashMap::from([(hash("0123456789abcdef"), Caller::user(7))]);
        Guard { origins, keys, open: false, hostname: "box".into() }
    }

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| {
                (hyper::header::HeaderName::from_static(name), value.parse().unwrap())
            })
            .collect()
    }

    #[test]
    fn pages_of_this_machine_and_of_named_origins_may_ask_and_no_others() {
        let guard = guard(&["https://chat.example", "http://10.0.0.*:8080"]);
        for origin in [
            "http://localhost:3000",
            "https://127.0.0.1",
            "http://[::1]:5",
            "app://obsidian.md",
            "vscode-webview://abc",
            "https://chat.example",
            "http://10.0.0.17:8080",
        ] {
            assert!(guard.may_ask(origin), "{origin}");
        }
        for origin in [
            "http://localhost.evil.example",
            "http://evil.example",
            "null",
            "https://chat.example.evil.example",
            "http://10.0.0.17:80",
        ] {
            assert!(!guard.may_ask(origin), "{origin}");
        }
    }

    #[test]
    fn a_name_that_somebody_else_gave_this_machine_is_refused() {
        let guard = guard(&[]);
        let (uri, owner) = (Uri::from_static("/api/tags"), Some(Caller::user(5)));
        for host in ["localhost:11434", "127.0.0.1", "[::1]:1", "BOX:1", "a.local", "192.168.1.5"] {
            let admitted = guard.admit(&headers(&[("host", host)]), &uri, owner);
            assert_eq!(admitted.ok(), owner, "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:11434", "a b"] {
            assert!(guard.admit(&headers(&[("host", host)]), &uri, owner).is_err(), "{host}");
        }
    }

    #[test]
    fn another_machine_needs_a_key_and_is_the_user_whose_key_it_is() {
        let guard = guard(&[]);
        let uri = Uri::from_static("/");
        let refused = |list: &[(&'static str, &str)]| {
            guard.admit(&headers(list), &uri, None).unwrap_err().0 == StatusCode::UNAUTHORIZED
        };
        assert!(refused(&[]));
        assert!(refused(&[("authorization", "Bearer 0123456789abcdee")]));
        assert!(refused(&[("authorization", "0123456789abcdef")]));
        for header in
            [("authorization", "Bearer 0123456789abcdef"), ("x-api-key", "0123456789abcdef")]
        {
            assert_eq!(guard.admit(&headers(&[header]), &uri, None).unwrap(), Caller::user(7));
        }
    }
}
