//! Their side: llama-server over HTTP, and llama-bench.

use crate::Result;
use crate::process::Process;
use crate::server::{Event, Request, Sampling, Server, Stream, Usage};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, PipeReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

#[derive(Debug, Clone)]
pub(crate) struct Files {
    /// The folder with the programs.
    pub(crate) programs: PathBuf,
    pub(crate) model: PathBuf,
    pub(crate) n_threads: usize,
}

impl Files {
    /// How it is started. No `--threads-batch`: it is the same by default.
    pub(crate) fn options(&self) -> Vec<String> {
        ["-t", &self.n_threads.to_string(), "-c", "32768", "-np", "8"].map(String::from).to_vec()
    }

    /// Tokens per second of `llama-bench -d DEPTH -n TOKENS`.
    pub(crate) fn bench(&self, depth: u64, n_tokens: u32) -> Result<f64> {
        let output = Command::new(self.programs.join("llama-bench"))
            .arg("-m")
            .arg(&self.model)
            .args(["-p", "0", "-r", "1", "-o", "json", "-t", &self.n_threads.to_string()])
            .args(["-d", &depth.to_string(), "-n", &n_tokens.to_string()])
            .stderr(Stdio::null())
            .output()?;
        let results: Value = serde_json::from_slice(&output.stdout)?;
        results[0]["avg_ts"].as_f64().ok_or_else(|| "llama-bench printed no figure".into())
    }
}

#[derive(Debug)]
pub(crate) struct LlamaServer {
    process: Process,
    files: Files,
    address: String,
}

impl LlamaServer {
    /// Starts one, which takes requests when this returns.
    pub(crate) fn start(files: &Files) -> Result<Self> {
        let (said, to) = std::io::pipe()?;
        let mut command = Command::new(files.programs.join("llama-server"));
        command
            .arg("-m")
            .arg(&files.model)
            .args(files.options())
            .args(["--host", "127.0.0.1", "--port", "0"])
            .stdout(to.try_clone()?)
            .stderr(to);
        let process = Process::spawn(&mut command)?;
        // It holds the other end of the pipe, whose closing tells that the server has ended.
        drop(command);
        let address = await_ready(BufReader::new(said))?;
        Ok(Self { process, files: files.clone(), address })
    }

    fn post(&self, path: &str, body: &Value) -> Result<Box<dyn Read>> {
        let body = body.to_string();
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_nodelay(true)?;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all((head + &body).as_bytes())?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let ok = line.starts_with("HTTP/1.1 200");
        let (mut chunked, mut length) = (false, u64::MAX);
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            let header = line.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            chunked |= header == "transfer-encoding: chunked";
            if let Some(value) = header.strip_prefix("content-length: ") {
                length = value.parse()?;
            }
        }
        let mut body: Box<dyn Read> = if chunked {
            Box::new(Chunks { reader, left: 0 })
        } else {
            Box::new(reader.take(length))
        };
        if !ok {
            let mut text = String::new();
            body.read_to_string(&mut text)?;
            return Err(format!("llama-server refuses {path}: {text}").into());
        }
        Ok(body)
    }
}

/// Its address, from the line it writes once the model is loaded; what comes later is read and dropped.
fn await_ready(mut said: BufReader<PipeReader>) -> Result<String> {
    const READY: &str = "listening on http://";
    let mut log = String::new();
    loop {
        let from = log.len();
        if said.read_line(&mut log)? == 0 {
            return Err(format!("llama-server did not start:\n{log}").into());
        }
        if let Some(at) = log[from..].find(READY) {
            let address = log[from + at + READY.len()..].trim().to_string();
            std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
            return Ok(address);
        }
    }
}

impl Server for LlamaServer {
    fn pids(&self) -> Result<Vec<u32>> {
        Ok(vec![self.process.pid()])
    }

    fn tokenize(&self, text: &str) -> Result<Vec<u64>> {
        let reply: Value =
            serde_json::from_reader(self.post("/tokenize", &json!({ "content": text }))?)?;
        let tokens = reply["tokens"].as_array().ok_or("llama-server sent no tokens")?;
        Ok(tokens.iter().filter_map(Value::as_u64).collect())
    }

