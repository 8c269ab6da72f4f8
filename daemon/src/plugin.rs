//! Where a plugin's code comes from: a file, or this program.

use hearth_abi::host::{LoadError, LogSink, Plugin};
use hearth_abi::raw;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// Stands where a file's path would.
pub(crate) const LINKED_IN: &str = "(linked in)";

static LINKED: OnceLock<(&str, &raw::Plugin)> = OnceLock::new();

/// Makes a plugin that is linked into this program the only one. To be called before [`crate::run`], in whatever role.
pub fn link_in(name: &'static str, entry: &'static raw::Plugin) {
    let _ = LINKED.set((name, entry));
}

/// The name of the one linked in.
pub(crate) fn linked_in() -> Option<&'static str> {
    LINKED.get().map(|(name, _)| *name)
}

/// Loads a plugin's file, or starts the one linked in.
pub(crate) fn load(path: &Path, sink: LogSink) -> Result<Arc<Plugin>, LoadError> {
    match LINKED.get() {
        Some((_, entry)) if path == Path::new(LINKED_IN) => Plugin::from_entry(entry, sink),
        _ => Plugin::load(path, sink),
    }
}
