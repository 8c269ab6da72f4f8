//! How many threads to use when the host leaves it open.
//!
//! Matrix products gain nothing from a core's second hardware thread, and decoding single tokens is bound by memory, so
//! more than a handful of cores only adds barriers. The host may choose otherwise with `set_threads`.

use std::collections::HashSet;
use std::path::Path;

/// More rarely helps a single stream.
const MOST: usize = 8;

/// As many as the host says, or as are good if it says 0.
pub(crate) fn number(n: u32) -> i32 {
    if n == 0 { default_count() } else { i32::try_from(n.min(512)).unwrap_or(1) }
}

/// Physical cores, as many as this process may use, up to [`MOST`].
fn default_count() -> i32 {
    // Respects affinity and cgroup quotas, unlike the count in /sys.
    let allowed = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = physical_cores(Path::new("/sys/devices/system/cpu")).unwrap_or(allowed);
    i32::try_from(allowed.min(cores).clamp(1, MOST)).unwrap_or(1)
}

/// Distinct pairs of package and core, as Linux lists them.
fn physical_cores(folder: &Path) -> Option<usize> {
    let read =
        |path: &Path, name: &str| std::fs::read_to_string(path.join("topology").join(name)).ok();
    let cores: HashSet<_> = std::fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter_map(|path| Some((read(&path, "physical_package_id")?, read(&path, "core_id")?)))
        .collect();
    (!cores.is_empty()).then_some(cores.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siblings_count_once() {
        let folder =
            std::env::temp_dir().join(format!("hearth-llama-threads-{}", std::process::id()));
        for (cpu, core) in [("cpu0", "0"), ("cpu1", "1"), ("cpu2", "0"), ("cpu3", "1")] {
            let topology = folder.join(cpu).join("topology");
            std::fs::create_dir_all(&topology).unwrap();
            std::fs::write(topology.join("physical_package_id"), "0\n").unwrap();
            std::fs::write(topology.join("core_id"), core).unwrap();
        }
        assert_eq!(physical_cores(&folder), Some(2));
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(physical_cores(&folder), None);
    }

    #[test]
    fn there_is_always_one() {
        assert!(default_count() >= 1);
    }
}
