//! Where a model comes from, as a person writes it.

use crate::error::PullError;
use crate::shards;
use hearth_store::{ModelName, Scheme, quote};
use reqwest::Url;
use std::fmt;

/// A place to pull from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Registry(Repository),
    /// One GGUF file.
    Url(Url, ModelName),
}

/// A tag of a repository in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// As it is written.
    pub(crate) host: String,
    pub(crate) base: Url,
    /// Such as `library/smollm2`, with as many levels as the registry has.
    pub(crate) path: String,
    pub(crate) tag: String,
    /// What it is called here unless somebody says otherwise.
    pub(crate) name: ModelName,
}

impl Source {
    pub fn parse(text: &str) -> Result<Self, PullError> {
        parse(text, Scheme::Https)
            .map_err(|reason| PullError::BadSource { source_text: quote(text), reason })
    }

    /// What the model is called unless somebody says otherwise.
    pub fn name(&self) -> &ModelName {
        match self {
            Self::Registry(repository) => &repository.name,
            Self::Url(_, name) => name,
        }
    }
}

impl Repository {
    /// Where a model may be sent. Where no scheme is written TLS is meant, unless it is to be `insecure`.
    pub fn parse(text: &str, insecure: bool) -> Result<Self, PullError> {
        let default = if insecure { Scheme::Http } else { Scheme::Https };
        let parsed = parse(text, default).and_then(|source| match source {
            Source::Registry(repository) => Ok(repository),
            Source::Url(..) => Err("a model is sent to a registry".to_owned()),
        });
        parsed.map_err(|reason| PullError::BadSource { source_text: quote(text), reason })
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    /// What `Source::parse` makes the same of.
    pub(crate) fn origin(&self) -> String {
        format!("{}://{}/{self}", self.base.scheme(), self.host)
    }
}

/// Without the host.
impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path, self.tag)
    }
}

fn parse(text: &str, default: Scheme) -> Result<Source, String> {
    let text = text.trim();
    if text.starts_with('/') || text.starts_with("file://") {
        return Err("a file on this machine is imported".to_owned());
    }
    let bare = text.strip_prefix("oci://").or_else(|| text.strip_prefix("docker://"));
    let is_url = text.starts_with("https://") || text.starts_with("http://");
    if is_url && let Some(source) = file_url(text)? {
        return Ok(source);
    }
    let name = bare.unwrap_or(text);
    match ModelName::parse_with_scheme(name) {
        Ok((scheme, name)) => {
            let path = format!("{}/{}", name.namespace(), name.model());
            Ok(Source::Registry(Repository {
                host: name.host().to_owned(),
                base: base(scheme.unwrap_or(default), name.host())?,
                path,
                tag: name.tag().to_owned(),
                name,
            }))
        }
        Err(error) => deep(name, default).unwrap_or_else(|| Err(error.to_string())),
    }
}

/// A URL of a file rather than of a repository: it has a query, or the name of a GGUF file.
fn file_url(text: &str) -> Result<Option<Source>, String> {
    let mut url = Url::parse(text).map_err(|error| error.to_string())?;
    if !url.path().to_ascii_lowercase().ends_with(".gguf") && url.query().is_none() {
        return Ok(None);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a secret has no place in a URL, which is shown and logged".to_owned());
    }
    // What a browser shows of a file at Hugging Face is a page; the file is beside it.
    if matches!(url.host_str(), Some("huggingface.co" | "hf.co")) {
        url.set_path(&url.path().replacen("/blob/", "/resolve/", 1));
    }
    let file_name = url.path().rsplit('/').next().unwrap_or_default().to_lowercase();
    let file_name = shards::whole_name(&file_name);
    let stem = file_name.strip_suffix(".gguf").unwrap_or(file_name);
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let name: String = stem.chars().map(|c| if allowed(c) { c } else { '-' }).collect();
    let name = name.trim_start_matches(['.', '-']);
    let name = if name.is_empty() { "model" } else { name };
    let name = name.parse().map_err(|error| format!("{error}"))?;
    Ok(Some(Source::Url(url, name)))
}

