//! The one exported symbol.

// `no_mangle` counts as unsafe code, and the symbol is what makes this library a plugin.
#![allow(unsafe_code)]

hearth_abi::export_plugin!(crate::model::Reference);
