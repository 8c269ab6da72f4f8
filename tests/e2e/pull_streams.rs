//! Over how many connections a blob is fetched: as many as the registry rewards.

use crate::pull::{MIB, blob_path, pull, source};
use hearth_tests::{TestDaemon, WebReply, WebRequest, WebServer, digest};
use serde_json::json;
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What is sent before the next look at the rate.
const SENT_BYTES: usize = 64 << 10;
const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// A registry with one blob, that lets through so many bytes a second.
struct SlowRegistry {
    server: WebServer,
    /// The most parts that were on their way at once.
    peak: Arc<AtomicUsize>,
}

/// When what was let through so far is due.
struct Gate {
    due: Mutex<Instant>,
    bytes_per_second: usize,
}

impl Gate {
    fn new(bytes_per_second: usize) -> Arc<Self> {
        Arc::new(Self { due: Mutex::new(Instant::now()), bytes_per_second })
    }

    fn pass(&self, n_bytes: usize) {
        let cost = Duration::from_secs_f64(n_bytes as f64 / self.bytes_per_second as f64);
        let due = {
            let mut due = self.due.lock().unwrap();
            *due = (*due).max(Instant::now()) + cost;
            *due
        };
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

impl SlowRegistry {
    /// `gate` gives each connection what it passes.
    fn start(blob: Vec<u8>, gate: impl Fn() -> Arc<Gate> + Send + Sync + 'static) -> Self {
        let peak = Arc::new(AtomicUsize::new(0));
        let (config, now, most) = (b"{}", AtomicUsize::new(0), Arc::clone(&peak));
        let manifest = json!({
            "schemaVersion": 2,
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "digest": digest(config), "size": config.len(),
            },
            "layers": [{
                "mediaType": "application/vnd.ollama.image.model",
                "digest": digest(&blob), "size": blob.len(),
            }],
        });
        let (manifest, config_path) = (manifest.to_string(), digest(config));
        let server = WebServer::start(move |request, stream| {
            if request.path.contains("/manifests/") {
                let mut reply = WebReply::new(200, "");
                reply.message.headers.insert("content-type".into(), MANIFEST.into());
                let _ = stream.write_all(reply.head(manifest.len()).as_bytes());
                let _ = stream.write_all(manifest.as_bytes());
            } else if request.path.ends_with(&config_path) {
                let _ = stream.write_all(WebReply::new(200, "").head(config.len()).as_bytes());
                let _ = stream.write_all(config);
            } else {
                most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                let _ = send_part(&request, &blob, &gate(), stream);
                now.fetch_sub(1, Ordering::Relaxed);
            }
        });
        Self { server, peak }
    }
}

fn send_part(
    request: &WebRequest,
    blob: &[u8],
    gate: &Gate,
    stream: &mut TcpStream,
) -> std::io::Result<()> {
    let range = request.message.headers["range"].strip_prefix("bytes=").unwrap();
    let (first, last) = range.split_once('-').unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    let mut reply = WebReply::new(206, "");
    let range = format!("bytes {first}-{last}/{}", blob.len());
    reply.message.headers.insert("content-range".into(), range);
    stream.write_all(reply.head(last + 1 - first).as_bytes())?;
    for piece in blob[first..=last].chunks(SENT_BYTES) {
        gate.pass(piece.len());
        stream.write_all(piece)?;
    }
    Ok(())
}

/// Pulls a blob of so many parts, and gives the most that were on their way at once.
fn peak(n_parts: usize, gate: impl Fn() -> Arc<Gate> + Send + Sync + 'static) -> usize {
    let blob: Vec<u8> =
        (0..n_parts * 32).flat_map(|part| vec![part.to_le_bytes()[0]; MIB]).collect();
    let registry = SlowRegistry::start(blob.clone(), gate);
    let daemon = TestDaemon::start();
    pull(&daemon, &source(&registry.server.host()));
    assert!(fs::read(blob_path(&daemon, &blob)).unwrap() == blob, "the content is another");
    registry.peak.load(Ordering::Relaxed)
}

#[test]
fn more_connections_are_opened_where_each_brings_its_own() {
    // In each second of a single one there is time to find out; a disturbed rate is measured again after ten.
    let peak = peak(4, || Gate::new(6 * MIB));
    assert!((3..=4).contains(&peak), "{peak}");
}

#[test]
fn few_are_opened_where_more_bring_nothing() {
    // There is time enough for all eight, were they thought to help.
    let gate = Gate::new(48 * MIB);
    let peak = peak(9, move || Arc::clone(&gate));
    assert!(peak < 8, "{peak}");
}
