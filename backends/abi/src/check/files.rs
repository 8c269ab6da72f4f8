//! Scenarios about opening files, good and bad.

use super::bench::{Bench, Scratch, Step, call, config, ensure, must, must_fail, not_applicable};
use crate::host::Model;
use crate::raw;
use crate::types::{OpenParams, Result, Status};
use std::ffi::{CString, c_void};
use std::io::Read;
use std::mem::size_of;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The fractions a plugin reported, and how often the host goes on before it says no.
struct Progress {
    fractions: Vec<f32>,
    cancel_after: usize,
}

unsafe extern "C" fn note_progress(data: *mut c_void, fraction: f32) -> bool {
    // SAFETY: `data` is the Progress that `open` keeps on its stack during the call, made by one thread at a time.
    let progress = unsafe { &mut *data.cast::<Progress>() };
    progress.fractions.push(fraction);
    progress.fractions.len() <= progress.cancel_after
}

/// Opens and closes a model. The answer of a failed open says whether the out-parameter was set to null.
fn open(
    bench: &Bench,
    path: &Path,
    cancel_after: Option<usize>,
    progress: &mut Progress,
) -> Step<(Result<()>, bool)> {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else {
        return not_applicable("the path has a NUL");
    };
    progress.cancel_after = cancel_after.unwrap_or(usize::MAX);
    let params = raw::ModelParams {
        struct_size: u32::try_from(size_of::<raw::ModelParams>()).unwrap_or(0),
        n_gpu_layers: -1,
        path: path.as_ptr(),
        use_mmap: true,
        use_mlock: false,
        vocab_only: false,
        progress: Some(note_progress),
        progress_data: std::ptr::from_mut(progress).cast(),
        with_mtp: false,
    };
    let entry = bench.plugin.entry();
    // Not null at first, so that a plugin that forgets it shows.
    let mut handle = std::ptr::dangling_mut::<raw::Model>();
    // SAFETY: the plugin is initialised; params, path and progress outlive the call.
    let answer =
        call(|error| unsafe { (entry.model_open)(&raw const params, &raw mut handle, error) });
    if answer.is_ok() {
        ensure!(
            !handle.is_null() && handle != std::ptr::dangling_mut(),
            "model_open answered OK and no model"
        );
        // SAFETY: opened just now, and nothing was made from it.
        unsafe { (entry.model_close)(handle) };
    }
    Ok((answer, handle.is_null()))
}

fn blank_progress() -> Progress {
    Progress { fractions: Vec::new(), cancel_after: usize::MAX }
}

fn refuses(bench: &Bench, what: &str, path: &Path, statuses: &[Status]) -> Step {
    let (answer, is_null) = open(bench, path, None, &mut blank_progress())?;
    must_fail(&format!("model_open of {what}"), answer, statuses)?;
    ensure!(is_null, "model_open of {what} failed and left the model's pointer set");
    Ok(())
}

pub(super) fn missing(bench: &mut Bench) -> Step {
    let scratch = Scratch::new()?;
    refuses(bench, "a missing file", &scratch.0.join("missing.gguf"), &[Status::NotFound])
}

pub(super) fn foreign(bench: &mut Bench) -> Step {
    let scratch = Scratch::new()?;
    let bad = [Status::BadModel];
    refuses(bench, "an empty file", &scratch.file("empty.gguf", b"")?, &bad)?;
    let noise: Vec<u8> =
        (0_u32..4096).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    refuses(bench, "a file of noise", &scratch.file("noise.gguf", &noise)?, &bad)?;
    // A GGUF header that promises more tensors and metadata than any file could hold.
    let liar: Vec<u8> =
        [b"GGUF".as_slice(), &3_u32.to_le_bytes(), &[0xff; 7], &[0x0f], &[0xff; 7], &[0x0f]]
            .concat();
    refuses(bench, "a file with a lying header", &scratch.file("liar.gguf", &liar)?, &bad)?;
    refuses(bench, "a directory", &scratch.0, &[Status::BadModel, Status::NotFound])?;
    let mut start = Vec::new();
    if let Some(model) = &bench.model_path
        && let Ok(file) = std::fs::File::open(model)
        && file.take(1 << 16).read_to_end(&mut start).is_ok()
    {
        let begun = scratch.file("begun.gguf", &start[..start.len() / 2])?;
        refuses(bench, "a model cut short", &begun, &bad)?;
    }
    Ok(())
}

pub(super) fn progress(bench: &mut Bench) -> Step {
    let path = bench.model_path()?.to_path_buf();
    let mut progress = blank_progress();
    must("model_open", open(bench, &path, None, &mut progress)?.0)?;
    let fractions = &progress.fractions;
    ensure!(
        fractions.iter().all(|f| (0.0..=1.0).contains(f)),
        "progress leaves 0.0 to 1.0: {fractions:?}"
    );
    ensure!(fractions.is_sorted(), "progress goes down: {fractions:?}");
    Ok(())
}

pub(super) fn cancel(bench: &mut Bench) -> Step {
    let path = bench.model_path()?.to_path_buf();
    let mut progress = blank_progress();
    let (answer, is_null) = open(bench, &path, Some(0), &mut progress)?;
    if progress.fractions.is_empty() {
        return not_applicable("this plugin reports no progress on this model");
    }
    must_fail("model_open", answer, &[Status::Cancelled])?;
    ensure!(is_null, "a cancelled model_open left the model's pointer set");
    must("model_open after a cancelled one", open(bench, &path, None, &mut blank_progress())?.0)
}

pub(super) fn vocabulary(bench: &mut Bench) -> Step {
    let params = OpenParams { vocab_only: true, ..OpenParams::new(bench.model_path()?) };
    let model = must("model_open", Model::open(&bench.plugin, &params, &mut |_| true))?;
    let tokens = must("tokenize", model.tokenize("Hello, world", false, false))?;
    ensure!(!tokens.is_empty(), "tokenize gave nothing");
    must_fail("context_create", model.context(&config()), &[Status::Unsupported])
}
