//! Where the log goes: to journald when systemd started us, otherwise readable lines on standard error.
//!
//! Only our own crates are listened to below `warn`: what jsonrpsee and hyper say at `debug` and `trace` repeats requests,
//! and requests are people's words.

use std::io::IsTerminal;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

/// Sets up logging at a level such as `info`.
pub(crate) fn init(level: &str) -> anyhow::Result<()> {
    let level = match level {
        "error" | "warn" | "info" | "debug" => level,
        other => {
            anyhow::bail!("`log` is `{other}`, and must be `error`, `warn`, `info` or `debug`")
        }
    };
    let filter = EnvFilter::try_new(format!(
        "warn,hearthd={level},hearth_engine={level},hearth_store={level}"
    ))?;
    let layer = match journald() {
        Some(journald) => journald,
        None => readable(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).init();
    Ok(())
}

type BoxedLayer = Box<dyn Layer<tracing_subscriber::Registry> + Send + Sync>;

/// Only when standard error is the journal's: systemd names it in this variable, which programs started from a service
/// inherit wherever their own standard error goes.
fn journald() -> Option<BoxedLayer> {
    let journal = std::env::var("JOURNAL_STREAM").ok()?;
    let stderr = rustix::fs::fstat(std::io::stderr()).ok()?;
    if journal != format!("{}:{}", stderr.st_dev, stderr.st_ino) {
        return None;
    }
    Some(tracing_journald::layer().ok()?.with_syslog_identifier("hearthd".into()).boxed())
}

fn readable() -> BoxedLayer {
    let colour = std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    fmt::layer().with_writer(std::io::stderr).with_ansi(colour).with_target(false).boxed()
}
