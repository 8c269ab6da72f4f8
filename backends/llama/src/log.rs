//! llama.cpp's log lines, on their way to the host.
//!
//! ggml calls back with pieces of lines, where a piece of level CONT goes on with the one before; [`LineBuffer`] joins
//! them per thread. Levels are lowered: llama.cpp tells a whole model's metadata at INFO, and calls a corrupt file or a
//! full cache an ERROR, which here are ordinary answers. So INFO becomes debug, and while [`capture`] runs, warnings
//! and errors become debug too and are collected for the answer's message instead.
//!
//! Nothing that quotes prompts passes here: llama.cpp's library logs none at these calls, and its common library, which
//! does, is silenced.

use hearth_abi::LogLevel;
use hearth_abi::author::HostLog;
use llama_cpp_sys_2 as sys;
use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};
use std::sync::{PoisonError, RwLock};

static HOST: RwLock<Option<HostLog>> = RwLock::new(None);

thread_local! {
    static BUFFER: RefCell<LineBuffer> = const { RefCell::new(LineBuffer::new()) };
    static CAPTURED: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Sends everything to the host from now on.
pub(crate) fn start(host: HostLog) {
    *HOST.write().unwrap_or_else(PoisonError::into_inner) = Some(host);
    // SAFETY: both callbacks are functions of this library, which is never unloaded while llama.cpp is.
    unsafe {
        sys::llama_log_set(Some(take_piece), std::ptr::null_mut());
        sys::ggml_set_abort_callback(Some(take_abort));
        crate::images::hearth_shim_image_log(take_piece, std::ptr::null_mut());
        crate::shim::hearth_shim_silence_common();
    }
}

/// Forgets the host. llama.cpp keeps the callback, which then drops what it gets.
pub(crate) fn stop() {
    *HOST.write().unwrap_or_else(PoisonError::into_inner) = None;
}

/// One line of our own.
pub(crate) fn line(level: LogLevel, text: &str) {
    let host = *HOST.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(host) = host {
        host.log(level, text);
    }
}

/// Runs `body` and collects the warnings and errors that llama.cpp logs meanwhile on this thread.
pub(crate) fn capture<T>(body: impl FnOnce() -> T) -> (T, Vec<String>) {
    let outer = CAPTURED.replace(Some(Vec::new()));
    let answer = body();
    (answer, CAPTURED.replace(outer).unwrap_or_default())
}

/// The reason in captured lines, for a person: the last ones, without the names of C++ functions before them.
pub(crate) fn reason(lines: &[String]) -> Option<String> {
    // The last line of a failed load says no more than that it failed.
    let telling: Vec<&str> = lines
        .iter()
        .map(|line| without_function(line))
        .filter(|line| !line.contains("failed to load model"))
        .collect();
    let from = telling.len().saturating_sub(2);
    let text = if telling.is_empty() {
        lines.last().map(|line| without_function(line).to_owned())?
    } else {
        telling[from..].join("; ")
    };
    Some(text)
}

/// `llama_model_load: error loading model: x` without its first part, if that is a bare name.
fn without_function(line: &str) -> &str {
    match line.split_once(": ") {
        Some((name, rest))
            if !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') =>
        {
            rest.trim()
        }
        _ => line.trim(),
    }
}

fn emit(level: LogLevel, text: &str) {
    let captured = CAPTURED.with_borrow_mut(|captured| match captured {
        Some(lines) if matches!(level, LogLevel::Warn | LogLevel::Error) => {
            lines.push(text.to_owned());
            true
        }
        _ => false,
    });
    line(if captured { LogLevel::Debug } else { level }, text);
}

unsafe extern "C" fn take_piece(
    level: sys::ggml_log_level,
    text: *const c_char,
    _user_data: *mut c_void,
) {
    if text.is_null() {
        return;
    }
    // SAFETY: ggml passes a NUL-terminated text that lives during the call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    // A callback during thread exit finds the buffer gone; the piece is lost then.
    let lines =
        BUFFER.try_with(|buffer| buffer.borrow_mut().push(level, &text)).unwrap_or_default();
    for (level, text) in lines {
        emit(level, &text);
    }
}

/// ggml aborts the process after this call.
unsafe extern "C" fn take_abort(text: *const c_char) {
    if !text.is_null() {
        // SAFETY: ggml passes a NUL-terminated text that lives during the call.
        line(LogLevel::Error, &unsafe { CStr::from_ptr(text) }.to_string_lossy());
    }
}

/// Joins pieces into lines.
#[derive(Debug)]
struct LineBuffer {
    level: LogLevel,
    text: String,
}

impl LineBuffer {
    /// A line that never ends is cut here.
    const MAX: usize = 8192;

    const fn new() -> Self {
        Self { level: LogLevel::Debug, text: String::new() }
    }

    /// Adds a piece and answers the lines it completes.
    fn push(&mut self, level: sys::ggml_log_level, piece: &str) -> Vec<(LogLevel, String)> {
        let mut lines = Vec::new();
        if level != sys::GGML_LOG_LEVEL_CONT {
            self.flush(&mut lines);
            self.level = match level {
                sys::GGML_LOG_LEVEL_ERROR => LogLevel::Error,
                sys::GGML_LOG_LEVEL_WARN => LogLevel::Warn,
                _ => LogLevel::Debug,
            };
        }
        for part in piece.split_inclusive('\n') {
            self.text.push_str(part.trim_end_matches(['\n', '\r']));
            if part.ends_with('\n') || self.text.len() > Self::MAX {
                self.flush(&mut lines);
            }
        }
        lines
    }

    fn flush(&mut self, lines: &mut Vec<(LogLevel, String)>) {
        let text = std::mem::take(&mut self.text);
        if !text.trim().is_empty() {
            lines.push((self.level, text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_lines() {
        let mut buffer = LineBuffer::new();
        assert_eq!(buffer.push(sys::GGML_LOG_LEVEL_INFO, "loading "), []);
        assert_eq!(buffer.push(sys::GGML_LOG_LEVEL_CONT, "..."), []);
        assert_eq!(
            buffer.push(sys::GGML_LOG_LEVEL_CONT, "\n"),
            [(LogLevel::Debug, "loading ...".into())]
        );
        assert_eq!(
            buffer.push(sys::GGML_LOG_LEVEL_WARN, "one\ntwo\nthr"),
            [(LogLevel::Warn, "one".into()), (LogLevel::Warn, "two".into())]
        );
        let rest = buffer.push(sys::GGML_LOG_LEVEL_ERROR, "new\n");
        assert_eq!(rest, [(LogLevel::Warn, "thr".into()), (LogLevel::Error, "new".into())]);
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let mut buffer = LineBuffer::new();
        let lines = buffer.push(sys::GGML_LOG_LEVEL_INFO, &"x".repeat(LineBuffer::MAX + 1));
        assert_eq!(lines.len(), 1);
    }

    #[test]
    fn captured_lines_are_collected_and_nest() {
        let (inner, outer) = capture(|| {
            emit(LogLevel::Warn, "f: outer");
            let (_, inner) = capture(|| emit(LogLevel::Error, "g: inner"));
            emit(LogLevel::Debug, "h: not a warning");
            inner
        });
        assert_eq!(inner, ["g: inner"]);
        assert_eq!(outer, ["f: outer"]);
    }

    #[test]
    fn the_reason_is_for_a_person() {
        let lines = [
            "gguf_init_from_file: a".to_owned(),
            "llama_model_load: error loading model: tensor `x` is out of bounds\u{20}".to_owned(),
            "llama_model_load_from_file_impl: failed to load model".to_owned(),
        ];
        assert_eq!(reason(&lines).unwrap(), "a; error loading model: tensor `x` is out of bounds");
        assert_eq!(reason(&lines[2..]).unwrap(), "failed to load model");
        assert_eq!(reason(&[]), None);
    }
}
