//! Makes one object of the CPU plugin, llama.cpp and some of ggml's CPU modules, which exports nothing but the plugin's entry.
//!
//! All of it was compiled for `libhearth_cpu.so` and is put together here in another way; nothing is compiled twice. `./dev`
//! says where it is:
//!
//! * `HEARTH_LINKED_PLUGIN`: `libhearth_cpu.a`, hearth-cpu as a static library
//! * `HEARTH_LINKED_ENGINE`: the folder that llama-cpp-sys-2 built in
//! * `HEARTH_LINKED_LICENCES`: the licences of the whole program, packed by gzip
//!
//! The modules of a family define the same symbols, compiled for different processors. So each becomes an object of its own, in
//! which every symbol but its entry is local; inline functions too, or a baseline processor might run one with AVX-512.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Of the 14 x86 modules those that matter most: each is more than a megabyte. Of other processors, all.
const X86: [&str; 3] = ["x64", "haswell", "icelake"];

/// What a module exports, and what it is called here.
const EXPORTS: [(&str, &str); 6] = [
    ("ggml_backend_init", "init"),
    ("ggml_backend_score", "score"),
    ("_Z39ggml_backend_cpu_get_extra_buffer_typesv", "buffer_types"),
    ("ggml_barrier", "barrier"),
    ("ggml_threadpool_chunk_set", "chunk_set"),
    ("ggml_threadpool_chunk_add", "chunk_add"),
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let plugin = input("HEARTH_LINKED_PLUGIN");
    let engine = input("HEARTH_LINKED_ENGINE");
    let licences = input("HEARTH_LINKED_LICENCES");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let (Some(plugin), Some(engine), Some(licences)) = (plugin, engine, licences) else {
        std::fs::write(out.join("licences.gz"), []).expect("OUT_DIR can be written");
        println!(
            "cargo:warning=`./dev onefile` builds this; here it can be checked, and not linked"
        );
        return;
    };
    std::fs::copy(&licences, out.join("licences.gz")).expect("the licences can be copied");
    let built = engine.join("build");
    let modules = modules(&built.join("ggml/src/CMakeFiles"));
    assert!(!modules.is_empty(), "{} has no CPU modules", built.display());
    let mut parts: Vec<_> =
        modules.iter().map(|(name, folders)| module(&out, name, folders)).collect();
    parts.push(table(&out, modules.iter().map(|(name, _)| name.as_str())));
    let rest = archive(&out, &built);
    let wrapper = engine.join("libllama_cpp_sys_2_common_wrapper.a");
    let whole = out.join("whole.o");
    let kept = out.join("hearth_linked_cpu.o");
    // A module's table names what belongs to it, so that what nobody needs of llama.cpp is left out.
    run(Command::new("ld")
        .args(["-r", "--gc-sections", "--force-group-allocation", "-u", "hearth_plugin_entry"])
        .arg("-o")
        .arg(&whole)
        .args(&parts)
        .arg("--start-group")
        .args([&plugin, &rest, &wrapper])
        .arg("--end-group"));
    // Rust's own library brings its intermediate code along, of which the linker would want to make something.
    run(Command::new("objcopy")
        .args(["--strip-debug", "--remove-section=.llvmbc", "--remove-section=.llvmcmd"])
        .arg(&whole));
    run(objcopy(&whole, "all")
        .arg("--keep-global-symbol=hearth_plugin_entry")
        .args([&whole, &kept]));
    let library = out.join("libhearth_linked_cpu.a");
    let _ = std::fs::remove_file(&library);
    run(Command::new("ar").arg("rcsD").args([&library, &kept]));
    println!("cargo:rustc-link-search=native={}", out.display());
    for library in ["stdc++", "gomp"] {
        println!("cargo:rustc-link-lib={library}");
    }
}

fn input(variable: &str) -> Option<PathBuf> {
    println!("cargo:rerun-if-env-changed={variable}");
    let path = PathBuf::from(std::env::var_os(variable)?);
    println!("cargo:rerun-if-changed={}", path.display());
    Some(path)
}

/// Name and folders of each module's objects, the plainest first: of equals the first is taken.
fn modules(built: &Path) -> Vec<(String, Vec<PathBuf>)> {
    let is_x86 = std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64");
    let all = read(built).into_iter().filter_map(|folder| {
        let name = folder.file_name()?.to_str()?.strip_prefix("ggml-cpu-")?.strip_suffix(".dir")?;
        (!name.ends_with("-feats")).then(|| name.to_owned())
    });
    let names: Vec<String> = if is_x86 { X86.map(String::from).to_vec() } else { all.collect() };
    let folders = |name: &String| {
        let both = ["", "-feats"].map(|kind| built.join(format!("ggml-cpu-{name}{kind}.dir")));
        both.into_iter().filter(|folder| folder.is_dir()).collect()
    };
    names.into_iter().map(|name| (name.clone(), folders(&name))).collect()
}

