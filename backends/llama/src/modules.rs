//! Finding, checking and loading ggml's modules, which stand in the plugin's own folder or are linked into the program.
//!
//! ggml's own loader takes every file with a fitting name and is silent about those it skips. Here each module is
//! loaded by name, so that a missing driver or a wrong file is a sentence. Only modules of this very build are loaded:
//! ggml checks no more than an API number, and structs differ between builds.
//!
//! A family is several builds of one module for different processors (`libggml-cpu-zen4.so`): each scores itself on
//! this machine, and the best is loaded. Loading happens once per process, at the first call that needs a device, and is
//! never undone, because ggml cannot.

use crate::linked::{self, LinkedModule};
use crate::shim::{
    c_string, error, hearth_shim_map_buffers, hearth_shim_register_kernels,
    hearth_shim_register_linked_kernels,
};
use crate::{build_id, log};
use hearth_abi::{DeviceInfo, DeviceKind, LogLevel, Result, Status};
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_sys_2 as sys;
use std::ffi::{CStr, OsStr, c_char, c_void};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// File name and build id of each module that was built with this plugin.
static PINS: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/pins.rs"));

/// What every llama plugin needs, also those whose layers run elsewhere.
const CPU: &str = "cpu";

/// The modules of this process.
#[derive(Debug)]
pub(crate) struct Loaded {
    devices: Vec<Device>,
    // Proof that llama_backend_init was called, once.
    _backend: LlamaBackend,
}

#[derive(Debug)]
struct Device {
    handle: sys::ggml_backend_dev_t,
    detail: String,
}

// SAFETY: ggml's device handles point to constants of the registry, which lives as long as the process.
unsafe impl Send for Loaded {}
// SAFETY: as above.
unsafe impl Sync for Loaded {}

/// What became of one module of a family.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Score(i32),
    /// Not here, or not for this processor: nothing is wrong.
    Unfit(String),
    /// Something is wrong with the file.
    Refused(String),
}

impl Outcome {
    /// What a module's `ggml_backend_score` answered.
    fn of_score(score: i32) -> Self {
        match score {
            0 => Self::Unfit("this processor lacks features it needs".into()),
            score => Self::Score(score),
        }
    }
}

static LOADED: OnceLock<Result<Loaded>> = OnceLock::new();

