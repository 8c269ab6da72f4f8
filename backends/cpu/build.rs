//! Makes the plugin look for libllama and ggml in its own folder, wherever that is.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let origin = match std::env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("macos") => "@loader_path",
        _ => "$ORIGIN",
    };
    println!("cargo:rustc-cdylib-link-arg=-Wl,-rpath,{origin}");
    if std::env::var_os("CARGO_CFG_TARGET_OS").is_some_and(|os| os == "linux") {
        // ggml, which other libraries may hold, keeps pointers into this one.
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
}
