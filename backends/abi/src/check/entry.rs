//! Scenarios that need no model: the entry itself, devices, extensions, struct sizes, log lines.

use super::bench::{Bench, Step, call, ensure, must, must_fail, not_applicable};
use crate::raw;
use crate::types::Status;
use std::collections::HashSet;
use std::ffi::{CStr, c_char};
use std::mem::{MaybeUninit, size_of};

pub(super) fn entry(bench: &mut Bench) -> Step {
    let plugin = &bench.plugin;
    let name = plugin.name();
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    ensure!(!name.is_empty() && name.bytes().all(is_letter), "`{name}` is no name");
    for (what, text) in [("version", plugin.version()), ("description", plugin.description())] {
        ensure!(!text.trim().is_empty(), "the {what} is empty");
        ensure!(!text.contains('\n'), "the {what} has several lines");
        ensure!(!text.contains(char::REPLACEMENT_CHARACTER), "the {what} is not UTF-8");
    }
    Ok(())
}

fn blank_device() -> raw::Device {
    raw::Device {
        struct_size: u32::try_from(size_of::<raw::Device>()).unwrap_or(0),
        kind: -1,
        memory_total: 0,
        memory_free: 0,
        // Filled, so that a missing NUL shows.
        id: [0x7f; 64],
        name: [0x7f; 128],
        detail: [0x7f; 256],
    }
}

pub(super) fn devices(bench: &mut Bench) -> Step {
    let entry = bench.plugin.entry();
    let mut reason = blank_error();
    // SAFETY: the plugin is initialised and the error is ours.
    let count = unsafe { (entry.device_count)(&raw mut reason) };
    if count == 0 {
        ensure!(reason.message[0] != 0, "there are no devices, and no reason is given");
        return Ok(());
    }
    let mut ids = HashSet::new();
    for index in 0..count {
        let mut device = blank_device();
        // SAFETY: the plugin is initialised; device and error are ours.
        let answer = call(|error| unsafe { (entry.device_get)(index, &raw mut device, error) });
        must("device_get", answer)?;
        let text = |array: &[c_char]| {
            let bytes: Vec<u8> = array.iter().map(|byte| byte.cast_unsigned()).collect();
            CStr::from_bytes_until_nul(&bytes)
                .ok()
                .and_then(|text| text.to_str().ok().map(str::to_owned))
        };
        let (id, name, detail) = (text(&device.id), text(&device.name), text(&device.detail));
        ensure!(
            (0..=3).contains(&device.kind),
            "device {index} is of the unknown kind {}",
            device.kind
        );
        ensure!(id.as_ref().is_some_and(|id| !id.is_empty()), "device {index} has no id");
        ensure!(name.is_some_and(|name| !name.is_empty()), "device {index} has no name");
        ensure!(detail.is_some(), "the detail of device {index} does not end, or is not UTF-8");
        ensure!(ids.insert(id.clone()), "two devices have the id `{}`", id.unwrap_or_default());
        let (free, total) = (device.memory_free, device.memory_total);
        ensure!(total == 0 || free <= total, "device {index} has {free} bytes free of {total}");
    }
    Ok(())
}

pub(super) fn device_range(bench: &mut Bench) -> Step {
    let entry = bench.plugin.entry();
    for index in [u32::MAX, 1 << 20] {
        let mut device = blank_device();
        // SAFETY: the plugin is initialised; device and error are ours.
        let answer = call(|error| unsafe { (entry.device_get)(index, &raw mut device, error) });
        must_fail(
            &format!("device_get({index})"),
            answer,
            &[Status::InvalidArgument, Status::NotFound],
        )?;
    }
    Ok(())
}

