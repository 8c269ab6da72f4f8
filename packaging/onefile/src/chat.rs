//! `hearth chat FILE`: a chat with a daemon of its own.

use crate::scratch;
use anyhow::{Context as _, ensure};
use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::thread;

/// `args` is the whole command line, whose third word is the file.
pub(crate) fn run(args: Vec<OsString>) -> ExitCode {
    chat(args).unwrap_or_else(|error| hearthd::exit_code(Err(error)))
}

fn chat(mut args: Vec<OsString>) -> anyhow::Result<ExitCode> {
    let file = PathBuf::from(args.remove(2));
    let folder = scratch::folder(&file)?;
    let socket = folder.path().join("hearth.sock");
    let (mut daemon, listens) = start(&file, &socket, folder.path())?;
    if !listens {
        let ended = daemon.wait()?;
        // Otherwise it has said itself why.
        ensure!(ended.code().is_some(), "the daemon died when it started: {ended}");
        return Ok(ExitCode::FAILURE);
    }
    args.splice(1..1, ["--socket".into(), socket.into_os_string()]);
    let code = hearth_ctl::run(args);
    // Its end of standard input ends it.
    drop(daemon.stdin.take());
    let _ = daemon.wait();
    Ok(code)
}

/// Starts a daemon and waits until it listens, which it tells as it would a service manager, or has ended.
fn start(file: &Path, socket: &Path, folder: &Path) -> anyhow::Result<(Child, bool)> {
    let path = folder.join("ready");
    let told = UnixDatagram::bind(&path)?;
    let mut child = Command::new(hearthd::service::executable()?)
        .arg0("hearth")
        .args(["serve", "--log", "warn", "--for-chat"])
        .args([socket, file])
        .env("NOTIFY_SOCKET", &path)
        // Ctrl-C is for the chat.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start a daemon")?;
    let mut stdout = child.stdout.take().context("there is no pipe from the daemon")?;
    let (has_begun, news) = mpsc::channel();
    let has_ended = has_begun.clone();
    thread::spawn(move || {
        let _ = stdout.read_to_end(&mut Vec::new());
        let _ = has_ended.send(false);
    });
    // It goes on telling how it is, and must find somebody who listens.
    thread::spawn(move || {
        let mut message = [0; 4096];
        while let Ok(len) = told.recv(&mut message) {
            if message[..len].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                let _ = has_begun.send(true);
            }
        }
    });
    let listens = news.recv()?;
    Ok((child, listens))
}