/// The modules of `family` and the CPU's, loaded at the first call.
pub(crate) fn loaded(family: &'static str) -> Result<&'static Loaded> {
    LOADED.get_or_init(|| load(family)).as_ref().map_err(Clone::clone)
}

impl Loaded {
    /// The devices as they are now.
    pub(crate) fn describe(&self) -> Vec<DeviceInfo> {
        self.devices.iter().map(Device::describe).collect()
    }

    /// Layers run on the processor, so that contexts stand in its memory.
    pub(crate) fn is_cpu_only(&self) -> bool {
        self.devices.iter().all(|device| device.kind() == DeviceKind::Cpu)
    }

    /// A null-terminated list for `llama_model_params.devices`: the devices that layers can be given to.
    pub(crate) fn offload_list(&self) -> Vec<sys::ggml_backend_dev_t> {
        let gpus = self.devices.iter().filter(|device| device.kind() != DeviceKind::Cpu);
        gpus.map(|device| device.handle).chain([std::ptr::null_mut()]).collect()
    }
}

impl Device {
    fn kind(&self) -> DeviceKind {
        // SAFETY: the handle came from ggml's registry.
        match unsafe { sys::ggml_backend_dev_type(self.handle) } {
            sys::GGML_BACKEND_DEVICE_TYPE_CPU => DeviceKind::Cpu,
            sys::GGML_BACKEND_DEVICE_TYPE_GPU => DeviceKind::Gpu,
            sys::GGML_BACKEND_DEVICE_TYPE_IGPU => DeviceKind::IntegratedGpu,
            _ => DeviceKind::Accelerator,
        }
    }

    fn describe(&self) -> DeviceInfo {
        let (mut free, mut total) = (0, 0);
        // SAFETY: the handle came from ggml's registry, and the out-parameters are ours.
        let (id, name) = unsafe {
            sys::ggml_backend_dev_memory(self.handle, &raw mut free, &raw mut total);
            (
                text_at(sys::ggml_backend_dev_name(self.handle)),
                text_at(sys::ggml_backend_dev_description(self.handle)),
            )
        };
        let kind = self.kind();
        // For the CPU, ggml calls all memory free.
        let memory_free =
            if kind == DeviceKind::Cpu { available_memory().unwrap_or(0) } else { free as u64 };
        DeviceInfo {
            kind,
            memory_total: total as u64,
            memory_free,
            id,
            name,
            detail: self.detail.clone(),
        }
    }
}

/// # Safety
/// `text` is null or a NUL-terminated string.
unsafe fn text_at(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: promised by the caller, and not null.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Bytes that Linux says can be had without swapping.
pub(crate) fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

fn load(family: &'static str) -> Result<Loaded> {
    let mut devices = load_family(CPU)?;
    if family != CPU {
        devices = load_family(family)?;
        if devices.is_empty() {
            return Err(error(
                Status::NotFound,
                format!("the `{family}` module found no device on this machine"),
            ));
        }
    }
    let backend =
        LlamaBackend::init().map_err(|problem| error(Status::Failed, problem.to_string()))?;
    // SAFETY: no buffer exists yet, and no other thread knows of ggml: this runs once, inside `OnceLock`.
    unsafe { hearth_shim_map_buffers() };
    Ok(Loaded { devices, _backend: backend })
}

/// The folder of the shared library that this code is in.
fn own_folder() -> Result<PathBuf> {
    let unknown = || error(Status::Failed, "the plugin cannot find out which folder it is in");
    let mut info = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    let inside: *const c_void = (own_folder as fn() -> Result<PathBuf>) as *const c_void;
    // SAFETY: the address is of a function in this library, and info is ours.
    if unsafe { libc::dladdr(inside, &raw mut info) } == 0 || info.dli_fname.is_null() {
        return Err(unknown());
    }
    // SAFETY: dladdr answered a NUL-terminated path that lives as long as the library is loaded.
    let file = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(info.dli_fname) }.to_bytes()));
    let file = file.canonicalize().map_err(|_| unknown())?;
    file.parent().map(Path::to_path_buf).ok_or_else(unknown)
}

/// Loads the best module of a family and answers its devices.
fn load_family(family: &str) -> Result<Vec<Device>> {
    let linked: Vec<_> = linked::modules().collect();
    let (registry, detail, has_kernels) = match linked.as_slice() {
        [] => load_file(family)?,
        modules => load_linked(modules)?,
    };
    let detail = match has_kernels {
        true => format!("{detail}, with own kernels for AVX-512"),
        false => detail,
    };
    log::line(LogLevel::Info, &format!("Loaded {detail}"));
    // SAFETY: ggml answered a live registry entry; the indices are below its count.
    let handles = unsafe {
        (0..sys::ggml_backend_reg_dev_count(registry))
            .map(|index| sys::ggml_backend_reg_dev_get(registry, index))
    };
    Ok(handles.map(|handle| Device { handle, detail: detail.clone() }).collect())
}

/// What a module registered, a sentence about it, and whether it uses this plugin's kernels.
type Module = (sys::ggml_backend_reg_t, String, bool);

