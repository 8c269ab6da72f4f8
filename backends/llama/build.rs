//! Compiles the C++ shim and llama.cpp's library for images against llama.cpp's own source, and records which modules belong to
//! this build.
//!
//! Both paths come from the folder that llama-cpp-sys-2 built in, which cargo hands to direct dependents as
//! `DEP_LLAMA_BACKENDS_DIR`; CMake's cache beside it knows where the source is.

#[path = "src/build_id.rs"]
mod build_id;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/build_id.rs");
    println!("cargo:rerun-if-changed=src/shim");
    let modules = env_path("DEP_LLAMA_BACKENDS_DIR");
    println!("cargo:rerun-if-changed={}", modules.display());
    write_pins(&modules, &env_path("OUT_DIR").join("pins.rs"));
    let built = modules.parent().expect("the backends folder has a parent");
    let source = source_of(&built.join("build/CMakeCache.txt"));
    compile_shim(&source);
    compile_mtmd(&source, &env_path("OUT_DIR").join("mtmd_models.cpp"));
}

fn env_path(name: &str) -> PathBuf {
    std::env::var_os(name).unwrap_or_else(|| panic!("cargo did not set {name}")).into()
}

/// `CMAKE_HOME_DIRECTORY:INTERNAL=<path>` is llama.cpp's source, as CMake was given it.
fn source_of(cache: &Path) -> PathBuf {
    let text = std::fs::read_to_string(cache)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", cache.display()));
    text.lines()
        .find_map(|line| line.strip_prefix("CMAKE_HOME_DIRECTORY:INTERNAL="))
        .unwrap_or_else(|| panic!("{} names no source folder", cache.display()))
        .into()
}

fn compile_shim(source: &Path) {
    let mut build = cpp(source, &[".", "common", "tools/mtmd"]);
    build.files([
        "src/shim/buffers.cpp",
        "src/shim/chat.cpp",
        "src/shim/engine.cpp",
        "src/shim/images.cpp",
        "src/shim/kernels.cpp",
        "src/shim/linked.cpp",
        "src/shim/mtp.cpp",
        "src/shim/quantize.cpp",
        "src/shim/tools.cpp",
        "src/shim/walk.cpp",
    ]);
    build.warnings(true).extra_warnings(true).compile("hearth_llama_shim");
}

/// llama.cpp's library for images, which its own build makes only together with its programs. `models` is written: one file
/// for all architectures, because nearly all time goes into the headers that they share.
fn compile_mtmd(source: &Path, models: &Path) {
    let folder = source.join("tools/mtmd");
    let listed = std::fs::read_dir(folder.join("models"))
        .unwrap_or_else(|error| panic!("cannot list {}: {error}", folder.display()));
    let mut files: Vec<PathBuf> =
        listed.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "cpp"));
    files.sort();
    let lines = files.iter().map(|file| format!("#include \"{}\"\n", file.display()));
    std::fs::write(models, lines.collect::<String>()).expect("writing to OUT_DIR");
    let mut build = cpp(source, &["tools/mtmd"]);
    for file in ["clip.cpp", "mtmd.cpp", "mtmd-audio.cpp", "mtmd-image.cpp"] {
        build.file(folder.join(file));
    }
    // Without what a debugger wants, which would be twice the plugin.
    build.file(models).warnings(false).debug(false).compile("hearth_llama_mtmd");
}

/// A compiler of C++ with llama.cpp's headers, and those of these folders.
fn cpp(source: &Path, folders: &[&str]) -> cc::Build {
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").pic(true);
    // `.` comes first, so that `common/chat.h` cannot be mistaken for the shim's own `chat.h`.
    for folder in folders.iter().chain(&["include", "ggml/include", "ggml/src", "src", "vendor"]) {
        // As system headers, so that warnings are about our lines alone.
        build.flag("-isystem").flag(source.join(folder));
    }
    build.define("LLAMA_SHARED", None).define("GGML_SHARED", None);
    // llama-cpp-sys-2 already links the C++ library.
    build.flag("-fvisibility=hidden").cpp_link_stdlib(None);
    build
}

fn write_pins(modules: &Path, target: &Path) {
    let folder = std::fs::read_dir(modules).unwrap_or_else(|error| {
        panic!("cannot list llama.cpp's modules in {}: {error}", modules.display())
    });
    let mut paths: Vec<PathBuf> =
        folder.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    paths.sort();
    let mut text = String::from("&[\n");
    for path in paths {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if !(name.starts_with("libggml-") && name.ends_with(".so")) {
            continue;
        }
        let id =
            build_id::of_file(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        writeln!(text, "    ({name:?}, {id:?}),").expect("writing to a string");
    }
    text.push_str("]\n");
    std::fs::write(target, text).expect("writing to OUT_DIR");
}
