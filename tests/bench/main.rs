//! Figures that the documents quote: start-up, idle memory, and tokens per second beside llama-bench's.
//!
//! `docs/benchmarks.md` says how to run it, and the figures last seen. Both sides run in turn on the same machine and
//! model, and ratios
//! are taken within a round: this machine's neighbours change from minute to minute. Nothing here is a test.

use hearth_protocol::{
    Client, DaemonStatus, Empty, Generate, GenerateParams, ImportMode, ImportParams, LoadParams,
    ModelImport, ModelLoad, Options,
};
use std::error::Error;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 7;
const N_GENERATED: u32 = 128;
/// Depth of `llama-bench -d`, and about the length of our prompt.
const DEPTH: u32 = 140;
const N_STREAMS: usize = 8;
const MODEL: &str = "bench:latest";

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Result<()> {
    let args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [hearthd, backends, model, llama_bench] = args.as_slice() else {
        return Err("usage: bench HEARTHD BACKENDS MODEL.gguf LLAMA_BENCH".into());
    };
    let mut out = std::io::stdout();
    let dir = tempfile::tempdir()?;

    let starts = (0..ROUNDS * 3)
        .map(|_| start_up(hearthd, backends, dir.path()))
        .collect::<Result<Vec<_>>>()?;
    let (times, memories): (Vec<f64>, Vec<f64>) = starts.into_iter().unzip();
    writeln!(out, "exec to `daemon.status` answered: {}", spread(times, "ms"))?;
    writeln!(out, "resident memory, idle, no model: {}", spread(memories, "MiB"))?;

    let daemon = Daemon::start(hearthd, backends, dir.path())?;
    let path = std::path::absolute(model)?.display().to_string();
    let mut client = Client::connect(&daemon.socket)?;
    client.call::<ModelImport>(&ImportParams {
        path,
        name: MODEL.into(),
        mode: ImportMode::Link,
        request: None,
    })?;
    let loaded = client.call::<ModelLoad>(&LoadParams {
        model: MODEL.into(),
        keep_alive: None,
        request: None,
    })?;
    #[allow(clippy::cast_precision_loss)] // Microseconds of a few seconds.
    let load_ms = loaded.load_us as f64 / 1000.0;
    writeln!(out, "loading the model: {load_ms:.0} ms")?;

    let n_threads = std::thread::available_parallelism()?.to_string();
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut totals = Vec::new();
    for round in 0..ROUNDS {
        // Whoever is first in a round meets another machine than whoever is second, so they take turns.
        let (one, bench) = if round % 2 == 0 {
            let bench = tokens_per_second_of(llama_bench, model, &n_threads)?;
            (one_stream(&daemon.socket, 0)?, bench)
        } else {
            (one_stream(&daemon.socket, 0)?, tokens_per_second_of(llama_bench, model, &n_threads)?)
        };
        ours.push(one);
        theirs.push(bench);
        ratios.push(one / bench);
        write!(out, ".")?;
        out.flush()?;
    }
    for _ in 0..ROUNDS {
        totals.push(many_streams(&daemon.socket)? / one_stream(&daemon.socket, 0)?);
        write!(out, ".")?;
        out.flush()?;
    }
    writeln!(out)?;
    writeln!(out, "one stream: {}", spread(ours, "tokens/s"))?;
    writeln!(
        out,
        "llama-bench -d {DEPTH} -n {N_GENERATED} -t {n_threads}: {}",
        spread(theirs, "tokens/s")
    )?;
    writeln!(out, "one stream / llama-bench: {}", spread(ratios, ""))?;
    writeln!(out, "{N_STREAMS} streams together / one stream: {}", spread(totals, ""))?;
    Ok(())
}

