//! Which files, by Landlock.

use super::Sandbox;
use anyhow::bail;
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope, path_beneath_rules,
};
use std::path::{Path, PathBuf};

/// Shared libraries, and what the C library reads beside them.
const LIBRARIES: [&str; 9] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/nix/store",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/usr/share/zoneinfo",
];

/// Processors, memory, and how busy they are.
const MACHINE: [&str; 6] = [
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys/vm",
    "/sys/devices/system",
    "/sys/fs/cgroup",
];

const PLAIN_DEVICES: [&str; 3] = ["/dev/null", "/dev/zero", "/dev/urandom"];

/// What the first kernel with Landlock can keep, and this sandbox promises. What newer ones can besides is asked of them;
/// where they cannot, `calls` has what matters of it.
const PROMISED: ABI = ABI::V1;
const WANTED: ABI = ABI::V6;

pub(super) fn restrict(
    sandbox: &Sandbox,
    plugin: &Path,
    read: &[PathBuf],
    written: Option<&Path>,
) -> anyhow::Result<()> {
    let reads = AccessFs::ReadFile | AccessFs::ReadDir;
    let everything = AccessFs::from_all(WANTED);
    let folder = |path: &Path| path.parent().map(Path::to_path_buf);
    let libraries = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let own = PathBuf::from(format!("/proc/{}", std::process::id()));
    let to_read = LIBRARIES
        .into_iter()
        .chain(MACHINE)
        .map(PathBuf::from)
        .chain(std::env::split_paths(&libraries).filter(|path| path.is_absolute()))
        .chain(folder(plugin))
        .chain(read.iter().cloned())
        .chain([own]);
    let devices: BitFlags<_> = reads | AccessFs::WriteFile | AccessFs::IoctlDev;
    let devices_of = PLAIN_DEVICES.into_iter().map(PathBuf::from).chain(sandbox.devices.clone());
    let created = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(PROMISED))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(everything)?
        .handle_access(AccessNet::from_all(WANTED))?
        .scope(Scope::from_all(WANTED))?
        .create()?;
    let status = created
        .add_rules(path_beneath_rules(to_read, reads))?
        .add_rules(path_beneath_rules(devices_of, devices))?
        .add_rules(path_beneath_rules(written.and_then(folder), everything & !AccessFs::Execute))?
        .restrict_self()?;
    if status.ruleset == RulesetStatus::NotEnforced {
        bail!("this kernel has no Landlock, or something forbids it");
    }
    Ok(())
}
