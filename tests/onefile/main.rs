//! `hearth`, the one file, alone: in an empty root, with a model and nothing else. It needs root.

#![cfg(test)]

use hearth_tests::{Guard, Ran, env_path, repository, run};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

fn program() -> PathBuf {
    let program = repository().join("target/onefile/hearth");
    assert!(program.exists(), "`hearth` is not built\nhint: run `./dev onefile`");
    program
}

/// A folder with the program and a model, to be somebody's root.
fn empty_root() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::copy(program(), root.path().join("hearth")).unwrap();
    fs::copy(env_path("HEARTH_TEST_SMOLLM2"), root.path().join("model.gguf")).unwrap();
    root
}

/// The program as root of a mount namespace of its own, in which there is nothing but `root`.
fn alone(root: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "chroot"]).arg(root).arg("/hearth");
    command.args(args).env_clear().env("PATH", "/usr/bin:/usr/sbin:/bin:/sbin");
    command
}

/// What is in a folder, so that nothing is left over.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

struct Server {
    child: Child,
    address: String,
    _guard: Guard,
}

impl Server {
    /// Starts it and reads in its log where it listens.
    fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
        let guard = Guard::new(child.id());
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        let address = loop {
            let mut line = String::new();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended, and said:\n{said}");
            said.push_str(&line);
            if let Some((_, address)) = line.split_once("Listening for HTTP address=") {
                break address.trim().to_owned();
            }
        };
        // Nobody may write to a pipe that is not read.
        std::thread::spawn(move || log.read_to_end(&mut Vec::new()));
        Self { child, address, _guard: guard }
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let len = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all((head + &body).as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap())
    }

    /// The program itself, which is the first process of its namespace, and what it started.
    fn processes(&self) -> Vec<u32> {
        let children = |process: u32| {
            let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap().flatten();
            let lists = threads
                .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
            let words = lists
                .flat_map(|list| list.split_whitespace().map(String::from).collect::<Vec<_>>());
            words.map(|process| process.parse().unwrap()).collect::<Vec<u32>>()
        };
        let mut all = children(self.child.id());
        all.extend(children(all[0]));
        all
    }

    /// By the daemon, from all files together.
    fn bytes_read(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/io", self.processes()[0])).unwrap();
        text.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
    }

    /// As a service manager would.
    fn stop(mut self) {
        let first = self.processes()[0].to_string();
        run(Command::new("kill").args(["-TERM", &first]), "").ok();
        assert!(self.child.wait().unwrap().success());
    }
}

#[test]
fn it_is_small_and_needs_no_other_file() {
    let size = fs::metadata(program()).unwrap().len();
    assert!(size < 30_000_000, "{size} bytes");
    let headers = run(Command::new("readelf").arg("-lW").arg(program()), "").ok();
    assert!(!headers.contains("INTERP"), "{headers}");
    let needed = run(Command::new("readelf").arg("-dW").arg(program()), "").ok();
    assert!(!needed.contains("NEEDED"), "{needed}");
}

#[test]
fn it_prints_the_licences_of_what_it_is_made_of() {
    let printed = run(Command::new(program()).arg("licenses"), "").ok();
    for part in [
        "\ntokio 1",
        "The ggml authors",
        "Niels Lohmann",
        "Copyright notices for The Rust Standard Library",
        "GNU LESSER GENERAL PUBLIC LICENSE",
        "Apache License",
    ] {
        assert!(printed.contains(part), "{part}");
    }
}

