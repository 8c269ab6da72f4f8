//! Debian's `docker-registry` on loopback, filled by the test.

use crate::guard::Guard;
use crate::web::{WebMessage, WebReply, WebRequest, web_ask};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// How a registry's tokens are made: see [`crate::TokenServer`].
#[derive(Debug, Clone)]
pub struct TokenAuth {
    /// Where tokens are to be had.
    pub realm: String,
    /// The certificate that they are signed by.
    pub certificate: PathBuf,
}

/// A running registry. Dropping it kills it.
#[derive(Debug)]
pub struct Registry {
    dir: TempDir,
    child: Child,
    guard: Option<Guard>,
    host: String,
}

impl Registry {
    /// An empty one that lets everybody in.
    #[track_caller]
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::start_in(dir, None)
    }

    /// The same content behind tokens.
    #[track_caller]
    pub fn with_auth(mut self, auth: &TokenAuth) -> Self {
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        drop(self);
        Self::start_in(dir, Some(auth))
    }

    #[track_caller]
    fn start_in(dir: TempDir, auth: Option<&TokenAuth>) -> Self {
        let mut config = json!({
            "version": "0.1",
            "log": { "level": "info", "accesslog": { "disabled": true } },
            "storage": { "filesystem": { "rootdirectory": dir.path() } },
            "http": { "addr": "127.0.0.1:0" },
        });
        if let Some(auth) = auth {
            config["auth"] = json!({ "token": {
                "realm": auth.realm, "service": "hearth-tests", "issuer": "hearth-tests",
                "rootcertbundle": auth.certificate,
            } });
        }
        let path = dir.path().join("config.yml");
        // Every JSON document is YAML too.
        std::fs::write(&path, config.to_string()).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .env_clear()
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("docker-registry: {error}\nhint: `./dev test` installs it")
            });
        let guard = Some(Guard::new(child.id()));
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let said = lines.by_ref().find_map(|line| {
            let (_, rest) = line.split_once("listening on ")?;
            Some(rest.split(['"', ' ', ',']).next()?.to_owned())
        });
        // It stops when nobody reads what it logs.
        std::thread::spawn(move || lines.for_each(drop));
        let host = said.expect("docker-registry says where it listens");
        Self { dir, child, guard, host }
    }

    /// Such as `127.0.0.1:4711`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Stores a model with Ollama's media types, and gives its manifest.
    #[track_caller]
    pub fn push(&self, name: &str, layers: &[(&str, &[u8])]) -> String {
        let config = json!({ "model_format": "gguf", "model_family": "llama" }).to_string();
        let mut config = self.push_blob(name, config.as_bytes());
        config["mediaType"] = "application/vnd.docker.container.image.v1+json".into();
        let layers: Vec<Value> = layers
            .iter()
            .map(|(kind, bytes)| {
                let mut layer = self.push_blob(name, bytes);
                layer["mediaType"] = format!("application/vnd.ollama.image.{kind}").into();
                layer
            })
            .collect();
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
        self.push_manifest(name, MANIFEST, &manifest)
    }

    /// Stores a manifest under the tag `latest`.
    #[track_caller]
    pub fn push_manifest(&self, name: &str, media_type: &str, manifest: &Value) -> String {
        let text = format!("{manifest:#}");
        let path = format!("/v2/{name}/manifests/latest");
        let reply = self.ask("PUT", &path, Some(media_type), text.as_bytes());
        assert_eq!(reply.status, 201, "{}", String::from_utf8_lossy(&reply.message.body));
        text
    }

    /// Stores a blob, and gives its descriptor without a media type.
    #[track_caller]
    pub fn push_blob(&self, name: &str, bytes: &[u8]) -> Value {
        let begun = self.ask("POST", &format!("/v2/{name}/blobs/uploads/"), None, b"");
        let location = &begun.message.headers["location"];
        let path = &location[location.find("/v2/").unwrap()..];
        let digest = digest(bytes);
        let path = format!("{path}&digest={digest}");
        let reply = self.ask("PUT", &path, Some("application/octet-stream"), bytes);
        assert_eq!(reply.status, 201, "{}", String::from_utf8_lossy(&reply.message.body));
        json!({ "digest": digest, "size": bytes.len() })
    }

    #[track_caller]
    fn ask(&self, method: &str, path: &str, content_type: Option<&str>, body: &[u8]) -> WebReply {
        let headers = content_type.map(|text| ("content-type".to_owned(), text.to_owned()));
        let message = WebMessage { headers: headers.into_iter().collect(), body: body.to_vec() };
        let request = WebRequest { method: method.into(), path: path.into(), message };
        web_ask(&self.host, &request)
    }

    /// Where it keeps a blob.
    pub fn blob_path(&self, bytes: &[u8]) -> PathBuf {
        let digest = digest(bytes);
        let hex = digest.trim_start_matches("sha256:");
        self.dir
            .path()
            .join("docker/registry/v2/blobs/sha256")
            .join(&hex[..2])
            .join(hex)
            .join("data")
    }

    /// What it keeps.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.guard = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `sha256:...`
pub fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
