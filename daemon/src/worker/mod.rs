//! The worker process: one plugin, one model, one engine.
//!
//! `hearthd worker` is started by the supervisor with one end of a socket pair as its standard input. Four threads:
//! the main one loads the model and runs the loop, `read` takes frames, `prepare` renders and tokenizes, `present`
//! turns engine events into frames. Constraints add `guide` for a while, which reads the vocabulary, and `masks`. When the
//! daemon's end closes, for whatever reason, the process ends at once, also in
//! the middle of a decode: a worker never outlives its daemon.

mod answer;
mod candidates;
mod chat;
mod engine_loop;
mod fit;
mod formats;
pub(crate) mod frames;
mod images;
pub(crate) mod infill;
mod load;
mod parsing;
mod prepare;
mod present;
pub(crate) mod preset;
mod public;
mod render;
mod sampling;
mod score;
mod tools;

use frames::{LoadSpec, ToWorker};
use hearth_protocol::RpcError;
use prepare::Todo;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io::{self, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};

/// Runs until the daemon's end of standard input closes.
pub fn run() -> anyhow::Result<()> {
    // systemd at a stop, and a terminal at Ctrl-C, signal every process of the service. Only the daemon decides when a worker
    // ends, which is after the answers it still owes.
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::default())?;
    }
    // The plugin and the model are hostile until shown otherwise: no setuid program can be reached from here.
    #[cfg(target_os = "linux")]
    {
        rustix::thread::set_no_new_privs(true)?;
        // Out of memory, the kernel is to end this process rather than the daemon, which starts another.
        let _ = std::fs::write("/proc/self/oom_score_adj", "500");
        // What `ps` and `top` show; started from /proc/self/exe, the process would be called `exe`.
        rustix::thread::set_name(c"hearthd-worker")?;
    }
    let stream = UnixStream::from(rustix::fd::AsFd::as_fd(&io::stdin()).try_clone_to_owned()?);
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut buffer = Vec::new();
    let Some(ToWorker::Load(spec)) = frames::read(&mut reader, &mut buffer)? else {
        anyhow::bail!("`hearthd worker` is started by hearthd itself");
    };

    // Before there is another thread: Landlock holds for the thread that asks, and for those it makes.
    let shut_in = shut_in(&spec);

    let (present, present_rx) = mpsc::channel();
    let (prepare, prepare_rx) = mpsc::channel();
    let (engine, engine_rx) = mpsc::channel();
    let (model, model_rx) = mpsc::channel();
    spawn("present", move || present::run(&present_rx, stream))?;
    spawn("prepare", {
        let (present, later) = (present.clone(), prepare.clone());
        let preset = spec.preset.clone();
        move || {
            // Nothing can be prepared before the model is open; the sender goes without a model if that fails.
            if let Ok(opened) = model_rx.recv() {
                prepare::run(&opened, preset, &prepare_rx, &later, &engine, &present);
            }
        }
    })?;
    spawn("read", move || {
        while let Ok(Some(frame)) = frames::read::<ToWorker>(&mut reader, &mut buffer) {
            if prepare.send(Todo::Frame(frame)).is_err() {
                break;
            }
        }
        end(0)
    })?;
    // On the process's first thread: GNU OpenMP counts that one as busy whatever it does, and with more threads than
    // processors it ignores the spin count that the supervisor has set.
    engine_loop::run(&spec, shut_in, &model, &engine_rx, &present);
    Ok(())
}

/// The plugin and the model are hostile until shown otherwise.
fn shut_in(spec: &LoadSpec) -> Result<(), RpcError> {
    let Some(sandbox) = &spec.sandbox else { return Ok(()) };
    let draft = spec.draft.iter().map(|draft| &draft.path);
    let files = spec.adapters.iter().chain(&spec.projector).chain(draft).chain([&spec.model]);
    let read: Vec<_> = files.cloned().collect();
    sandbox.enter(&spec.plugin, &read, None)
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.into()).spawn(body)?;
    Ok(())
}

/// Ends the process under the other threads, which may be inside the plugin.
#[allow(clippy::exit)] // Waiting for a decode, or for a driver that hangs, would keep a worker without a daemon alive.
fn end(code: i32) -> ! {
    let _ = io::stderr().flush();
    std::process::exit(code)
}
