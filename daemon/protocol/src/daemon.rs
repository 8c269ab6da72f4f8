//! The daemon itself: its state, its backends, and stopping a request.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// No parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

/// Result of `daemon.status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Where it listens.
    pub socket: String,
    /// Where it listens for HTTP beside that, as addresses with ports, after `https://` where that takes TLS.
    #[serde(default)]
    pub http: Vec<String>,
    /// Where models are.
    pub models_dir: String,
    /// False while the hardware is still being probed.
    pub probed: bool,
    /// The backend that models are loaded with; absent while probing, or when none can run here.
    pub backend: Option<String>,
    /// Models loaded now.
    pub loaded_models: u32,
    /// Requests running or waiting now.
    pub active_requests: u32,
    /// Bytes of memory the daemon itself takes, workers not counted.
    pub rss_bytes: u64,
}

/// Result of `daemon.reload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reloaded {
    /// Keys of the configuration that changed and are not changed here before the daemon is restarted.
    pub needs_restart: Vec<String>,
}

/// Result of `backend.list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BackendList {
    /// Every plugin file found, and every backend this build knows of that was not found; the chosen one first.
    pub backends: Vec<Backend>,
}

/// Whether a backend can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BackendState {
    /// Models are loaded with this one.
    Chosen,
    /// It works; another one is preferred.
    Ready,
    /// There is no such file, or no device for it.
    Absent,
    /// The file is no plugin that may be loaded.
    Refused,
    /// Its probe ended badly or took too long.
    Crashed,
}

/// One backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Backend {
    /// Such as `cpu`.
    pub name: String,
    /// Whether it can be used.
    pub state: BackendState,
    /// Why it is in that state, for a person.
    pub reason: String,
    /// The plugin's own version; empty when unknown.
    pub version: String,
    /// One line about it; empty when unknown.
    pub description: String,
    /// The file; empty when there is none.
    pub path: String,
    /// Hardware it can run on.
    pub devices: Vec<Device>,
}

/// Hardware a backend can run on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Device {
    /// Stable over restarts.
    pub id: String,
    /// For a person.
    pub name: String,
    /// `cpu`, `gpu`, `integrated_gpu` or `accelerator`.
    pub kind: String,
    /// What was chosen and why, such as the CPU variant.
    pub detail: String,
    /// Bytes; 0 when unknown.
    pub memory_total: u64,
    /// Bytes; 0 when unknown.
    pub memory_free: u64,
}

/// Parameters of `cancel`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelParams {
    /// The name from the `accepted` event or the caller's own.
    pub request: String,
}

/// Parameters of `chat.end_thinking`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndThinkingParams {
    /// The name from the `accepted` event or the caller's own.
    pub request: String,
}

/// Result of `cancel`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cancelled {
    /// Always true; a request that does not run is an error.
    pub cancelled: bool,
}