/// A repository with more levels than a model's name has: they become one.
fn deep(text: &str, default: Scheme) -> Option<Result<Source, String>> {
    let (scheme, rest) = match text.split_once("://") {
        Some(("https", rest)) => (Scheme::Https, rest),
        Some(("http", rest)) => (Scheme::Http, rest),
        Some(_) => return None,
        None => (default, text),
    };
    let (host, path) = rest.split_once('/')?;
    if !(host.contains(['.', ':']) || host == "localhost") {
        return None;
    }
    let (path, tag) = path.rsplit_once(':').unwrap_or((path, hearth_store::DEFAULT_TAG));
    let (namespace, model) = path.rsplit_once('/')?;
    let namespace = namespace.replace('/', "-");
    let is_plain = |part: &str| !part.is_empty() && !part.starts_with('.');
    if !path.split('/').all(is_plain) {
        return None;
    }
    let name = ModelName::from_parts(host, &namespace, model, tag);
    Some(name.map_err(|error| error.to_string()).and_then(|name| {
        let (host, path, tag) = (host.to_owned(), path.to_owned(), tag.to_owned());
        Ok(Source::Registry(Repository { base: base(scheme, &host)?, host, path, tag, name }))
    }))
}

pub(crate) fn base(scheme: Scheme, host: &str) -> Result<Url, String> {
    let scheme = match scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    // Where they really are; a redirect from here to there would lose a secret.
    let host = match host {
        "docker.io" => "registry-1.docker.io",
        "hf.co" => "huggingface.co",
        host => host,
    };
    let url = Url::parse(&format!("{scheme}://{host}/")).map_err(|error| error.to_string())?;
    if url.path() != "/" || url.query().is_some() || !url.username().is_empty() {
        return Err(format!("`{}` is no host", quote(host)));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn repository(text: &str) -> (String, String, String, String) {
        match Source::parse(text).unwrap() {
            Source::Registry(Repository { base, path, tag, name, .. }) => {
                (base.into(), path, tag, name.to_string())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn repositories() {
        for (text, base, path, tag, name) in [
            (
                "smollm2",
                "https://registry.ollama.ai/",
                "library/smollm2",
                "latest",
                "smollm2:latest",
            ),
            (
                "hf.co/u/Repo-GGUF:Q4_K_M",
                "https://huggingface.co/",
                "u/Repo-GGUF",
                "Q4_K_M",
                "hf.co/u/Repo-GGUF:Q4_K_M",
            ),
            (
                "http://localhost:5000/n/m:t",
                "http://localhost:5000/",
                "n/m",
                "t",
                "localhost:5000/n/m:t",
            ),
            (
                "docker.io/ai/smollm2",
                "https://registry-1.docker.io/",
                "ai/smollm2",
                "latest",
                "docker.io/ai/smollm2:latest",
            ),
            ("oci://ghcr.io/n/m:t", "https://ghcr.io/", "n/m", "t", "ghcr.io/n/m:t"),
            ("ghcr.io/org/team/m:t", "https://ghcr.io/", "org/team/m", "t", "ghcr.io/org-team/m:t"),
            ("http://h:1/a/b/c", "http://h:1/", "a/b/c", "latest", "h:1/a-b/c:latest"),
        ] {
            let expected = (base.into(), path.into(), tag.into(), name.into());
            assert_eq!(repository(text), expected, "{text}");
            let Source::Registry(parsed) = Source::parse(text).unwrap() else { panic!() };
            assert_eq!(repository(&parsed.origin()), expected, "{}", parsed.origin());
        }
    }

    #[test]
    fn files() {
        for (text, url, name) in [
            ("https://h/a/Tiny%20One.GGUF", "https://h/a/Tiny%20One.GGUF", "tiny-20one:latest"),
            (
                "https://h/Big-00002-of-00003.gguf",
                "https://h/Big-00002-of-00003.gguf",
                "big:latest",
            ),
            ("http://h/download?id=3", "http://h/download?id=3", "download:latest"),
            (
                "https://huggingface.co/u/r/blob/main/x-Q4.gguf",
                "https://huggingface.co/u/r/resolve/main/x-Q4.gguf",
                "x-q4:latest",
            ),
        ] {
            let source = Source::parse(text).unwrap();
            assert_eq!(source, Source::Url(Url::parse(url).unwrap(), name.parse().unwrap()));
        }
    }

    #[test]
    fn what_is_no_place_says_why() {
        for text in [
            "",
            "..",
            "/m/x.gguf",
            "file:///m/x.gguf",
            "../x",
            "a/b/c/d",
            "ftp://h/n/m",
            "https://h/a/../../etc/m/n/o:t",
            "https://me:secret@h/x.gguf",
            "ghcr.io/a/../b/c",
            "http:///n/m",
            "user@h.example/n/m",
        ] {
            assert!(matches!(Source::parse(text), Err(PullError::BadSource { .. })), "{text}");
        }
    }
}
