//! Where the log goes: to journald when systemd started us, otherwise readable lines on standard error.
//!
//! Only our own crates are listened to below `warn`: what jsonrpsee and hyper say at `debug` and `trace` repeats requests,
//! and requests are people's words.

use std::io::IsTerminal;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// What is logged, which may be changed. The default is nothing, for ever.
#[derive(Debug, Clone, Default)]
pub(crate) struct Level(Option<reload::Handle<EnvFilter, Registry>>);

impl Level {
    /// Logs at a level such as `info` from now on.
    pub(crate) fn set(&self, level: &str) -> anyhow::Result<()> {
        let filter = filter(level)?;
        Ok(self.0.as_ref().map_or(Ok(()), |handle| handle.reload(filter))?)
    }
}

/// Sets up logging at a level such as `info`.
pub(crate) fn init(level: &str) -> anyhow::Result<Level> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let layer = match journald() {
        Some(journald) => journald,
        None => readable(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).init();
    Ok(Level(Some(handle)))
}

fn filter(level: &str) -> anyhow::Result<EnvFilter> {
    let level = match level {
        "error" | "warn" | "info" | "debug" => level,
        other => {
            anyhow::bail!("`log` is `{other}`, and must be `error`, `warn`, `info` or `debug`")
        }
    };
    let filter = format!("warn,hearthd={level},hearth_engine={level},hearth_store={level}");
    Ok(EnvFilter::try_new(filter)?)
}

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

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
