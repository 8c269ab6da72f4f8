//! Making a model's weights smaller, in a process that lives for that alone.
//!
//! The process is `hearthd quantize` (`process.rs`). It gets one order on its standard input, says on its standard output how far it
//! is, and ends by itself when that input closes, so that it never outlives the daemon.

pub mod process;

use crate::supervisor::{Supervisor, ending, n_processors};
use hearth_protocol::{ErrorKind, RpcError};
use process::{Order, Said};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

/// All that a process may say. It says less than 10 KiB.
const MAX_SAID: u64 = 1 << 20;

/// What to make of what.
#[derive(Debug, Clone)]
pub(crate) struct Quantization {
    /// A GGUF file.
    pub(crate) source: PathBuf,
    /// As a person wrote it: the case of letters does not matter.
    pub(crate) type_name: String,
    /// What it holds is replaced.
    pub(crate) destination: PathBuf,
    pub(crate) imatrix: Option<PathBuf>,
    /// Also weights that are quantized already.
    pub(crate) requantize: bool,
}

/// Writes the destination, which is not on disk yet when this returns, and answers the type's own name. `progress` gets each whole
/// percent once. Dropping the future ends the process; whatever goes wrong, the destination is removed.
pub(crate) async fn quantize(
    supervisor: &Supervisor,
    what: &Quantization,
    progress: impl FnMut(f32),
) -> Result<String, RpcError> {
    let backend = supervisor.backend().await?;
    let order = Order {
        plugin: backend.path.into(),
        source: what.source.clone(),
        type_name: what.type_name.clone(),
        destination: what.destination.clone(),
        imatrix: what.imatrix.clone(),
        requantize: what.requantize,
        n_threads: n_processors(),
        sandbox: supervisor.sandbox(),
    };
    let unfinished = Unfinished(&what.destination);
    let io = |error: std::io::Error| {
        RpcError::new(ErrorKind::Io, format!("cannot start a process to quantize in: {error}"))
            .with_hint("the daemon's user may have too many processes, or too little memory")
    };
    let mut child = Command::new(supervisor.executable())
        .arg0("hearthd")
        .arg("quantize")
        .env("GGML_NO_BACKTRACE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(io)?;
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io(std::io::ErrorKind::BrokenPipe.into()));
    };
    let mut line = serde_json::to_vec(&order).map_err(|error| io(error.into()))?;
    line.push(b'\n');
    // A process that died before it read this says so below by its end.
    let _ = stdin.write_all(&line).await;
    let ended = match listen(stdout, progress).await {
        Some(ended) => ended,
        None => Err(died(child, &what.source).await),
    };
    if ended.is_ok() {
        std::mem::forget(unfinished);
    }
    ended
}

/// What the process says at its end; nothing if it ended without a word.
async fn listen(
    stdout: ChildStdout,
    mut progress: impl FnMut(f32),
) -> Option<Result<String, RpcError>> {
    let mut lines = BufReader::new(stdout.take(MAX_SAID)).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line) {
            Ok(Said::Progress(percent)) => progress(f32::from(percent.min(100)) / 100.0),
            Ok(Said::Ended(ended)) => return Some(ended),
            // Not of our process, but of some library in it.
            Err(_) => {}
        }
    }
    None
}

async fn died(mut child: Child, source: &Path) -> RpcError {
    let how = ending(child.wait().await);
    let source = source.display();
    RpcError::new(ErrorKind::WorkerDied, format!("the process that quantized `{source}` died: {how}"))
        .with_hint(
            "a damaged file can be the cause; the log says what it printed last: `journalctl -u hearth`, or hearthd's standard error",
        )
}

/// Removes the file when it is dropped.
struct Unfinished<'a>(&'a Path);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.0);
    }
}
