//! Pushing as Ollama's own registry wants it: a key that is made on the way signs for a token, and parts go to the storage
//! behind the registry.

use crate::pull::{MIB, blob_path, noise, pull, source};
use hearth_protocol::{ErrorKind, ModelPush, PullParams, PushParams};
use hearth_tests::{
    Registry, TestDaemon, WebReply, WebRequest, WebServer, digest, openssl, refused,
};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

const HOST: &str = "http://registry.ollama.ai";
/// SHA-256 of nothing, in hex, in base64.
const NO_BODY: &str =
    "ZTNiMGM0NDI5OGZjMWMxNDlhZmJmNGM4OTk2ZmI5MjQyN2FlNDFlNDY0OWI5MzRjYTQ5NTk5MWI3ODUyYjg1NQ==";

/// What the registry has got.
#[derive(Debug, Default)]
struct Kept {
    /// Keys that are known, as in the second word of a public key's file.
    keys: Vec<String>,
    /// By the number of the upload and where in the blob they begin.
    parts: BTreeMap<(usize, u64), Vec<u8>>,
    blobs: BTreeMap<String, Vec<u8>>,
    manifest: Vec<u8>,
    n_uploads: usize,
    nonces: Vec<String>,
}

fn query<'p>(path: &'p str, name: &str) -> Option<&'p str> {
    let pairs = path.split_once('?')?.1.split('&');
    pairs
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

/// Whether this URL was signed by a key that is known.
fn is_signed(kept: &mut Kept, dir: &Path, url: &str, authorization: &str) -> bool {
    let Some((public, signature)) = authorization.split_once(':') else { return false };
    if !kept.keys.contains(&public.to_owned()) {
        return false;
    }
    let nonce = query(url, "nonce").unwrap().to_owned();
    assert!(!kept.nonces.contains(&nonce), "a nonce is used once");
    kept.nonces.push(nonce);
    let decoded = |text: &str| openssl(dir, "base64 -d -A", text.as_bytes());
    let key = decoded(public);
    // What X.509 puts before the 32 bytes of an ed25519 key.
    let mut der = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00".to_vec();
    der.extend(&key[key.len() - 32..]);
    fs::write(dir.join("key"), der).unwrap();
    fs::write(dir.join("text"), format!("GET,{url},{NO_BODY}")).unwrap();
    fs::write(dir.join("signature"), decoded(signature)).unwrap();
    let verify =
        "pkeyutl -verify -pubin -keyform DER -inkey key -rawin -in text -sigfile signature";
    let said = openssl(dir, verify, b"");
    String::from_utf8(said).unwrap().contains("Verified Successfully")
}

fn with(status: u16, headers: &[(&str, String)]) -> WebReply {
    let mut reply = WebReply::new(status, "");
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
    reply.message.headers.extend(headers);
    reply
}

