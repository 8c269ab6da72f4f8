//! The CPU plugin as a part of the program: what `libhearth_cpu.so` and the files beside it are, in one object.
//!
//! `build.rs` makes that object. It exports the plugin's entry alone, so that nothing in it, Rust's own library
//! included, can meet its namesakes in the program. With crt-static the C++ and OpenMP libraries are linked in too.

use hearth_abi::raw::Plugin;

// The C++ and OpenMP libraries come after the object that needs them.
#[link(name = "hearth_linked_cpu", kind = "static", modifiers = "-bundle")]
unsafe extern "C" {
    static hearth_plugin_entry: Plugin;
}

/// What everything that the program is linked of is licensed under, as gzip packs it.
pub const LICENCES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/licences.gz"));

/// Unique among plugins, as its entry has it.
pub const NAME: &str = "cpu";

/// The plugin's entry.
pub fn plugin() -> &'static Plugin {
    // SAFETY: a constant of the object that is linked in, which was compiled against this very ABI.
    unsafe { &hearth_plugin_entry }
}