    fn detokenize(&self, tokens: &[u64]) -> Result<String> {
        let reply: Value =
            serde_json::from_reader(self.post("/detokenize", &json!({ "tokens": tokens }))?)?;
        Ok(reply["content"].as_str().ok_or("llama-server sent no text")?.into())
    }

    fn open(&self, request: &Request) -> Result<Box<dyn Stream>> {
        let mut body =
            json!({ "prompt": request.prompt, "n_predict": request.n_tokens, "stream": true });
        match request.sampling {
            Sampling::Greedy => body["temperature"] = 0.into(),
            Sampling::Usual { seed } => {
                body["temperature"] = 0.8.into();
                body["top_k"] = 40.into();
                body["top_p"] = 0.9.into();
                // Its default is another than ours.
                body["min_p"] = 0.into();
                body["seed"] = seed.into();
            }
        }
        let reader = BufReader::new(self.post("/completion", &body)?);
        Ok(Box::new(ServerSentEvents { reader, line: String::new() }))
    }

    fn start_another(&self) -> Result<Box<dyn Server>> {
        Ok(Box::new(Self::start(&self.files)?))
    }
}

struct ServerSentEvents {
    reader: BufReader<Box<dyn Read>>,
    line: String,
}

impl Stream for ServerSentEvents {
    fn next(&mut self) -> Result<Event> {
        loop {
            self.line.clear();
            if self.reader.read_line(&mut self.line)? == 0 {
                return Err("llama-server closed the connection".into());
            }
            let Some(data) = self.line.strip_prefix("data: ") else {
                if self.line.trim().is_empty() {
                    continue;
                }
                return Err(format!("llama-server said {}", self.line).into());
            };
            let event: Value = serde_json::from_str(data)?;
            if event["stop"] == true {
                return usage(&event);
            }
            let text = event["content"].as_str().ok_or_else(|| event.to_string())?;
            if !text.is_empty() {
                return Ok(Event::Text(text.into()));
            }
        }
    }
}

fn usage(event: &Value) -> Result<Event> {
    let number = |value: &Value, name: &str| {
        value.as_u64().ok_or(format!("llama-server did not say {name}"))
    };
    Ok(Event::End(Usage {
        n_prompt: number(&event["tokens_evaluated"], "tokens_evaluated")?,
        n_cached: number(&event["timings"]["cache_n"], "cache_n")?,
        n_generated: number(&event["tokens_predicted"], "tokens_predicted")?,
    }))
}

/// A body in HTTP's chunked encoding.
struct Chunks<R> {
    reader: R,
    /// Of the present chunk.
    left: usize,
}

impl<R: BufRead> Read for Chunks<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 {
            let mut line = String::new();
            // The end of the chunk before, except at the first.
            while line.trim().is_empty() {
                line.clear();
                if self.reader.read_line(&mut line)? == 0 {
                    return Ok(0);
                }
            }
            self.left = usize::from_str_radix(line.trim(), 16)
                .map_err(|_| std::io::Error::other(format!("`{line}` is no chunk's length")))?;
            if self.left == 0 {
                return Ok(0);
            }
        }
        let n = buffer.len().min(self.left);
        let n = self.reader.read(&mut buffer[..n])?;
        self.left -= n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_join_to_the_body() {
        let reader = &b"5\r\ndata:\r\n0c\r\n a\r\nb\n\n and \r\n1\r\nc\r\n0\r\n\r\n"[..];
        let mut body = String::new();
        Chunks { reader, left: 0 }.read_to_string(&mut body).unwrap();
        assert_eq!(body, "data: a\r\nb\n\n and c");
    }

    #[test]
    fn a_length_that_is_none_is_an_error() {
        let mut body = String::new();
        assert!(Chunks { reader: &b"xyz\r\n"[..], left: 0 }.read_to_string(&mut body).is_err());
    }
}
