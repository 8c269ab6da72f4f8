//! The small server that `docker-registry` sends for tokens to. It knows one user.

use crate::registry::TokenAuth;
use crate::web::{WebReply, WebServer};
use serde_json::json;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

/// A server of tokens, and what it was shown.
#[derive(Debug)]
pub struct TokenServer {
    server: WebServer,
    dir: Arc<TempDir>,
    shown: Arc<Mutex<Vec<Option<String>>>>,
}

impl TokenServer {
    /// Gives tokens to whoever shows this `Authorization`.
    #[track_caller]
    pub fn start(authorization: &str) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        openssl(
            dir.path(),
            "req -x509 -newkey rsa:2048 -nodes -keyout key -out certificate -days 2 -subj /CN=hearth",
            b"",
        );
        let shown: Arc<Mutex<Vec<_>>> = Arc::default();
        let (key, saw, wanted) = (Arc::clone(&dir), Arc::clone(&shown), authorization.to_owned());
        let server = WebServer::start(move |request, stream| {
            let authorization = request.message.headers.get("authorization").cloned();
            let reply = if authorization.as_ref() == Some(&wanted) {
                let plain =
                    request.path.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",");
                let scopes = plain.split(['?', '&']).filter_map(|pair| pair.strip_prefix("scope="));
                let token = token(key.path(), scopes);
                WebReply::new(200, json!({ "token": token }).to_string())
            } else {
                WebReply::new(401, json!({ "error": "who are you?" }).to_string())
            };
            saw.lock().unwrap().push(authorization);
            let _ = stream.write_all(reply.head(reply.message.body.len()).as_bytes());
            let _ = stream.write_all(&reply.message.body);
        });
        Self { server, dir, shown }
    }

    /// What a registry is to be told.
    pub fn auth(&self) -> TokenAuth {
        let realm = format!("http://{}/token", self.host());
        TokenAuth { realm, certificate: self.dir.path().join("certificate") }
    }

    /// Such as `127.0.0.1:4711`.
    pub fn host(&self) -> String {
        self.server.host()
    }

    /// The `Authorization` of each request so far.
    pub fn shown(&self) -> Vec<Option<String>> {
        self.shown.lock().unwrap().clone()
    }
}

/// A JSON web token for scopes such as `repository:library/m:pull`.
fn token<'s>(dir: &Path, scopes: impl Iterator<Item = &'s str>) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let access = scopes.map(|scope| {
        let mut parts = scope.splitn(3, ':');
        let mut part = || parts.next().unwrap_or_default();
        json!({ "type": part(), "name": part(), "actions": part().split(',').collect::<Vec<_>>() })
    });
    let access: Vec<_> = access.collect();
    let certificate = std::fs::read_to_string(dir.join("certificate")).unwrap();
    let der: String = certificate.lines().filter(|line| !line.starts_with("---")).collect();
    let header = json!({ "typ": "JWT", "alg": "RS256", "x5c": [der] });
    let claims = json!({
        "iss": "hearth-tests", "aud": "hearth-tests", "sub": "me", "jti": "1",
        "iat": now, "nbf": now - 60, "exp": now + 600, "access": access,
    });
    let text = format!(
        "{}.{}",
        url_base64(header.to_string().as_bytes()),
        url_base64(claims.to_string().as_bytes())
    );
    let signature = openssl(dir, "dgst -sha256 -sign key", text.as_bytes());
    format!("{text}.{}", url_base64(&signature))
}

fn url_base64(bytes: &[u8]) -> String {
    let text = openssl(Path::new("/"), "base64 -A", bytes);
    let text = String::from_utf8(text).unwrap();
    text.trim_end().trim_end_matches('=').replace('+', "-").replace('/', "_")
}

/// Runs `openssl` in a folder, and expects it to succeed.
#[track_caller]
pub fn openssl(dir: &Path, args: &str, stdin: &[u8]) -> Vec<u8> {
    let mut child = Command::new("openssl")
        .args(args.split(' '))
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("openssl: {error}\nhint: `./dev test` installs it"));
    child.stdin.take().unwrap().write_all(stdin).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl {args}: {}", output.status);
    output.stdout
}