pub(super) fn extensions(bench: &mut Bench) -> Step {
    let entry = bench.plugin.entry();
    // SAFETY: the plugin is initialised, and the ids are NUL-terminated constants.
    let ask = |id: &CStr| unsafe { (entry.extension)(id.as_ptr()) };
    for id in [c"hearth.check.no-such-thing/1", c"", c"hearth.chat/999", c"hearth.chat"] {
        ensure!(ask(id).is_null(), "the unknown extension `{}` is not null", id.to_string_lossy());
    }
    let known = [
        (raw::EXT_CHAT, size_of::<raw::Chat>()),
        (raw::EXT_GRAMMAR, size_of::<raw::GrammarExt>()),
        (raw::EXT_LORA, size_of::<raw::Lora>()),
        (raw::EXT_IMAGES, size_of::<raw::Images>()),
        (raw::EXT_MTP, size_of::<raw::Mtp>()),
        (raw::EXT_PARTS, size_of::<raw::Parts>()),
        (raw::EXT_RANK, size_of::<raw::Rank>()),
        (raw::EXT_QUANTIZE, size_of::<raw::Quantize>()),
    ];
    for (id, wanted) in known {
        let table = ask(id);
        let id_text = id.to_string_lossy();
        ensure!(ask(id) == table, "extension `{id_text}` is not the same at the second call");
        // SAFETY: every extension struct begins with its u32 size.
        let Some(size) = (unsafe { table.cast::<u32>().as_ref() }) else { continue };
        ensure!(
            *size as usize >= wanted,
            "extension `{id_text}` has {size} bytes, and {wanted} are its first version"
        );
        let n_pointers = wanted / size_of::<usize>() - 1;
        // SAFETY: the struct has `wanted` bytes, as just checked: its size, padding, then function pointers.
        let has_null =
            (1..=n_pointers).any(|index| unsafe { table.cast::<usize>().add(index).read() } == 0);
        ensure!(!has_null, "extension `{id_text}` has a null pointer");
    }
    Ok(())
}

/// A struct with room behind it.
#[repr(C)]
struct Guarded<T> {
    inner: T,
    behind: [u8; 64],
}

const UNTOUCHED: u8 = 0xA5;

/// Passes the struct with sizes below, at and above the plugin's, and looks at what was written behind each.
fn try_sizes<T: Copy>(what: &str, fill: &dyn Fn(*mut T) -> crate::Result<()>) -> Step {
    let whole = size_of::<T>();
    for claimed in [4, whole / 2, whole, whole + 64] {
        let mut guarded = MaybeUninit::<Guarded<T>>::uninit();
        let start = guarded.as_mut_ptr().cast::<u8>();
        // SAFETY: `start` is aligned for T, which begins with a u32, and has as many bytes as are written.
        unsafe {
            start.write_bytes(UNTOUCHED, size_of::<Guarded<T>>());
            start.cast::<u32>().write(u32::try_from(claimed).unwrap_or(0));
        }
        let answer = fill(start.cast());
        // SAFETY: every byte was written above.
        let bytes = unsafe { std::slice::from_raw_parts(start, size_of::<Guarded<T>>()) };
        let is_clean = bytes[claimed.min(bytes.len())..].iter().all(|byte| *byte == UNTOUCHED);
        ensure!(is_clean, "{what} wrote beyond a struct_size of {claimed}");
        if claimed >= whole {
            must(&format!("{what} with a struct_size of {claimed}"), answer)?;
        }
    }
    Ok(())
}

pub(super) fn struct_size_kept(bench: &mut Bench) -> Step {
    let entry = bench.plugin.entry();
    let mut reason = blank_error();
    // SAFETY: the plugin is initialised; the error is ours.
    let count = unsafe { (entry.device_count)(&raw mut reason) };
    if count > 0 {
        try_sizes::<raw::Device>("device_get", &|device| {
            // SAFETY: the plugin is initialised; the struct has at least the bytes its struct_size says.
            call(|error| unsafe { (entry.device_get)(0, device, error) })
        })?;
    }
    if bench.model_path.is_none() {
        return if count > 0 {
            Ok(())
        } else {
            not_applicable("there is neither a device nor a model to ask about")
        };
    }
    let model = bench.model()?;
    try_sizes::<raw::ModelInfo>("model_info", &|info| {
        // SAFETY: the model is open; the struct has at least the bytes its struct_size says.
        call(|error| unsafe { (entry.model_info)(model.raw(), info, error) })
    })?;
    if !model.info().can_generate {
        return Ok(());
    }
    let mut context = must("context_create", model.context(&super::bench::config()))?;
    let handle = context.raw();
    try_sizes::<raw::ContextInfo>("context_info", &|info| {
        // SAFETY: the context lives; the struct has at least the bytes its struct_size says.
        call(|error| unsafe { (entry.context_info)(handle, info, error) })
    })
}

fn blank_error() -> raw::Error {
    raw::Error {
        struct_size: u32::try_from(size_of::<raw::Error>()).unwrap_or(0),
        message: [0; raw::MESSAGE_MAX],
    }
}

pub(super) fn log_lines(bench: &mut Bench) -> Step {
    for line in bench.log.texts() {
        ensure!(!line.contains('\n'), "a log line has a newline: `{}`", line.escape_debug());
        ensure!(!line.trim().is_empty(), "a log line is empty");
    }
    Ok(())
}