fn load_file(family: &str) -> Result<Module> {
    let folder = own_folder()?;
    let tried: Vec<(&str, Outcome)> = PINS
        .iter()
        .filter(|(name, _)| is_of_family(name, family))
        .map(|(name, id)| (*name, try_module(&folder.join(name), id)))
        .collect();
    let (name, detail) = choose(&tried, family, &format!("`{}`", folder.display()))?;
    let path = c_string(folder.join(name).into_os_string().into_vec(), "the plugin's folder")?;
    // SAFETY: the path is NUL-terminated and names a module of this very build.
    let (registry, lines) = log::capture(|| unsafe { sys::ggml_backend_load(path.as_ptr()) });
    if registry.is_null() {
        let why = log::reason(&lines).unwrap_or_else(|| "no reason given".into());
        return Err(error(Status::Failed, format!("cannot load `{name}`: {why}")));
    }
    let has_kernels = family == CPU
        && wants_kernels()
        // SAFETY: the path is of a loaded module of this very build, and no model is open yet.
        && unsafe { hearth_shim_register_kernels(path.as_ptr()) };
    Ok((registry, detail, has_kernels))
}

fn load_linked(modules: &[&'static LinkedModule]) -> Result<Module> {
    let score = |module: &&LinkedModule| (module.name(), Outcome::of_score(module.score()));
    let tried: Vec<_> = modules.iter().map(score).collect();
    let (name, detail) = choose(&tried, CPU, "this program")?;
    let chosen = modules.iter().find(|module| module.name() == name);
    let chosen = chosen.ok_or_else(|| error(Status::Failed, "the chosen module is gone"))?;
    let registry = chosen.start()?;
    // SAFETY: the module was started, and no model is open yet.
    let has_kernels = wants_kernels()
        && unsafe { hearth_shim_register_linked_kernels(std::ptr::from_ref(*chosen)) };
    Ok((registry, detail, has_kernels))
}

/// The best module and a sentence about the choice. What becomes of each is logged.
fn choose<'a>(
    tried: &[(&'a str, Outcome)],
    family: &str,
    place: &str,
) -> Result<(&'a str, String)> {
    for (name, outcome) in tried {
        match outcome {
            Outcome::Score(score) => {
                log::line(LogLevel::Debug, &format!("Module {name} scores {score}"))
            }
            Outcome::Unfit(why) => {
                log::line(LogLevel::Debug, &format!("Module {name} does not fit: {why}"))
            }
            Outcome::Refused(why) => {
                log::line(LogLevel::Warn, &format!("Refused module {name}: {why}"))
            }
        }
    }
    best(tried).ok_or_else(|| error(Status::NotFound, none_message(place, family, tried)))
}

/// Whether this plugin's kernels go before ggml's own: where there are any for this processor. `HEARTH_LLAMA_KERNELS=ggml`
/// keeps ggml's, for whoever doubts ours.
fn wants_kernels() -> bool {
    #[cfg(target_arch = "x86_64")]
    let are_usable = crate::kernels::are_usable();
    #[cfg(not(target_arch = "x86_64"))]
    let are_usable = false;
    are_usable && std::env::var_os("HEARTH_LLAMA_KERNELS").is_none_or(|wanted| wanted != "ggml")
}

/// `libggml-cpu-zen4.so` and `libggml-cpu.so` are of the family `cpu`.
fn is_of_family(file_name: &str, family: &str) -> bool {
    file_name
        .strip_prefix("libggml-")
        .and_then(|rest| rest.strip_prefix(family))
        .is_some_and(|rest| rest == ".so" || (rest.starts_with('-') && rest.ends_with(".so")))
}

/// Checks a file's build, and asks it how well it fits this machine.
fn try_module(path: &Path, pinned_id: &str) -> Outcome {
    match build_id::of_file(path) {
        Err(problem) if problem.kind() == std::io::ErrorKind::NotFound => {
            return Outcome::Unfit("the file is not there".into());
        }
        Err(problem) => return Outcome::Refused(problem.to_string()),
        Ok(id) if id != pinned_id => {
            return Outcome::Refused(format!(
                "it is of another build (`{id}`, this plugin needs `{pinned_id}`)"
            ));
        }
        Ok(_) => {}
    }
    // SAFETY: this runs the constructors of a module of this build, which ggml's own loader does in the same way.
    let library = match unsafe { libloading::Library::new(path) } {
        Ok(library) => library,
        Err(problem) => {
            let why = std::error::Error::source(&problem)
                .map_or_else(|| problem.to_string(), ToString::to_string);
            return Outcome::Refused(why);
        }
    };
    // SAFETY: ggml's modules that export this symbol declare it `int ggml_backend_score(void)`.
    match unsafe { library.get::<unsafe extern "C" fn() -> i32>("ggml_backend_score") } {
        // Modules without a score, such as CUDA's, run wherever they load.
        Err(_) => Outcome::Score(1),
        // SAFETY: the function reads CPU features only, and is built for the plainest processor.
        Ok(score) => Outcome::of_score(unsafe { score() }),
    }
}

/// The module with the highest score, the first of equals, and a sentence about the choice.
fn best<'a>(tried: &[(&'a str, Outcome)]) -> Option<(&'a str, String)> {
    let mut chosen: Option<(&str, i32)> = None;
    for (name, outcome) in tried {
        if let Outcome::Score(score) = outcome
            && chosen.is_none_or(|(_, best)| *score > best)
        {
            chosen = Some((name, *score));
        }
    }
    let (name, _) = chosen?;
    let detail = match tried.len() {
        1 => name.to_owned(),
        n => format!("{name}, best of {n}"),
    };
    Some((name, detail))
}

