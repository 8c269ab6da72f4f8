//! A file at an address that whoever asks has named, and who may mean to reach through the daemon what is out of their own reach.
//!
//! **Invariant.** Nothing is asked of an address that is not the whole world's, unless that is allowed: each address is looked at
//! when it is connected to, after every redirect anew, and no proxy is asked instead.

use crate::http::describe;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, Url, redirect};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::lookup_host;

/// For all of it.
const PATIENCE: Duration = Duration::from_secs(30);
const MAX_REDIRECTS: usize = 5;

/// Where a file may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Over TLS, at addresses that everybody can reach.
    Public,
    /// Anywhere.
    All,
}

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum Elsewhere {
    /// It may not be asked for.
    #[error("`{url}` {reason}")]
    Forbidden { url: String, reason: &'static str },
    /// It is longer than it may be.
    #[error("`{url}` has more than {max_bytes} bytes")]
    TooLarge { url: String, max_bytes: usize },
    /// It did not come.
    #[error("`{url}` cannot be fetched: {reason}")]
    Failed { url: String, reason: String },
}

/// Fetches a file of at most so many bytes.
pub async fn fetch_elsewhere(
    text: &str,
    max_bytes: usize,
    reach: Reach,
) -> Result<Vec<u8>, Elsewhere> {
    // Without what may be a secret.
    let shown = text.split(['?', '#']).next().unwrap_or_default();
    let failed = |reason| Elsewhere::Failed { url: shown.into(), reason };
    let url = Url::parse(text).map_err(|error| failed(error.to_string()))?;
    if let Some(reason) = objection(&url, reach) {
        return Err(Elsewhere::Forbidden { url: shown.into(), reason });
    }
    // Only the first call has an effect, and all mean the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let policy = redirect::Policy::custom(move |attempt| match objection(attempt.url(), reach) {
        Some(reason) => attempt.error(reason),
        None if attempt.previous().len() > MAX_REDIRECTS => attempt.error("too many redirects"),
        None => attempt.follow(),
    });
    let builder = Client::builder().timeout(PATIENCE).redirect(policy).referer(false).no_proxy();
    let builder = builder.user_agent(concat!("hearth/", env!("CARGO_PKG_VERSION")));
    let client = match reach {
        Reach::Public => builder.dns_resolver(Arc::new(PublicOnly)).build(),
        Reach::All => builder.build(),
    };
    let client = client.map_err(|error| failed(describe(&error)))?;
    let response = client.get(url).send().await.and_then(|response| response.error_for_status());
    let mut response = response.map_err(|error| failed(describe(&error.without_url())))?;
    let mut bytes = Vec::new();
    while let Some(chunk) =
        response.chunk().await.map_err(|error| failed(describe(&error.without_url())))?
    {
        if bytes.len() + chunk.len() > max_bytes {
            return Err(Elsewhere::TooLarge { url: shown.into(), max_bytes });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Why nothing may be asked for there, as far as the URL alone tells.
fn objection(url: &Url, reach: Reach) -> Option<&'static str> {
    // Names are looked at when they are resolved.
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    match (reach, url.scheme()) {
        (Reach::All, "http" | "https") => None,
        (Reach::All, _) => Some("is no URL with `http` or `https`"),
        (Reach::Public, "https") => match host.parse::<IpAddr>() {
            Ok(address) if !is_public(address) => Some(PRIVATE),
            _ => None,
        },
        (Reach::Public, _) => Some("is no URL with `https`"),
    }
}

const PRIVATE: &str = "is not at a public address";

struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let all = lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = all.filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, PRIVATE).into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

/// Those that are given to somebody, of what may be routed.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    let whole = matches!(first, 0 | 10 | 127 | 224..);
    let half = matches!(
        (first, second),
        (192, 168) | (169, 254) | (100, 64..128) | (172, 16..32) | (198, 18..20)
    );
    let third = (first, second, third);
    let small = matches!(third, (192, 0, 0 | 2) | (192, 88, 99) | (198, 51, 100) | (203, 0, 113));
    !(whole || half || small)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // Documentation, and what stands for an address of the fourth version.
        [0x2001, 0xdb8 | 0..0x200, ..] | [0x2002, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_not_the_whole_worlds_are_none() {
        for address in ["1.1.1.1", "93.184.216.34", "172.32.0.1", "100.128.0.1", "2606:4700::1111"]
        {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.100.1.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.8",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
            "2001::1",
            "2001:db8::1",
            "fc00::1",
            "fe80::1",
            "ff02::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn a_url_is_looked_at_before_anything_is_asked() {
        let objects = |text| objection(&Url::parse(text).unwrap(), Reach::Public).is_some();
        for text in ["https://example.org/a.png", "https://1.1.1.1/", "https://[2606:4700::1111]/"]
        {
            assert!(!objects(text), "{text}");
        }
        for text in [
            "http://example.org/",
            "file:///etc/passwd",
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/",
        ] {
            assert!(objects(text), "{text}");
        }
        assert!(objection(&Url::parse("ftp://example.org/").unwrap(), Reach::All).is_some());
    }

    #[tokio::test]
    async fn a_name_for_a_private_address_is_not_asked() {
        let error = fetch_elsewhere("https://localhost:1/a?token=1", 10, Reach::Public).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains(PRIVATE) && !error.contains("token"), "{error}");
    }
}