/// One object of a module's, in which everything but what it exports is local.
fn module(out: &Path, name: &str, folders: &[PathBuf]) -> PathBuf {
    let (whole, kept) = (out.join(format!("{name}-whole.o")), out.join(format!("{name}.o")));
    run(Command::new("ld")
        .args(["-r", "--force-group-allocation", "-o"])
        .arg(&whole)
        .args(folders.iter().flat_map(|folder| objects(folder))));
    let mut objcopy = objcopy(&whole, name);
    for (symbol, own) in EXPORTS {
        objcopy.arg(format!("--redefine-sym={symbol}=hearth_linked_{name}_{own}"));
        objcopy.arg(format!("--keep-global-symbol=hearth_linked_{name}_{own}"));
    }
    run(objcopy.args([&whole, &kept]));
    kept
}

/// An objcopy that takes the names from the C++ library's constants, of which the linker keeps one in a whole process:
/// nobody outside needs them, and to make symbols local leaves them out.
fn objcopy(object: &Path, prefix: &str) -> Command {
    let output = Command::new("nm").arg(object).output().expect("nm starts");
    assert!(output.status.success(), "nm {} ended with {}", object.display(), output.status);
    let text = String::from_utf8(output.stdout).expect("symbols are text");
    let mut objcopy = Command::new("objcopy");
    for (_, symbol) in text.lines().filter_map(|line| line.split_once(" u ")) {
        objcopy.arg(format!("--redefine-sym={symbol}=hearth_linked_{prefix}_{symbol}"));
    }
    objcopy
}

/// The list of the modules; see `backends/llama/src/shim/engine.h`.
fn table<'a>(out: &Path, names: impl Iterator<Item = &'a str> + Clone) -> PathBuf {
    let mut text = String::from(
        "struct module { const char *name; void *(*init)(void); int (*score)(void); void (*kernels[4])(void); };\n",
    );
    for name in names.clone() {
        let of = |own: &str| format!("hearth_linked_{name}_{own}");
        let _ = writeln!(text, "void *{}(void); int {}(void);", of("init"), of("score"));
        for (_, own) in &EXPORTS[2..] {
            let _ = writeln!(text, "void {}(void);", of(own));
        }
    }
    text.push_str("__attribute__((visibility(\"default\"))) const struct module hearth_linked_modules[] = {\n");
    for name in names {
        let of = |own: &str| format!("hearth_linked_{name}_{own}");
        let kernels: Vec<_> = EXPORTS[2..].iter().map(|(_, own)| of(own)).collect();
        let kernels = kernels.join(", ");
        let _ =
            writeln!(text, "{{ \"{name}\", {}, {}, {{ {kernels} }} }},", of("init"), of("score"));
    }
    text.push_str("{ 0, 0, 0, { 0, 0, 0, 0 } } };\n");
    let file = out.join("modules.c");
    std::fs::write(&file, text).expect("OUT_DIR can be written");
    cc::Build::new().pic(true).file(&file).compile_intermediates().remove(0)
}

/// llama.cpp and ggml without modules, of which the linker takes what is needed.
fn archive(out: &Path, built: &Path) -> PathBuf {
    let library = out.join("libengine.a");
    let _ = std::fs::remove_file(&library);
    let cmake = built.join("ggml/src/CMakeFiles");
    let folders = [
        built.join("src"),
        built.join("common"),
        built.join("vendor"),
        cmake.join("ggml-base.dir"),
        cmake.join("ggml.dir"),
    ];
    run(Command::new("ar")
        .arg("rcsD")
        .arg(&library)
        .args(folders.iter().flat_map(|folder| objects(folder))));
    library
}

/// The object files below a folder, always in the same order.
fn objects(folder: &Path) -> Vec<PathBuf> {
    read(folder)
        .into_iter()
        .flat_map(|path| match path.extension() {
            _ if path.is_dir() => objects(&path),
            Some(end) if end == "o" => vec![path],
            _ => Vec::new(),
        })
        .collect()
}

fn read(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn run(command: &mut Command) {
    let status =
        command.status().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    assert!(status.success(), "{command:?} ended with {status}");
}
