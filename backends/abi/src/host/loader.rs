//! Finding the entry symbol in a shared library and checking it before anything else is called.

use super::{call, struct_size, text_at, text_of};
use crate::raw;
use crate::types::{DeviceInfo, DeviceKind, LogLevel, PluginError, Result};
use std::ffi::{CStr, c_char, c_void};
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;

/// Where a plugin's log lines go. May be called from any thread.
pub type LogSink = Box<dyn Fn(LogLevel, &str) + Send + Sync>;

/// Why a file is not a plugin we run.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The messages say it.
pub enum LoadError {
    #[error("cannot read `{}`: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("`{}` is owned by uid {owner}, which is neither root nor uid {own}", path.display())]
    ForeignOwner { path: PathBuf, owner: u32, own: u32 },
    #[error("`{}` can be written by others (mode {mode:o})", path.display())]
    WritableByOthers { path: PathBuf, mode: u32 },
    #[error("cannot load `{}`: {reason}", path.display())]
    NotLoadable { path: PathBuf, reason: String },
    #[error("`{}` exports no `{}`, so it is not a Hearth plugin", path.display(), raw::ENTRY_SYMBOL)]
    NoEntry { path: PathBuf },
    #[error(
        "`{}` is built for ABI version {}.{}, and this hearthd speaks {}.{}",
        path.display(),
        found >> 16,
        found & 0xffff,
        raw::ABI_VERSION >> 16,
        raw::ABI_VERSION & 0xffff
    )]
    WrongVersion { path: PathBuf, found: u32 },
    #[error("`{}` has an entry of {found} bytes, where ABI version 1.0 has {expected}", path.display())]
    ShortEntry { path: PathBuf, found: u32, expected: u32 },
    #[error("`{}` has a null pointer in its entry", path.display())]
    NullInEntry { path: PathBuf },
    #[error("`{}` cannot start: {reason}", path.display())]
    InitFailed { path: PathBuf, reason: PluginError },
}

/// A loaded and initialised plugin.
pub struct Plugin {
    entry: &'static raw::Plugin,
    path: PathBuf,
}

// SAFETY: the entry is constant; calls through it follow the thread tags by the types of this module.
unsafe impl Send for Plugin {}
// SAFETY: as above; the calls reachable from `&Plugin` are made by one thread of a worker or are [any-thread].
unsafe impl Sync for Plugin {}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Plugin {
    /// Loads a file after checking who could have written it, and initialises it.
    pub fn load(path: &Path, sink: LogSink) -> std::result::Result<Arc<Self>, LoadError> {
        check_owner(path)?;
        // SAFETY: this runs the library's constructors. Whoever could have written the file is root or ourselves,
        // as just checked, and the process is a worker made for it.
        let library = unsafe {
            libloading::os::unix::Library::open(
                Some(path),
                libloading::os::unix::RTLD_NOW | libloading::os::unix::RTLD_LOCAL,
            )
        }
        .map_err(|error| LoadError::NotLoadable {
            path: path.into(),
            reason: error_text(&error),
        })?;
        // SAFETY: the symbol is a hearth_plugin_t by the ABI; only its first two members are read before they are checked.
        let entry = unsafe { library.get::<*const raw::Plugin>(raw::ENTRY_SYMBOL) }
            .ok()
            .and_then(|symbol| NonNull::new(symbol.as_raw_ptr().cast::<raw::Plugin>()))
            .ok_or_else(|| LoadError::NoEntry { path: path.into() })?
            .as_ptr()
            .cast_const();
        // Never unloaded, see the module's head, so the entry is 'static from here on.
        std::mem::forget(library);
        check_entry(path, entry)?;
        // SAFETY: check_entry found a whole struct without null pointers.
        let entry: &'static raw::Plugin = unsafe { &*entry };
        Self::start(path, entry, sink)
    }

    /// Initialises a plugin that is linked into this program.
    pub fn from_entry(
        entry: &'static raw::Plugin,
        sink: LogSink,
    ) -> std::result::Result<Arc<Self>, LoadError> {
        let path = Path::new("(linked in)");
        check_entry(path, entry)?;
        Self::start(path, entry, sink)
    }

