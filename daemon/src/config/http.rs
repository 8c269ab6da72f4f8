//! HTTP over TCP: where, for whose pages, and with which keys.

use super::env;
use serde::Deserialize;
use std::path::PathBuf;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileHttp {
    listen: Option<Vec<String>>,
    origins: Option<Vec<String>>,
    keys: Option<PathBuf>,
    open: Option<bool>,
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
    /// Hosts with ports; none: only the Unix socket.
    pub(crate) listen: Vec<String>,
    pub(crate) origins: Vec<String>,
    /// The file of the keys.
    pub(crate) keys: Option<PathBuf>,
    /// Other machines need no key.
    pub(crate) open: bool,
    pub(crate) image_urls: ImageUrls,
}

/// The file goes before what Ollama's users have in the environment.
pub(super) fn http(file: FileHttp) -> HttpConfig {
    let origins = || {
        let list = env("OLLAMA_ORIGINS").unwrap_or_default();
        list.split(',').map(|origin| origin.trim().to_owned()).filter(|o| !o.is_empty()).collect()
    };
    HttpConfig {
        listen: file.listen.unwrap_or_else(|| {
            env("OLLAMA_HOST").map(|host| ollama_host(&host)).into_iter().collect()
        }),
        origins: file.origins.unwrap_or_else(origins),
        keys: file.keys.filter(|path| !path.as_os_str().is_empty()),
        open: file.open.unwrap_or(false),
        image_urls: file.image_urls.unwrap_or_default(),
    }
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
}
