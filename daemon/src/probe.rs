//! `hearthd probe FILE`: loads one plugin, lists its devices as JSON, and ends.

use crate::plugin;
use crate::sandbox::Sandbox;
use hearth_abi::host::LoadError;
use hearth_abi::{DeviceInfo, DeviceKind};
use hearth_protocol::Device;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::Path;

/// What a probe prints.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub(crate) enum ProbeReport {
    /// It can run models on these.
    Works { name: String, version: String, description: String, devices: Vec<ProbedDevice> },
    /// It is a plugin, and there is no hardware for it.
    NoDevice { reason: String },
    /// It is no plugin that may be loaded.
    Refused { reason: String },
}

/// A device of a probed plugin.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ProbedDevice {
    id: String,
    name: String,
    kind: String,
    detail: String,
    memory_total: u64,
    memory_free: u64,
}

impl From<DeviceInfo> for ProbedDevice {
    fn from(device: DeviceInfo) -> Self {
        let kind = match device.kind {
            DeviceKind::Cpu => "cpu",
            DeviceKind::Gpu => "gpu",
            DeviceKind::IntegratedGpu => "integrated_gpu",
            DeviceKind::Accelerator => "accelerator",
        };
        Self {
            id: device.id,
            name: device.name,
            kind: kind.into(),
            detail: device.detail,
            memory_total: device.memory_total,
            memory_free: device.memory_free,
        }
    }
}

impl From<ProbedDevice> for Device {
    fn from(device: ProbedDevice) -> Self {
        let ProbedDevice { id, name, kind, detail, memory_total, memory_free } = device;
        Self { id, name, kind, detail, memory_total, memory_free }
    }
}

/// Probes one file and prints the report.
pub fn run(file: &Path, sandbox: Option<&str>) -> anyhow::Result<()> {
    let sandbox: Option<Sandbox> = sandbox.map(serde_json::from_str).transpose()?;
    let shut_in = sandbox.map_or(Ok(()), |sandbox| sandbox.enter(file, &[], None));
    let report = match shut_in {
        Ok(()) => probe(file),
        Err(error) => ProbeReport::Refused { reason: error.message },
    };
    let mut stdout = std::io::stdout().lock();
    serde_json::to_writer(&mut stdout, &report)?;
    stdout.write_all(b"\n")?;
    Ok(())
}

fn probe(file: &Path) -> ProbeReport {
    match plugin::load(file, Box::new(|_, _| {})) {
        Ok(plugin) => match plugin.devices() {
            Ok(devices) => ProbeReport::Works {
                name: plugin.name(),
                version: plugin.version(),
                description: plugin.description(),
                devices: devices.into_iter().map(Into::into).collect(),
            },
            Err(error) => ProbeReport::NoDevice { reason: error.message },
        },
        Err(LoadError::InitFailed { reason, .. }) => {
            ProbeReport::NoDevice { reason: reason.message }
        }
        Err(error) => ProbeReport::Refused { reason: error.to_string() },
    }
}