    fn start(
        path: &Path,
        entry: &'static raw::Plugin,
        sink: LogSink,
    ) -> std::result::Result<Arc<Self>, LoadError> {
        // Leaked: tests initialise one library several times in one process, and then a plugin cannot tell whose
        // deinit it sees and may go on to use the other host. A worker does this once.
        let sink: &'static LogSink = Box::leak(Box::new(sink));
        let host_data = std::ptr::from_ref(sink).cast_mut().cast::<c_void>();
        let host: &'static raw::Host = Box::leak(Box::new(raw::Host {
            struct_size: struct_size::<raw::Host>(),
            host_data,
            log: take_log,
        }));
        // SAFETY: the entry was checked, and the host struct is never freed.
        call(|error| unsafe { (entry.init)(host, error) })
            .map_err(|reason| LoadError::InitFailed { path: path.into(), reason })?;
        Ok(Arc::new(Self { entry, path: path.into() }))
    }

    pub(crate) fn entry(&self) -> &'static raw::Plugin {
        self.entry
    }

    /// The file it came from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Unique among plugins, such as `cpu`.
    pub fn name(&self) -> String {
        // SAFETY: a constant string of the plugin's, checked not to be null.
        unsafe { text_at(self.entry.name) }
    }

    /// The plugin's own version.
    pub fn version(&self) -> String {
        // SAFETY: as in `name`.
        unsafe { text_at(self.entry.version) }
    }

    /// For a person, one line.
    pub fn description(&self) -> String {
        // SAFETY: as in `name`.
        unsafe { text_at(self.entry.description) }
    }

    /// The devices it can run on. An error says why there are none.
    pub fn devices(&self) -> Result<Vec<DeviceInfo>> {
        let mut reason =
            raw::Error { struct_size: struct_size::<raw::Error>(), message: [0; raw::MESSAGE_MAX] };
        // SAFETY: the plugin is initialised; the error is ours.
        let count = unsafe { (self.entry.device_count)(&raw mut reason) };
        if count == 0 {
            return Err(PluginError::new(crate::Status::NotFound, text_of(&reason.message)));
        }
        (0..count).map(|index| self.device(index)).collect()
    }

    fn device(&self, index: u32) -> Result<DeviceInfo> {
        let mut device = raw::Device {
            struct_size: struct_size::<raw::Device>(),
            kind: 0,
            memory_total: 0,
            memory_free: 0,
            id: [0; 64],
            name: [0; 128],
            detail: [0; 256],
        };
        // SAFETY: the plugin is initialised; device and error are ours for the call.
        call(|error| unsafe { (self.entry.device_get)(index, &raw mut device, error) })?;
        Ok(DeviceInfo {
            kind: DeviceKind::from_raw(device.kind),
            memory_total: device.memory_total,
            memory_free: device.memory_free,
            id: text_of(&device.id),
            name: text_of(&device.name),
            detail: text_of(&device.detail),
        })
    }

    /// An optional power, if the plugin has it whole.
    pub(crate) fn extension<T>(&self, id: &CStr) -> Option<&'static T> {
        // SAFETY: the plugin is initialised and the id is NUL-terminated.
        let table = unsafe { (self.entry.extension)(id.as_ptr()) };
        // SAFETY: every extension struct begins with its u32 size and lives until deinit.
        let size = unsafe { table.cast::<u32>().as_ref()? };
        if *size < struct_size::<T>() {
            return None;
        }
        // SAFETY: the struct is that large, as just checked, and behind the size stand pointers alone.
        if unsafe { has_null(table, size_of::<usize>(), size_of::<T>()) } {
            return None;
        }
        // SAFETY: the id names the struct's type; it is large enough and its function pointers are not null.
        unsafe { table.cast::<T>().as_ref() }
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        // SAFETY: init succeeded once, and models hold an Arc of this, so none is open.
        unsafe { (self.entry.deinit)() }
    }
}

fn error_text(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// A plugin runs with the daemon's rights, so nobody else may have been able to write it.
fn check_owner(path: &Path) -> std::result::Result<(), LoadError> {
    let meta = std::fs::metadata(path)
        .map_err(|source| LoadError::Unreadable { path: path.into(), source })?;
    let own = rustix::process::geteuid().as_raw();
    if meta.uid() != 0 && meta.uid() != own {
        return Err(LoadError::ForeignOwner { path: path.into(), owner: meta.uid(), own });
    }
    if meta.mode() & 0o022 != 0 {
        return Err(LoadError::WritableByOthers { path: path.into(), mode: meta.mode() & 0o7777 });
    }
    Ok(())
}

fn check_entry(path: &Path, entry: *const raw::Plugin) -> std::result::Result<(), LoadError> {
    // SAFETY: every version of the entry begins with these two numbers.
    let (size, version) = unsafe { ((*entry).struct_size, (*entry).abi_version) };
    if version >> 16 != raw::ABI_VERSION >> 16 {
        return Err(LoadError::WrongVersion { path: path.into(), found: version });
    }
    let expected = struct_size::<raw::Plugin>();
    if size < expected {
        return Err(LoadError::ShortEntry { path: path.into(), found: size, expected });
    }
    // From the name on, the struct is nothing but pointers, none of them optional.
    // SAFETY: the struct has `expected` bytes, as just checked.
    let null = unsafe {
        has_null(entry.cast(), std::mem::offset_of!(raw::Plugin, name), expected as usize)
    };
    if null {
        return Err(LoadError::NullInEntry { path: path.into() });
    }
    Ok(())
}

/// One of the pointers between two byte offsets of a struct is null.
///
/// # Safety
/// `table` points to `end` bytes, aligned for pointers, and from `begin` on they are pointers.
unsafe fn has_null(table: *const c_void, begin: usize, end: usize) -> bool {
    let count = (end - begin) / size_of::<usize>();
    // SAFETY: promised by the caller; a pointer's bytes are a valid usize.
    (0..count).any(|index| unsafe { table.byte_add(begin).cast::<usize>().add(index).read() } == 0)
}

unsafe extern "C" fn take_log(host_data: *mut c_void, level: i32, text: *const c_char) {
    let _ = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: host_data is the sink that `start` leaked.
        if let Some(sink) = unsafe { host_data.cast::<LogSink>().as_ref() } {
            // SAFETY: the plugin passes a NUL-terminated string, by the contract.
            sink(LogLevel::from_raw(level), &unsafe { text_at(text) });
        }
    }));
}
