//! Files that the daemon cannot open, sent over its socket: `POST /blobs/DIGEST`, one connection each.
//!
//! A file is read twice, for its digest and to be sent; one that the daemon has already is not sent.

use crate::error::CtlError;
use crate::format::percent;
use crate::session::Session;
use crate::status_line::StatusLine;
use hearth_protocol::{CreateFile, RpcError, UploadedFile};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

const CHUNK_BYTES: usize = 1 << 20;
/// What the converter reads of a folder.
const READ: [&str; 4] = ["safetensors", "json", "model", "jinja"];

/// A file, or the files of a folder that a model is made of.
pub(crate) fn upload(
    session: &Session,
    status: &StatusLine,
    path: &Path,
) -> Result<Vec<CreateFile>, CtlError> {
    let cannot = |error: io::Error| cannot("read", path, &error);
    let mut files = Vec::new();
    if path.is_dir() {
        list(path, "", &mut files).map_err(cannot)?;
        let ends =
            |name: &str, with: &str| name.rsplit_once('.').is_some_and(|(_, end)| end == with);
        let is_converted = files.iter().any(|(name, _)| ends(name, "safetensors"));
        files.retain(|(name, _)| match is_converted {
            true => READ.iter().any(|end| ends(name, end)),
            false => ends(name, "gguf") && !name.contains('/'),
        });
    } else {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        files.push((name.into_owned(), path.to_owned()));
    }
    if files.is_empty() {
        return Err(CtlError::failed(
            format!("the folder `{}` holds neither safetensors nor GGUF files", path.display()),
            "name the folder or the file of a model",
        ));
    }
    let send = |(name, path): (String, PathBuf)| {
        let digest = send(session, status, &name, &path)?;
        Ok(CreateFile::Blob(UploadedFile { name, digest }))
    };
    files.into_iter().map(send).collect()
}

/// With the names that files have from the folder on, one level deep.
fn list(folder: &Path, prefix: &str, files: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let name = format!("{prefix}{name}");
        if path.is_file() {
            files.push((name, path));
        } else if path.is_dir() && prefix.is_empty() {
            list(&path, &format!("{name}/"), files)?;
        }
    }
    Ok(())
}

fn send(
    session: &Session,
    status: &StatusLine,
    name: &str,
    path: &Path,
) -> Result<String, CtlError> {
    let cannot_read = |error: io::Error| cannot("read", path, &error);
    let mut file = File::open(path).map_err(cannot_read)?;
    let len = file.metadata().map_err(cannot_read)?.len();
    let mut hasher = Sha256::new();
    read(session, &mut file, |chunk, done| {
        status.set(format!("hashing {name} {}", shown(done, len)));
        hasher.update(chunk);
        Ok(())
    })
    .map_err(|error| error.of(path))?;
    let hex: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let digest = format!("sha256:{hex}");
    if ask(session, "HEAD", &digest, 0).and_then(reply)?.0 == 200 {
        return Ok(digest);
    }
    file.rewind().map_err(cannot_read)?;
    let mut stream = ask(session, "POST", &digest, len)?;
    read(session, &mut file, |chunk, done| {
        status.set(format!("sending {name} {}", shown(done, len)));
        stream.write_all(chunk)
    })
    .map_err(|error| error.of(path))?;
    match reply(stream)? {
        (200 | 201, _) => Ok(digest),
        (status, mut body) => match serde_json::from_value::<RpcError>(body["error"].take()) {
            Ok(error) => Err(CtlError::Rpc { error, hint: None }),
            Err(_) => Err(CtlError::failed(
                format!("the daemon does not take `{name}`: status {status}"),
                "its log may say why; `ctl status` tells which daemon it is",
            )),
        },
    }
}

enum Broken {
    Read(io::Error),
    Send(io::Error),
    Interrupted,
}

impl Broken {
    fn of(self, path: &Path) -> CtlError {
        match self {
            Self::Read(error) => cannot("read", path, &error),
            Self::Send(error) => cannot("send", path, &error),
            Self::Interrupted => CtlError::Interrupted,
        }
    }
}

fn read(
    session: &Session,
    file: &mut File,
    mut each: impl FnMut(&[u8], u64) -> io::Result<()>,
) -> Result<(), Broken> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut done = 0;
    loop {
        let n = match file.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(Broken::Read(error)),
        };
        if session.interrupted() {
            return Err(Broken::Interrupted);
        }
        done += n as u64;
        each(&chunk[..n], done).map_err(Broken::Send)?;
    }
}

fn ask(session: &Session, method: &str, digest: &str, len: u64) -> Result<UnixStream, CtlError> {
    let head = format!(
        "{method} /blobs/{digest} HTTP/1.1\r\nHost: hearth\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n"
    );
    let asked = UnixStream::connect(session.path()).and_then(|mut stream| {
        stream.write_all(head.as_bytes())?;
        Ok(stream)
    });
    asked.map_err(|error| cannot("ask at", session.path(), &error))
}

/// The status, and the body if it is JSON.
fn reply(mut stream: UnixStream) -> Result<(u16, Value), CtlError> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map_err(|_| CtlError::Disconnected)?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").ok_or(CtlError::Disconnected)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or(CtlError::Disconnected)?, serde_json::from_str(body).unwrap_or_default()))
}

fn shown(done: u64, len: u64) -> String {
    percent(if len == 0 { 1.0 } else { done as f32 / len as f32 })
}

fn cannot(action: &str, path: &Path, error: &io::Error) -> CtlError {
    CtlError::failed(
        format!("cannot {action} `{}`: {error}", path.display()),
        "what is sent must stay readable, and the daemon up, until all of it is there",
    )
}
