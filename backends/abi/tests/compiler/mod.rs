//! The C and C++ compilers of the machine the tests run on.

#![allow(dead_code)] // Each test program uses its part.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) const CC: bool = false;
pub(crate) const CXX: bool = true;

/// Folder of this crate, also for the tests of other crates that include this file.
pub(crate) fn abi_dir() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../abi")).canonicalize().unwrap()
}

/// Compiles a source text into `output`, with the header's folder on the include path.
pub(crate) fn compile(cpp: bool, source: &str, output: &Path, mode: &[&str], flags: &[&str]) {
    let file = output.with_extension(if cpp { "cpp" } else { "c" });
    std::fs::write(&file, source).unwrap();
    compile_file(cpp, &file, output, mode, flags);
}

/// Compiles a plugin as the head of `examples/minimal.c` says, without a warning.
pub(crate) fn compile_plugin(source: &Path, output: &Path, flags: &[&str]) {
    let mode = [
        "-std=c11",
        "-Wall",
        "-Wextra",
        "-pedantic",
        "-Werror",
        "-shared",
        "-fPIC",
        "-fvisibility=hidden",
    ];
    compile_file(CC, source, output, &mode, flags);
    // Where new files are writable by the group, the loader would refuse this one.
    std::fs::set_permissions(output, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn compile_file(cpp: bool, source: &Path, output: &Path, mode: &[&str], flags: &[&str]) {
    let system = if cfg!(target_os = "macos") { "apple-darwin" } else { "unknown-linux-gnu" };
    let triple = format!("{}-{system}", std::env::consts::ARCH);
    // The cc crate is made for build scripts; outside of one it must be told what cargo would have said.
    let compiler = cc::Build::new()
        .cpp(cpp)
        .target(&triple)
        .host(&triple)
        .opt_level(0)
        .cargo_metadata(false)
        .get_compiler();
    let mut command = Command::new(compiler.path());
    command
        .args(mode)
        .args(flags)
        .arg("-I")
        .arg(abi_dir().join("include"))
        .arg("-o")
        .arg(output)
        .arg(source);
    let result = command.output().unwrap();
    assert!(result.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&result.stderr));
}
