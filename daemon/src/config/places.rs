//! Where things are: as the command line says, the file, the service manager or the environment, and else at the usual places.

use crate::cli::RunArgs;
use anyhow::bail;
use std::path::PathBuf;

/// The file named, or the first of the usual ones that exists.
pub(super) fn config_file(args: &RunArgs) -> Option<PathBuf> {
    if args.config.is_some() {
        return args.config.clone();
    }
    let own = rustix::process::geteuid().is_root();
    let user = dir("XDG_CONFIG_HOME", ".config").map(|dir| dir.join("hearth/hearth.toml"));
    let system = PathBuf::from("/etc/hearth/hearth.toml");
    let usual = if own { vec![system] } else { user.into_iter().chain([system]).collect() };
    usual.into_iter().find(|path| path.exists())
}

pub(super) fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// `$variable`, or a folder in the home directory.
fn dir(variable: &str, in_home: &str) -> Option<PathBuf> {
    env(variable).map(PathBuf::from).or_else(|| Some(PathBuf::from(env("HOME")?).join(in_home)))
}

pub(super) fn default_socket() -> anyhow::Result<PathBuf> {
    // systemd's RUNTIME_DIRECTORY may name several folders; the first is ours.
    let runtime =
        env("RUNTIME_DIRECTORY").and_then(|dirs| dirs.split(':').next().map(PathBuf::from));
    if let Some(dir) = runtime {
        return Ok(dir.join("hearth.sock"));
    }
    if rustix::process::geteuid().is_root() {
        return Ok(hearth_protocol::SYSTEM_SOCKET.into());
    }
    match env("XDG_RUNTIME_DIR") {
        Some(dir) => Ok(PathBuf::from(dir).join("hearth/hearth.sock")),
        None => bail!(
            "there is no place for the socket: `XDG_RUNTIME_DIR` is not set\nhint: name one with `--socket PATH`"
        ),
    }
}

/// The one that the command line or the service manager names.
fn named_state_dir(args: &RunArgs) -> Option<PathBuf> {
    let managed = || env("STATE_DIRECTORY")?.split(':').next().map(PathBuf::from);
    args.state_dir.clone().or_else(managed)
}

pub(super) fn state_dir(args: &RunArgs) -> Option<PathBuf> {
    named_state_dir(args).or_else(|| {
        if rustix::process::geteuid().is_root() {
            return Some("/var/lib/hearth".into());
        }
        Some(dir("XDG_STATE_HOME", ".local/state")?.join("hearth"))
    })
}

/// In the state folder, or a user's own, which Ollama uses too.
pub(super) fn key_file(args: &RunArgs) -> Option<PathBuf> {
    let dir = if named_state_dir(args).is_some() || rustix::process::geteuid().is_root() {
        state_dir(args)
    } else {
        env("HOME").map(|home| PathBuf::from(home).join(".ollama"))
    };
    dir.map(|dir| dir.join("id_ed25519"))
}

pub(super) fn models_dir(args: &RunArgs, file: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    if let Some(dir) =
        args.models.clone().or(file).or_else(|| env("OLLAMA_MODELS").map(PathBuf::from))
    {
        return Ok(dir);
    }
    if let Some(dir) = named_state_dir(args) {
        return Ok(dir.join("models"));
    }
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/hearth/models".into());
    }
    match env("HOME") {
        // Where Ollama keeps a user's models: they work as they are.
        Some(home) => Ok(PathBuf::from(home).join(".ollama/models")),
        None => bail!(
            "there is no place for models: `HOME` is not set\nhint: name one with `--models DIR`"
        ),
    }
}

/// Folders with plugins: those named, or the packaged one and the one beside the executable.
pub(super) fn backend_dirs(args: &RunArgs, file: Option<Vec<PathBuf>>) -> Vec<PathBuf> {
    if !args.backends.is_empty() {
        return args.backends.clone();
    }
    if let Some(dirs) = std::env::var_os("HEARTH_BACKENDS").filter(|dirs| !dirs.is_empty()) {
        return std::env::split_paths(&dirs).collect();
    }
    if let Some(dirs) = file {
        return dirs;
    }
    let beside = std::env::current_exe().ok().and_then(|exe| {
        let folder = exe.parent()?;
        // In the build tree the plugins are staged beside the profile's folder.
        Some([
            folder.join("backends"),
            folder.parent()?.join("backends"),
            folder.parent()?.join("lib/hearth/backends"),
        ])
    });
    let packaged = [
        PathBuf::from("/usr/lib/hearth/backends"),
        PathBuf::from("/usr/local/lib/hearth/backends"),
    ];
    let mut dirs: Vec<PathBuf> =
        beside.into_iter().flatten().chain(packaged).filter(|dir| dir.is_dir()).collect();
    dirs.dedup();
    dirs
}
