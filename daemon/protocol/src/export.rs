//! A model's files out of the store: `model.export`, and `GET /blobs/DIGEST` for their bytes.

use crate::client::{Canceller, ClientError};
use crate::error::RpcError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, BufReader, Read, Take, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// A head of more is nothing of ours.
const MAX_HEAD: u64 = 32 << 10;
/// An error of more is nothing of ours.
const MAX_ERROR: u64 = 1 << 20;

/// Result of `model.export`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Exported {
    /// Short form of the name.
    pub name: String,
    /// SHA-256 of the manifest, in hex.
    pub id: String,
    /// The manifest, byte for byte.
    pub manifest: String,
    /// Digest of the blob that is the GGUF file with the weights; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// Everything that the manifest names, each once.
    pub blobs: Vec<ExportedBlob>,
}

/// A file that a manifest names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExportedBlob {
    /// `sha256:` and 64 hexadecimal digits. `GET /blobs/DIGEST` on the socket answers with the bytes.
    pub digest: String,
    /// How many those are.
    pub size_bytes: u64,
}

/// The bytes of a blob, over a connection of their own. It ends early if the connection does.
#[derive(Debug)]
pub struct Blob {
    body: Take<BufReader<UnixStream>>,
}

impl Blob {
    /// Asks for a blob by its digest.
    pub fn open(socket: &Path, digest: &str) -> Result<Self, ClientError> {
        let mut stream = UnixStream::connect(socket)
            .map_err(|source| ClientError::Connect { path: socket.into(), source })?;
        let head =
            format!("GET /blobs/{digest} HTTP/1.1\r\nhost: hearth\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        let mut reader = BufReader::new(stream).take(MAX_HEAD);
        let (mut status, mut length) = (String::new(), None);
        reader.read_line(&mut status)?;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Err(ClientError::Closed);
            }
            let Some((name, value)) = line.split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().ok();
            }
        }
        let mut body = reader.into_inner();
        if status.starts_with("HTTP/1.1 200 ") {
            let Some(length) = length else {
                return Err(ClientError::Protocol("a blob without its length".into()));
            };
            return Ok(Self { body: body.take(length) });
        }
        let mut text = String::new();
        body.by_ref().take(MAX_ERROR).read_to_string(&mut text)?;
        #[derive(Deserialize)]
        struct Refusal {
            error: RpcError,
        }
        match serde_json::from_str(&text) {
            Ok(Refusal { error }) => Err(error.into()),
            Err(_) => Err(ClientError::Protocol(status.trim().into())),
        }
    }

    /// How many bytes are still to come.
    pub fn n_left(&self) -> u64 {
        self.body.limit()
    }

    /// A handle that ends the connection from another thread.
    pub fn canceller(&self) -> io::Result<Canceller> {
        Canceller::of(self.body.get_ref().get_ref())
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.body.read(buffer)
    }
}
