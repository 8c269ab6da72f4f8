//! Our side: a private `hearthd`, and streams on its socket.

use crate::Result;
use crate::process::Process;
use crate::server::{Event, Request, Sampling, Server, Stream, Usage};
use hearth_protocol::{
    Client, Detokenize, DetokenizeParams, Empty, ImportMode, ImportParams, LoadParams, ModelImport,
    ModelLoad, ModelPs, Tokenize, TokenizeParams,
};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const MODEL: &str = "bench:latest";

/// The same context and number of requests at once as llama-server gets; threads are left to the daemon.
const CONFIG: &str = "keep_alive = \"-1\"\n[engine]\ncontext = 32768\nparallel = 8\n";

/// What a daemon is started from.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub(crate) hearthd: PathBuf,
    pub(crate) backends: PathBuf,
    /// The folder of models.
    pub(crate) store: PathBuf,
    pub(crate) config: String,
}

/// The configuration, with lines more for its `[engine]`.
pub(crate) fn config(more: &[String]) -> String {
    [&[CONFIG.to_owned()], more].concat().concat()
}

#[derive(Debug)]
pub(crate) struct Hearth {
    // Ends before its folder goes.
    process: Process,
    files: Files,
    socket: PathBuf,
    _dir: TempDir,
}

impl Hearth {
    /// Starts a daemon, which listens when this returns.
    pub(crate) fn start(files: &Files) -> Result<Self> {
        // The kernel's limit for a socket's path is 108 bytes, and `$TMPDIR` may be long.
        let dir = tempfile::Builder::new().prefix("hearth-bench").tempdir_in("/tmp")?;
        let path = dir.path();
        std::fs::write(path.join("hearth.toml"), &files.config)?;
        let socket = path.join("sock");
        let notify = UnixDatagram::bind(path.join("notify"))?;
        notify.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut command = Command::new(&files.hearthd);
        command
            .arg("--config")
            .arg(path.join("hearth.toml"))
            .arg("--socket")
            .arg(&socket)
            .arg("--state-dir")
            .arg(path.join("state"))
            .arg("--models")
            .arg(&files.store)
            .arg("--backends")
            .arg(&files.backends)
            .env("NOTIFY_SOCKET", path.join("notify"))
            .stdout(Stdio::null())
            .stderr(File::create(path.join("log"))?);
        let mut process = Process::spawn(&mut command)?;
        await_ready(&notify, &mut process)?;
        Ok(Self { process, files: files.clone(), socket, _dir: dir })
    }

    /// Copies a model into the store.
    pub(crate) fn import(&self, model: &Path) -> Result<()> {
        let path = std::path::absolute(model)?.display().to_string();
        let params =
            ImportParams { path, name: Some(MODEL.into()), mode: ImportMode::Copy, request: None };
        self.client()?.call::<ModelImport>(&params)?;
        Ok(())
    }

    /// Loads the model.
    pub(crate) fn load(&self) -> Result<()> {
        let params =
            LoadParams { model: MODEL.into(), draft: None, keep_alive: None, request: None };
        self.client()?.call::<ModelLoad>(&params)?;
        Ok(())
    }

    fn client(&self) -> Result<Client> {
        Ok(Client::connect(&self.socket)?)
    }
}

fn await_ready(notify: &UnixDatagram, process: &mut Process) -> Result<()> {
    let mut message = [0; 4096];
    loop {
        match notify.recv(&mut message) {
            Ok(n) if message[..n].starts_with(b"READY=1") => return Ok(()),
            Ok(_) => {}
            // Nothing came for a while.
            Err(_) if process.has_ended()? => return Err("hearthd did not start".into()),
            Err(_) => {}
        }
    }
}

impl Server for Hearth {
    fn pids(&self) -> Result<Vec<u32>> {
        let loaded = self.client()?.call::<ModelPs>(&Empty {})?.models;
        Ok(loaded.iter().map(|model| model.pid).chain([self.process.pid()]).collect())
    }

    fn tokenize(&self, text: &str) -> Result<Vec<u64>> {
        let params = TokenizeParams {
            model: MODEL.into(),
            text: text.into(),
            add_special: false,
            parse_special: false,
            pieces: false,
        };
        let reply = self.client()?.call::<Tokenize>(&params)?;
        reply.tokens.into_iter().map(|token| Ok(token.try_into()?)).collect()
    }

    fn detokenize(&self, tokens: &[u64]) -> Result<String> {
        let tokens = tokens.iter().map(|&token| Ok(token.try_into()?)).collect::<Result<_>>()?;
        let params = DetokenizeParams { model: MODEL.into(), tokens, special: false };
        Ok(self.client()?.call::<Detokenize>(&params)?.text)
    }

    fn open(&self, request: &Request) -> Result<Box<dyn Stream>> {
        let mut options = json!({ "max_tokens": request.n_tokens });
        match request.sampling {
            Sampling::Greedy => options["temperature"] = 0.into(),
            Sampling::Usual { seed } => {
                options["temperature"] = 0.8.into();
                options["top_k"] = 40.into();
                options["top_p"] = 0.9.into();
                options["seed"] = seed.into();
            }
        }
        let params = json!({ "model": MODEL, "prompt": request.prompt, "options": options });
        let call =
            json!({ "jsonrpc": "2.0", "id": 1, "method": "generate.stream", "params": params });
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.write_all(format!("{call}\n").as_bytes())?;
        Ok(Box::new(Lines { reader: BufReader::new(stream), line: String::new() }))
    }

    fn start_another(&self) -> Result<Box<dyn Server>> {
        Ok(Box::new(Self::start(&self.files)?))
    }
}

struct Lines {
    reader: BufReader<UnixStream>,
    line: String,
}

impl Stream for Lines {
    fn next(&mut self) -> Result<Event> {
        loop {
            self.line.clear();
            if self.reader.read_line(&mut self.line)? == 0 {
                return Err("hearthd closed the connection".into());
            }
            let message: Value = serde_json::from_str(&self.line)?;
            let event = &message["params"]["result"];
            match event["type"].as_str() {
                Some("delta") => {
                    let text = event["text"].as_str().unwrap_or_default();
                    if !text.is_empty() {
                        return Ok(Event::Text(text.into()));
                    }
                }
                Some("done") => return usage(&event["reply"]["usage"]),
                Some("error") => return Err(event.to_string().into()),
                // What comes before the answer.
                Some(_) => {}
                None if message["error"].is_null() => {}
                None => return Err(message.to_string().into()),
            }
        }
    }
}

fn usage(usage: &Value) -> Result<Event> {
    let number = |name: &str| usage[name].as_u64().ok_or(format!("hearthd did not say {name}"));
    Ok(Event::End(Usage {
        n_prompt: number("prompt_tokens")?,
        n_cached: number("cached_tokens")?,
        n_generated: number("completion_tokens")?,
    }))
}