fn answer(kept: &mut Kept, dir: &Path, request: &WebRequest) -> WebReply {
    let path = request.path.as_str();
    let authorization = request.message.headers.get("authorization").cloned().unwrap_or_default();
    let body = &request.message.body;
    if let Some(part) = path.strip_prefix("http://storage.example/") {
        assert_eq!((&*request.method, &*authorization), ("PUT", ""));
        let (upload, start) = part.split_once('/').unwrap();
        kept.parts.insert((upload.parse().unwrap(), start.parse().unwrap()), body.clone());
        return WebReply::new(200, "");
    }
    if path.starts_with(&format!("{HOST}/v2/token?")) {
        assert_eq!(query(path, "scope"), Some("repository%3Ame%2Fm%3Apull%2Cpush"));
        assert_eq!(query(path, "service"), Some("ollama"));
        return match is_signed(kept, dir, path, &authorization) {
            true => WebReply::new(200, json!({ "token": "ours" }).to_string()),
            false => WebReply::new(401, json!({ "error": "unknown key" }).to_string()),
        };
    }
    if authorization != "Bearer ours" {
        let challenge = format!(
            "Bearer realm=\"{HOST}/v2/token\",service=\"ollama\",scope=\"repository:me/m:pull,push\""
        );
        return with(401, &[("www-authenticate", challenge)]);
    }
    let rest = path.strip_prefix(&format!("{HOST}/v2/me/m/")).unwrap();
    match (&*request.method, rest) {
        ("HEAD", blob) => match kept.blobs.contains_key(blob.trim_start_matches("blobs/")) {
            true => WebReply::new(200, ""),
            false => WebReply::new(404, ""),
        },
        ("POST", "blobs/uploads/") => {
            kept.n_uploads += 1;
            let there = format!("{HOST}/v2/me/m/blobs/uploads/{}", kept.n_uploads);
            with(202, &[("location", there)])
        }
        ("PATCH", upload) => {
            assert_eq!(request.message.headers["x-redirect-uploads"], "1");
            let range = &request.message.headers["content-range"];
            let number = upload.trim_start_matches("blobs/uploads/");
            let part =
                format!("http://storage.example/{number}/{}", range.split('-').next().unwrap());
            with(307, &[("location", part), ("docker-upload-location", path.to_owned())])
        }
        ("PUT", "manifests/latest") => {
            kept.manifest.clone_from(body);
            WebReply::new(201, "")
        }
        ("PUT", upload) => {
            let number = upload.trim_start_matches("blobs/uploads/").split('?').next().unwrap();
            let number: usize = number.parse().unwrap();
            let parts: Vec<_> =
                kept.parts.range((number, 0)..(number + 1, 0)).map(|(_, part)| part).collect();
            let md5 = |bytes: &[u8]| openssl(dir, "md5 -binary", bytes);
            let sums: Vec<u8> = parts.iter().flat_map(|part| md5(part)).collect();
            let etag: String = md5(&sums).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(query(path, "etag"), Some(&*format!("{etag}-{}", parts.len())));
            let blob = parts.into_iter().flatten().copied().collect::<Vec<u8>>();
            let named = query(path, "digest").unwrap().replace("%3A", ":");
            assert_eq!(digest(&blob), named);
            kept.blobs.insert(named, blob);
            WebReply::new(201, "")
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_key_that_the_registry_knows_opens_it() {
    let registry = Registry::start();
    let weights = noise(16 * MIB + 9);
    let manifest = registry.push("library/m", &[("model", &weights), ("license", b"as you like")]);
    let kept: Arc<Mutex<Kept>> = Arc::default();
    let (keeps, dir) = (Arc::clone(&kept), tempfile::tempdir().unwrap());
    // As the proxy of the environment it is every host there is.
    let server = WebServer::start(move |request, stream| {
        let reply = answer(&mut keeps.lock().unwrap(), dir.path(), &request);
        let _ = stream.write_all(reply.head(reply.message.body.len()).as_bytes());
        let _ = stream.write_all(&reply.message.body);
    });
    let through = format!("http://{}", server.host());
    let daemon =
        TestDaemon::builder().env("HTTP_PROXY", &through).env("NO_PROXY", "127.0.0.1").start();
    pull(&daemon, &PullParams { name: Some("me/m".into()), ..source(registry.host()) });
    assert!(!daemon.dir().join("state/id_ed25519").exists());

    let params = PushParams { model: "me/m".into(), target: None, insecure: true, request: None };
    let error = refused(daemon.client().call::<ModelPush>(&params), ErrorKind::Network);
    let public = fs::read_to_string(daemon.dir().join("state/id_ed25519.pub")).unwrap();
    assert!(error.hint().is_some_and(|hint| hint.contains(public.trim_end())), "{error:?}");

    kept.lock().unwrap().keys.push(public.split_whitespace().nth(1).unwrap().to_owned());
    daemon.client().call::<ModelPush>(&params).unwrap();
    let kept = kept.lock().unwrap();
    assert!(kept.blobs[&digest(&weights)] == weights, "the content is another");
    assert_eq!(kept.blobs.len(), 3);
    assert_eq!(kept.manifest, manifest.as_bytes());
    assert!(blob_path(&daemon, &weights).exists());
}
