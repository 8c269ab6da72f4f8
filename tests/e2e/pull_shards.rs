//! Models that come in parts, from what looks like Hugging Face and from a URL.

use crate::pull::{params, partials, pull};
use hearth_gguf::testing::split;
use hearth_tests::{TestDaemon, WebReply, WebRequest, WebServer, digest, reference_model};
use serde_json::json;
use std::fs;
use std::io::Write;
use std::sync::{Arc, Mutex};

const N_PARTS: usize = 3;

fn file(number: usize) -> String {
    format!("Q8_0/Big-Q8_0-{number:05}-of-{N_PARTS:05}.gguf")
}

/// Hugging Face as far as a pull of such a model sees it.
fn answer(parts: &[Vec<u8>], request: &WebRequest) -> WebReply {
    let path = request.path.trim_start_matches("http://huggingface.co");
    if path.starts_with("/v2/") {
        let error = "The specified repository contains sharded GGUF.";
        return WebReply::new(400, json!({ "error": error }).to_string());
    }
    if path == "/api/models/user/big-GGUF/tree/main?recursive=true" {
        let listed = (1..).zip(parts).map(|(number, part)| {
            let oid = digest(part).replace("sha256:", "");
            let lfs = json!({ "oid": oid, "size": part.len(), "pointerSize": 130 });
            json!({ "type": "file", "oid": "0", "size": part.len(), "path": file(number), "lfs": lfs })
        });
        return WebReply::new(200, json!(listed.collect::<Vec<_>>()).to_string());
    }
    let prefix = "/user/big-GGUF/resolve/main/";
    let part = (1..).zip(parts).find(|(number, _)| path == format!("{prefix}{}", file(*number)));
    part.map_or_else(|| WebReply::new(404, ""), |(_, part)| WebReply::new(200, part.clone()))
}

#[test]
fn all_parts_become_one_model_that_runs_and_are_fetched_once() {
    let dir = tempfile::tempdir().unwrap();
    let whole = fs::read(reference_model(dir.path(), "big", &[])).unwrap();
    let parts = split(&whole, N_PARTS);
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let (seen, had) = (Arc::clone(&asked), parts.clone());
    let server = WebServer::start(move |request, stream| {
        seen.lock().unwrap().push(request.path.clone());
        let reply = answer(&had, &request);
        let _ = stream.write_all(reply.head(reply.message.body.len()).as_bytes());
        let _ = stream.write_all(&reply.message.body);
    });
    let n_fetched =
        || asked.lock().unwrap().iter().filter(|path| path.contains("/resolve/")).count();
    let through = format!("http://{}", server.host());
    let daemon =
        TestDaemon::builder().env("HTTP_PROXY", &through).env("NO_PROXY", "127.0.0.1").start();

    let source = params("http://hf.co/user/big-GGUF:Q8_0".into());
    let pulled = pull(&daemon, &source);
    assert_eq!((&*pulled.name, n_fetched()), ("hf.co/user/big-GGUF:Q8_0", N_PARTS));
    daemon.ctl(["run", &pulled.name, "hello", "--max-tokens", "3"]).ok();
    assert_eq!(partials(&daemon), 0);
    // The parts are not kept: the weights and the config are all there is.
    assert_eq!(fs::read_dir(daemon.dir().join("models/blobs")).unwrap().count(), 2);
    assert_eq!(pull(&daemon, &source), pulled);
    assert_eq!(n_fetched(), N_PARTS);

    // What was made of them is repaired by making it again.
    let blobs = fs::read_dir(daemon.dir().join("models/blobs")).unwrap();
    let weights =
        blobs.map(|blob| blob.unwrap().path()).max_by_key(|path| fs::metadata(path).unwrap().len());
    let weights = weights.unwrap();
    let right = fs::read(&weights).unwrap();
    fs::write(&weights, "short").unwrap();
    daemon.ctl(["verify", "--repair"]).ok();
    assert_eq!(fs::read(&weights).unwrap(), right);

    // The same from a URL of any of them. The name is another, the weights are not.
    let url = format!("http://{}/user/big-GGUF/resolve/main/{}", server.host(), file(2));
    let pulled = pull(&daemon, &params(url));
    assert_eq!(pulled.name, "big-q8_0:latest");
    assert_eq!(fs::read_dir(daemon.dir().join("models/blobs")).unwrap().count(), 2);
}
