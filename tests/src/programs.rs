//! Where the programs, plugins and models under test are. `./dev test` builds and names them all; a test that finds one
//! missing fails and says so, and is never skipped.

use std::path::{Path, PathBuf};

/// The checkout.
pub fn repository() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).canonicalize().unwrap()
}

/// The daemon.
pub fn hearthd_path() -> PathBuf {
    program("hearthd")
}

/// The client.
pub fn ctl_path() -> PathBuf {
    program("ctl")
}

/// A folder with the reference plugin and nothing else.
pub fn reference_plugins() -> PathBuf {
    env_path("HEARTH_TEST_REFERENCE")
}

/// A file or folder that `./dev test` names in an environment variable.
pub fn env_path(variable: &str) -> PathBuf {
    let path = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.exists());
    match path {
        Some(path) => path.canonicalize().unwrap(),
        None => panic!(
            "`{variable}` names nothing that exists\nhint: run `./dev test`, or one test with `./dev test NAME`: it builds, fetches and names what tests need"
        ),
    }
}

/// Cargo links programs into the target folder; test executables may lie in a build folder elsewhere.
fn program(name: &str) -> PathBuf {
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    let target = std::env::var_os("CARGO_TARGET_DIR").map(|dir| PathBuf::from(dir).join(profile));
    let beside = std::env::current_exe().unwrap();
    let folders = [target.as_deref(), beside.parent().and_then(Path::parent)];
    let found =
        folders.into_iter().flatten().map(|folder| folder.join(name)).find(|path| path.exists());
    match found {
        Some(path) => path.canonicalize().unwrap(),
        None => panic!("`{name}` is not built\nhint: run `./dev test`, which builds it first"),
    }
}