/// Milliseconds from exec to an answered `daemon.status`, and MiB of memory once probing is over.
fn start_up(hearthd: &Path, backends: &Path, dir: &Path) -> Result<(f64, f64)> {
    let started = Instant::now();
    let daemon = Daemon::start(hearthd, backends, dir)?;
    let mut client = Client::connect(&daemon.socket)?;
    let mut status = client.call::<DaemonStatus>(&Empty {})?;
    let ms = started.elapsed().as_secs_f64() * 1000.0;
    while !status.probed {
        status = client.call::<DaemonStatus>(&Empty {})?;
    }
    #[allow(clippy::cast_precision_loss)] // A few million bytes.
    let mib = status.rss_bytes as f64 / f64::from(1 << 20);
    Ok((ms, mib))
}

fn one_stream(socket: &Path, number: usize) -> Result<f64> {
    let mut client = Client::connect(socket)?;
    let reply = client.call::<Generate>(&GenerateParams {
        model: MODEL.into(),
        prompt: format!("{number}. {}", "The quick brown fox jumps over the lazy dog. ".repeat(14)),
        raw: false,
        format: None,
        options: Options {
            temperature: Some(0.0),
            max_tokens: Some(N_GENERATED),
            ..Options::default()
        },
        keep_alive: None,
        request: None,
    })?;
    #[allow(clippy::cast_precision_loss)] // Microseconds of a few seconds.
    let seconds = reply.timings.decode_us as f64 / 1e6;
    // The first token comes with the prompt.
    Ok(f64::from(reply.usage.completion_tokens - 1) / seconds)
}

/// Tokens per second of all streams together, prompts included in the time.
fn many_streams(socket: &Path) -> Result<f64> {
    let started = Instant::now();
    let streams: Vec<_> = (0..N_STREAMS)
        .map(|number| {
            let socket = socket.to_path_buf();
            std::thread::spawn(move || one_stream(&socket, number))
        })
        .collect();
    for stream in streams {
        stream.join().map_err(|_| "a stream's thread panicked")??;
    }
    #[allow(clippy::cast_precision_loss)] // Eight.
    let n_streams = N_STREAMS as f64;
    Ok(n_streams * f64::from(N_GENERATED) / started.elapsed().as_secs_f64())
}

fn tokens_per_second_of(llama_bench: &Path, model: &Path, n_threads: &str) -> Result<f64> {
    let (depth, n_generated) = (DEPTH.to_string(), N_GENERATED.to_string());
    let output = Command::new(llama_bench)
        .arg("-m")
        .arg(model)
        .args([
            "-p",
            "0",
            "-n",
            &n_generated,
            "-d",
            &depth,
            "-t",
            n_threads,
            "-r",
            "1",
            "-o",
            "json",
        ])
        .stderr(Stdio::null())
        .output()?;
    let results: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    results[0]["avg_ts"].as_f64().ok_or_else(|| "llama-bench printed no figure".into())
}

/// Lowest, median and highest.
fn spread(mut figures: Vec<f64>, unit: &str) -> String {
    figures.sort_by(f64::total_cmp);
    let (low, median, high) = (figures[0], figures[figures.len() / 2], figures[figures.len() - 1]);
    format!("{median:.2} {unit} (from {low:.2} to {high:.2}, {} runs)", figures.len())
}

struct Daemon {
    process: Child,
    socket: PathBuf,
}

impl Daemon {
    /// Starts one and waits until its socket takes connections.
    fn start(hearthd: &Path, backends: &Path, dir: &Path) -> Result<Self> {
        let socket = dir.join("s");
        let process = Command::new(hearthd)
            .args([
                Path::new("--socket"),
                &socket,
                Path::new("--models"),
                &dir.join("m"),
                Path::new("--backends"),
                backends,
            ])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut daemon = Self { process, socket };
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::os::unix::net::UnixStream::connect(&daemon.socket).is_err() {
            if Instant::now() > deadline || daemon.process.try_wait()?.is_some() {
                return Err("hearthd did not start".into());
            }
            std::thread::yield_now();
        }
        Ok(daemon)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
