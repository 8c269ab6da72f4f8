//! HTTP over TCP: where, for whose pages, with which keys and which certificate.

use super::env;
use anyhow::bail;
use serde::Deserialize;
use std::path::PathBuf;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileHttp {
    listen: Option<Vec<String>>,
    origins: Option<Vec<String>>,
    keys: Option<PathBuf>,
    open: Option<bool>,
    tls_certificate: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    image_urls: Option<ImageUrls>,
}

/// Which images that clients name by URL are fetched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ImageUrls {
    #[default]
    No,
    /// Over TLS, at addresses that everybody can reach.
    Public,
    All,
}

/// HTTP over TCP.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HttpConfig {
    /// None: only the Unix socket.
    pub(crate) listen: Vec<Address>,
    pub(crate) origins: Vec<String>,
    /// The file of the keys.
    pub(crate) keys: Option<PathBuf>,
    /// Other machines need no key.
    pub(crate) open: bool,
    pub(crate) image_urls: ImageUrls,
    /// There where an address is for TLS.
    pub(crate) tls: Option<TlsFiles>,
}

/// A host with a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) tls: bool,
}

/// In PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// The file goes before what Ollama's users have in the environment.
pub(super) fn http(file: FileHttp) -> anyhow::Result<HttpConfig> {
    let origins = || {
        let list = env("OLLAMA_ORIGINS").unwrap_or_default();
        list.split(',').map(|origin| origin.trim().to_owned()).filter(|o| !o.is_empty()).collect()
    };
    let listen: Vec<_> = match file.listen {
        Some(texts) => texts.iter().map(|text| address(text)).collect(),
        None => {
            let host =
                env("OLLAMA_HOST").map(|host| Address { host: ollama_host(&host), tls: false });
            host.into_iter().collect()
        }
    };
    let named = |path: Option<PathBuf>| path.filter(|path| !path.as_os_str().is_empty());
    let tls = match (named(file.tls_certificate), named(file.tls_key)) {
        (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key }),
        (None, None) => None,
        _ => bail!("of `http.tls_certificate` and `http.tls_key` there is only one"),
    };
    match (&tls, listen.iter().find(|address| address.tls)) {
        (None, Some(Address { host, .. })) => bail!(
            "`http.listen` names `https://{host}`, and there is no certificate\nhint: name its files in `http.tls_certificate` and `http.tls_key` (`hearth serve --tls-certificate` and `--tls-key`)"
        ),
        // Whoever has named a certificate believes to be talking in secret.
        (Some(_), None) if !listen.is_empty() => bail!(
            "there is a certificate, and no address in `http.listen` begins with `https://`\nhint: write `https://` before those that are for TLS"
        ),
        _ => {}
    }
    Ok(HttpConfig {
        listen,
        origins: match file.origins {
            Some(origins) => checked(origins)?,
            None => origins(),
        },
        keys: named(file.keys).or_else(credential),
        open: file.open.unwrap_or(false),
        image_urls: file.image_urls.unwrap_or_default(),
        tls,
    })
}

/// An origin without a scheme is none that a browser sends.
fn checked(origins: Vec<String>) -> anyhow::Result<Vec<String>> {
    match origins.iter().find(|origin| *origin != "*" && !origin.contains("://")) {
        Some(bad) => bail!(
            "`http.origins` names `{bad}`, which does not say how it is reached\nhint: write `https://{bad}`, or `http://{bad}`"
        ),
        None => Ok(origins),
    }
}

fn address(text: &str) -> Address {
    let (host, tls) = match text.strip_prefix("https://") {
        Some(host) => (host, true),
        None => (text.strip_prefix("http://").unwrap_or(text), false),
    };
    Address { host: host.into(), tls }
}

/// The service manager's, if it has any for us.
fn credential() -> Option<PathBuf> {
    Some(PathBuf::from(env("CREDENTIALS_DIRECTORY")?).join("keys")).filter(|path| path.exists())
}

/// `[scheme://]host[:port][/path]`, as Ollama reads it.
fn ollama_host(text: &str) -> String {
    let (scheme, rest) = text.trim().split_once("://").unwrap_or(("", text.trim()));
    let default = match scheme {
        "http" => 80,
        "https" => 443,
        _ => 11434,
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let has_port = authority.rsplit_once(':').is_some_and(|(host, port)| {
        port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']'))
    });
    let host =
        if has_port { authority.rsplit_once(':').map_or("", |(host, _)| host) } else { authority };
    let host = match host {
        "" => "127.0.0.1".to_owned(),
        host if host.contains(':') && !host.starts_with('[') => format!("[{host}]"),
        host => host.to_owned(),
    };
    match authority.rsplit_once(':') {
        Some((_, port)) if has_port => format!("{host}:{port}"),
        _ => format!("{host}:{default}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ollama_host_is_read_as_ollama_reads_it() {
        for (text, host) in [
            ("0.0.0.0", "0.0.0.0:11434"),
            ("localhost:1234", "localhost:1234"),
            (":8080", "127.0.0.1:8080"),
            ("http://box", "box:80"),
            ("https://box/path", "box:443"),
            ("http://box:11434/", "box:11434"),
            ("::1", "[::1]:11434"),
            ("[::1]:7", "[::1]:7"),
            ("", "127.0.0.1:11434"),
        ] {
            assert_eq!(ollama_host(text), host, "{text}");
        }
    }

    #[test]
    fn an_origin_that_no_page_can_have_is_refused() {
        let http = |origin: &str| {
            http(FileHttp { origins: Some(vec![origin.into()]), ..FileHttp::default() })
        };
        for origin in ["*", "https://chat.example", "http://10.0.0.*:8080", "app://*"] {
            assert_eq!(http(origin).unwrap().origins, [origin]);
        }
        let error = http("chat.example").unwrap_err().to_string();
        assert!(
            error.ends_with("hint: write `https://chat.example`, or `http://chat.example`"),
            "{error}"
        );
    }

    #[test]
    fn a_certificate_and_its_addresses_go_together() {
        let http = |listen: &str, files: bool| {
            let name = |name: &str| files.then(|| name.into());
            super::http(FileHttp {
                listen: Some(vec!["127.0.0.1:1".into(), listen.into()]),
                tls_certificate: name("cert.pem"),
                tls_key: name("key.pem"),
                ..FileHttp::default()
            })
        };
        let of = |host: &str, tls| Address { host: host.into(), tls };
        let config = http("https://[::]:2", true).unwrap();
        assert_eq!(config.listen, [of("127.0.0.1:1", false), of("[::]:2", true)]);
        assert!(config.tls.is_some());
        assert!(http("http://[::]:2", false).unwrap().tls.is_none());
        let error = http("https://[::]:2", false).unwrap_err().to_string();
        assert!(error.contains("`https://[::]:2`"), "{error}");
        let error = http("[::]:2", true).unwrap_err().to_string();
        assert!(error.contains("begins with `https://`"), "{error}");
        let alone = FileHttp { tls_key: Some("key.pem".into()), ..FileHttp::default() };
        assert!(super::http(alone).is_err());
    }
}
