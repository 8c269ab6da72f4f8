//! `ctl export MODEL TO`: a model as a GGUF file or as an OCI layout.
//!
//! The daemon sends the bytes and the files are written here, so they belong to whoever asked. A file gets its name when
//! it is whole, has the right hash and is on disk; of a layout the index comes last.

use super::Context;
use super::progress::{DELAY, bar};
use crate::args::ExportFormat;
use crate::error::CtlError;
use crate::format::bytes;
use crate::session::Session;
use crate::status_line::StatusLine;
use hearth_protocol::{Exported, ModelExport, ModelParams};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

enum Destination {
    Stdout,
    Gguf(PathBuf),
    Layout(PathBuf),
}

pub(super) fn run(
    context: &Context,
    model: String,
    to: &str,
    format: Option<ExportFormat>,
) -> Result<(), CtlError> {
    let destination = destination(context, to, format)?;
    let mut session = context.connect()?;
    let exported: Exported = session.ask::<ModelExport>(&ModelParams { model })?;
    let mut export = Export {
        session: &session,
        status: StatusLine::start(&context.out, DELAY, "waiting for the daemon"),
        n_done: 0,
        n_total: exported.n_bytes(&destination),
    };
    let written = match &destination {
        Destination::Stdout => {
            export.fetch(exported.weights()?, &mut io::stdout().lock(), CtlError::Output)
        }
        Destination::Gguf(path) => export.file(exported.weights()?, path),
        Destination::Layout(dir) => export.layout(&exported, dir),
    };
    export.status.finish();
    written?;
    let Exported { name, id, .. } = &exported;
    let size = export.n_total;
    match destination {
        Destination::Stdout => Ok(()),
        _ if context.out.is_json() => {
            context.out.json(&json!({ "name": name, "id": id, "path": to, "size_bytes": size }))
        }
        _ => context.out.line(&format!("`{name}` is in `{to}`, {}", bytes(size))),
    }
}

fn destination(
    context: &Context,
    to: &str,
    format: Option<ExportFormat>,
) -> Result<Destination, CtlError> {
    let path = PathBuf::from(to);
    match format {
        Some(ExportFormat::Oci) if to != "-" => return Ok(Destination::Layout(path)),
        _ if to == "-" && context.out.stdout_is_terminal() => {}
        None | Some(ExportFormat::Gguf) if to == "-" => return Ok(Destination::Stdout),
        Some(ExportFormat::Gguf) if !path.is_dir() => return Ok(Destination::Gguf(path)),
        None if to.ends_with('/') || path.is_dir() => return Ok(Destination::Layout(path)),
        None if to.ends_with(".gguf") => return Ok(Destination::Gguf(path)),
        _ => {}
    }
    Err(CtlError::usage(
        format!("`{to}` is no place for an export"),
        "give `FILE.gguf`, `FOLDER/`, or `-` where stdout is a file or a pipe",
    ))
}

/// What one export needs of the manifest.
trait Parts {
    fn weights(&self) -> Result<&str, CtlError>;
    fn n_bytes(&self, destination: &Destination) -> u64;
}

impl Parts for Exported {
    fn weights(&self) -> Result<&str, CtlError> {
        self.weights.as_deref().ok_or_else(|| {
            CtlError::failed(
                format!("`{}` has no GGUF file", self.name),
                "export it as an OCI layout, `--format oci`",
            )
        })
    }

    fn n_bytes(&self, destination: &Destination) -> u64 {
        let is_wanted = |digest: &String| match destination {
            Destination::Layout(_) => true,
            _ => self.weights.as_ref() == Some(digest),
        };
        let wanted = self.blobs.iter().filter(|blob| is_wanted(&blob.digest));
        wanted.map(|blob| blob.size_bytes).sum()
    }
}

struct Export<'s> {
    session: &'s Session,
    status: StatusLine,
    n_done: u64,
    n_total: u64,
}