#[test]
fn in_an_empty_root_it_serves_a_file() {
    let root = empty_root();
    let server = Server::start(alone(
        root.path(),
        &["serve", "/model.gguf", "--listen", "127.0.0.1:0", "--name", "small"],
    ));
    // It was not read.
    let file = fs::metadata(root.path().join("model.gguf")).unwrap().len();
    let read = server.bytes_read();
    assert!(read < file / 2, "{read} of {file} bytes");
    let (status, models) = server.ask("GET", "/v1/models", &Value::Null);
    assert_eq!((status, &models["data"][0]["id"]), (200, &json!("small:latest")), "{models}");
    let question = json!({
        "model": "small", "temperature": 0, "max_tokens": 8,
        "messages": [{"role": "user", "content": "Hi!"}],
    });
    let (status, answer) = server.ask("POST", "/v1/chat/completions", &question);
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap_or_default();
    assert!(status == 200 && text.starts_with("Hello"), "{answer}");
    // The daemon, and the worker in its sandbox: 2 stands for a filter of system calls.
    let worker = server.processes().pop().unwrap();
    let status = fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
    assert!(
        status.contains("Name:\thearthd-worker") && status.contains("\nSeccomp:\t2"),
        "{status}"
    );
    server.stop();
    assert_eq!(names(root.path()), ["hearth", "model.gguf"]);
}

#[test]
fn what_can_be_an_option_can_be_a_variable() {
    let root = empty_root();
    let mut command = alone(root.path(), &["serve"]);
    command.env("HEARTH_FILE", "/model.gguf").env("HEARTH_LISTEN", "127.0.0.1:0");
    command.env("HEARTH_NAME", "by-variable");
    let server = Server::start(command);
    let (_, models) = server.ask("GET", "/v1/models", &Value::Null);
    assert_eq!(models["data"][0]["id"], "by-variable:latest", "{models}");
    server.stop();
}

#[test]
fn in_an_empty_root_it_chats_about_a_file() {
    let root = empty_root();
    let question = "Hi!";
    let options = ["--temperature", "0", "--max-tokens", "8"];
    let mut chat = alone(root.path(), &[&["chat", "/model.gguf"][..], &options].concat());
    let Ran { code, stdout, stderr } = run(&mut chat, question);
    assert!(code == Some(0) && stdout.starts_with("Hello"), "{code:?} {stdout} {stderr}");
    assert_eq!(names(root.path()), ["hearth", "model.gguf"]);
}

#[test]
fn it_is_every_program_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    for (name, usage) in [("hearthd", "hearthd"), ("ctl", "ctl"), ("hearthctl", "ctl")] {
        let link = folder.path().join(name);
        std::os::unix::fs::symlink(program(), &link).unwrap();
        let version = run(Command::new(&link).arg("--version"), "").ok();
        assert!(version.starts_with(&format!("{usage} ")), "{version}");
    }
    let help = run(Command::new(program()).arg("--help"), "").ok();
    for command in ["serve", "daemon", "chat", "pull"] {
        assert!(help.contains(&format!("  {command} ")), "{help}");
    }
}

#[test]
fn exit_codes_say_what_was_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let ran = |args: &[&str]| run(Command::new(program()).args(args).current_dir(&folder), "");
    let absent = ran(&["serve", "absent.gguf"]);
    assert_eq!(absent.code, Some(1), "{absent:?}");
    assert!(absent.stderr.contains("absent.gguf"), "{absent:?}");
    fs::write(folder.path().join("broken.gguf"), "no model").unwrap();
    for name in ["broken.gguf", "absent.gguf"] {
        let refused = ran(&["chat", name]);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains(name), "{refused:?}");
        assert_eq!(refused.stderr.matches("error: ").count(), 1, "{refused:?}");
    }
    let model = env_path("HEARTH_TEST_SMOLLM2").display().to_string();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = ran(&["serve", &model, "--listen", &other.local_addr().unwrap().to_string()]);
    assert_eq!(taken.code, Some(1), "{taken:?}");
    assert!(taken.stderr.contains("cannot listen on"), "{taken:?}");
    let closed = ran(&["serve", &model, "--listen", "0.0.0.0:0"]);
    assert!(
        closed.code == Some(1) && closed.stderr.contains("`hearth serve --keys`"),
        "{closed:?}"
    );
    assert_eq!(ran(&["serve"]).code, Some(2));
    assert_eq!(ran(&["no-such-command"]).code, Some(2));
    // `ctl`'s own code for a daemon that does not answer.
    assert_eq!(ran(&["--socket", "nowhere.sock", "status"]).code, Some(3));
    assert_eq!(names(folder.path()), ["broken.gguf"]);
}
