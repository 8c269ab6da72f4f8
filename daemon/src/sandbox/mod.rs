//! What a process that runs a plugin may do, whatever the plugin, or the file it reads, makes of it.
//!
//! It reads the plugin's folder, the system's libraries, the files of its model and some facts about the machine; it writes
//! nothing, unless it quantizes; it has the sockets and pipes that the daemon gave it and opens no other, and it starts no
//! program. Landlock keeps the files and seccomp the rest. Both are put on before the plugin is loaded and before there is a
//! second thread, and can never be taken off.
//!
//! **Invariant.** Where the sandbox is wanted and the kernel does not keep all of it, the plugin is not loaded.

#[cfg(target_os = "linux")]
mod calls;
#[cfg(target_os = "linux")]
mod files;

use hearth_protocol::{ErrorKind, RpcError};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What is allowed beyond what every plugin needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sandbox {
    /// Read, written and asked by ioctl: a GPU's device files, say.
    pub(crate) devices: Vec<PathBuf>,
}

impl Sandbox {
    /// Shuts this process in, before it loads `plugin` to work on `read`. What it makes comes into the folder of `written`.
    pub(crate) fn enter(
        &self,
        plugin: &Path,
        read: &[PathBuf],
        written: Option<&Path>,
    ) -> Result<(), RpcError> {
        self.restrict(plugin, read, written).map_err(|error| {
            let message = format!("the sandbox for a plugin cannot be put on: {error:#}");
            RpcError::new(ErrorKind::LoadFailed, message).with_hint(
                "it takes a kernel with Landlock and seccomp, and a service manager that allows both; with `sandbox.on = false` in \
                 the configuration, a hostile model could do what the daemon's user can",
            )
        })
    }

    #[cfg(target_os = "linux")]
    fn restrict(
        &self,
        plugin: &Path,
        read: &[PathBuf],
        written: Option<&Path>,
    ) -> anyhow::Result<()> {
        files::restrict(self, plugin, read, written)?;
        calls::restrict(written.is_some())
    }

    #[cfg(not(target_os = "linux"))]
    fn restrict(&self, _: &Path, _: &[PathBuf], _: Option<&Path>) -> anyhow::Result<()> {
        anyhow::bail!("there is none for this system")
    }
}