fn none_message(place: &str, family: &str, tried: &[(&str, Outcome)]) -> String {
    // One reason tells enough: they are alike when a whole family fails.
    let refused = tried.iter().find_map(|(name, outcome)| match outcome {
        Outcome::Refused(why) => Some((name, why)),
        _ => None,
    });
    let unfit = tried.iter().find_map(|(name, outcome)| match outcome {
        Outcome::Unfit(why) => Some((name, why)),
        _ => None,
    });
    match refused.or(unfit) {
        Some((name, why)) => format!("no usable `{family}` module in {place}: `{name}`: {why}"),
        None => format!("this build of the plugin has no `{family}` module"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Outcome {
        Outcome::Refused("no".into())
    }

    #[test]
    fn the_highest_score_wins_and_the_first_of_equals() {
        let tried = [
            ("a", Outcome::Score(3)),
            ("b", Outcome::Score(9)),
            ("c", Outcome::Score(9)),
            ("d", refused()),
        ];
        assert_eq!(best(&tried), Some(("b", "b, best of 4".into())));
        assert_eq!(best(&tried[..1]), Some(("a", "a".into())));
        assert_eq!(best(&[("d", refused())]), None);
    }

    #[test]
    fn families_are_told_apart_by_name() {
        assert!(is_of_family("libggml-cpu-zen4.so", "cpu"));
        assert!(is_of_family("libggml-cuda.so", "cuda"));
        assert!(!is_of_family("libggml-cpu-zen4.so", "cuda"));
        assert!(!is_of_family("libggml-cpuid.so", "cpu"));
    }

    #[test]
    fn a_missing_module_is_a_sentence() {
        let message = none_message(
            "`/x`",
            "cuda",
            &[("libggml-cuda.so", Outcome::Refused("libcuda.so.1: no".into()))],
        );
        assert_eq!(message, "no usable `cuda` module in `/x`: `libggml-cuda.so`: libcuda.so.1: no");
        assert_eq!(
            none_message("`/x`", "cuda", &[]),
            "this build of the plugin has no `cuda` module"
        );
    }

    #[test]
    fn a_foreign_file_is_refused_before_it_is_loaded() {
        let folder =
            std::env::temp_dir().join(format!("hearth-llama-modules-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("libggml-cpu-x64.so");
        std::fs::write(&path, "not a library").unwrap();
        let Outcome::Refused(why) = try_module(&path, "0123") else { panic!("it was accepted") };
        assert!(why.starts_with("it is of another build (`fnv:"), "{why}");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn this_build_has_cpu_modules_with_ids() {
        let cpu: Vec<_> = PINS.iter().filter(|(name, _)| is_of_family(name, CPU)).collect();
        assert!(!cpu.is_empty());
        assert!(cpu.iter().all(|(_, id)| id.len() >= 16));
    }
}