impl Export<'_> {
    /// Writes a blob's bytes, and fails in the end if they are not what its digest says.
    fn fetch(
        &mut self,
        digest: &str,
        to: &mut dyn Write,
        failed: impl Fn(io::Error) -> CtlError,
    ) -> Result<(), CtlError> {
        let mut hasher = Sha256::new();
        self.session.fetch(digest, |chunk| {
            hasher.update(chunk);
            to.write_all(chunk).map_err(&failed)?;
            self.n_done += chunk.len() as u64;
            self.status.set(bar("exporting", self.n_done as f32 / self.n_total.max(1) as f32));
            Ok(())
        })?;
        to.flush().map_err(&failed)?;
        let actual = sha256(hasher);
        if actual == digest {
            return Ok(());
        }
        Err(CtlError::failed(
            format!("the store's file for `{digest}` is damaged: it has digest `{actual}`"),
            "`ctl verify` says which models have it; pull or import them again",
        ))
    }

    fn file(&mut self, digest: &str, path: &Path) -> Result<(), CtlError> {
        write(path, |file| self.fetch(digest, file, failed("write", path)))
    }

    fn layout(&mut self, exported: &Exported, dir: &Path) -> Result<(), CtlError> {
        let index = dir.join("index.json");
        refuse_other_files(dir)?;
        let others = others(&index, &exported.name)?;
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(failed("create", &blobs))?;
        let place = |digest: &str| blobs.join(digest.trim_start_matches("sha256:"));
        for blob in &exported.blobs {
            self.file(&blob.digest, &place(&blob.digest))?;
        }
        // Tools that read a layout refuse Docker's kind of manifest where its layers are no images.
        let manifest = exported.manifest.replacen(DOCKER_MANIFEST, OCI_MANIFEST, 1);
        let manifest = manifest.as_bytes();
        let digest = sha256(Sha256::new_with_prefix(manifest));
        let text = |bytes: &[u8], path: &Path| {
            write(path, |file| file.write_all(bytes).map_err(failed("write", path)))
        };
        text(manifest, &place(&digest))?;
        text(br#"{"imageLayoutVersion":"1.0.0"}"#, &dir.join("oci-layout"))?;

        let descriptor = json!({
            "mediaType": OCI_MANIFEST,
            "digest": digest,
            "size": manifest.len(),
            "annotations": { REF_NAME: exported.name },
        });
        let manifests: Vec<Value> = others.into_iter().chain([descriptor]).collect();
        let content = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests });
        text(content.to_string().as_bytes(), &index)
    }
}

/// A slip of the finger shall not strew blobs over somebody's home.
fn refuse_other_files(dir: &Path) -> Result<(), CtlError> {
    let is_own =
        |name: &OsStr| ["blobs", "index.json", "oci-layout"].iter().any(|own| name == *own);
    let names = dir.read_dir().into_iter().flatten().flatten().map(|entry| entry.file_name());
    let Some(other) = names.into_iter().find(|name| !is_own(name)) else { return Ok(()) };
    Err(CtlError::failed(
        format!("`{}` is no OCI layout: it has `{}`", dir.display(), other.display()),
        "name a folder that does not exist yet, or a file that ends with `.gguf`",
    ))
}

/// The models that a layout has already, but for one of this name.
fn others(index: &Path, name: &str) -> Result<Vec<Value>, CtlError> {
    let text = match fs::read_to_string(index) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.map_err(failed("read", index))?,
    };
    let content: Value = serde_json::from_str(&text).unwrap_or_default();
    let Some(mut manifests) = content.get("manifests").and_then(Value::as_array).cloned() else {
        return Err(CtlError::failed(
            format!("`{}` is no index of an OCI layout", index.display()),
            "export into a folder that does not exist yet",
        ));
    };
    manifests.retain(|manifest| manifest["annotations"][REF_NAME] != name);
    Ok(manifests)
}

/// Makes a file appear whole, replacing what has the name.
fn write(
    path: &Path,
    fill: impl FnOnce(&mut File) -> Result<(), CtlError>,
) -> Result<(), CtlError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let dir = parent.unwrap_or(Path::new("."));
    let failed = failed("write", path);
    // Before the other file, whose name would tell a person nothing.
    let folder = File::open(dir).map_err(&failed)?;
    let mut temp = tempfile::Builder::new()
        .prefix(".ctl-export-")
        // What the umask leaves of it.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(dir)
        .map_err(&failed)?;
    fill(temp.as_file_mut())?;
    temp.as_file().sync_all().map_err(&failed)?;
    temp.persist(path).map_err(|error| failed(error.error))?;
    folder.sync_all().map_err(failed)
}

fn failed(action: &str, path: &Path) -> impl Fn(io::Error) -> CtlError {
    let what = format!("cannot {action} `{}`", path.display());
    move |error| CtlError::failed(format!("{what}: {error}"), "choose another place for the export")
}

fn sha256(hasher: Sha256) -> String {
    let hex: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
