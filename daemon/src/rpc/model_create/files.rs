//! From what a caller names to blobs: files are brought in as an import does, folders of safetensors are converted.
//!
//! A file that the daemon cannot open is an error of its own kind: a caller who can may upload it, and name the blob.

use super::invalid;
use crate::rpc::given::{absolute, check_readable, unreadable};
use crate::rpc::model_import::stage_name;
use crate::rpc::reported::Reporter;
use crate::rpc::store_error;
use hearth_convert::{
    ConvertError, ConvertProgress, Options, OutputType, convert, convert_adapter, half_type,
};
use hearth_protocol::{CreateFile, ErrorKind, RpcError, UploadedFile};
use hearth_store::{
    Blob, Digest, ImportMode, ImportProgress, LayerKind, ModelName, NewBlob, Store, StoreError,
    file_kind, place,
};
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};
use tempfile::TempDir;

pub(super) struct Files<'a> {
    pub(super) store: &'a Store,
    /// What is being made.
    pub(super) name: &'a ModelName,
    pub(super) mode: ImportMode,
    pub(super) quantizes: bool,
    pub(super) reporter: &'a mut Reporter,
}

/// Weights that are only there to be quantized. They are no blob, so that nothing is left of them.
pub(super) enum Raw {
    File(PathBuf),
    Converted(NewBlob),
}

impl Raw {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::File(path) => path,
            Self::Converted(blob) => blob.path(),
        }
    }
}

/// What is behind a caller's words.
enum Found {
    Blob(Blob),
    Gguf(PathBuf),
    /// Of safetensors. One that is made of uploaded files lasts as long as it is read.
    Folder(PathBuf, Option<TempDir>),
}

impl Files<'_> {
    /// What the model is to have, and what its weights are to be made of where they are quantized.
    pub(super) fn weights(
        &mut self,
        files: &[CreateFile],
    ) -> Result<(Vec<Blob>, Option<Raw>), RpcError> {
        let (mut blobs, mut raw) = (Vec::new(), None);
        for found in self.find(files)? {
            let (blob, path) = match found {
                Found::Blob(blob) => (Some(blob), self.store.blobs().path(&blob.digest)),
                Found::Gguf(path) => (None, path),
                Found::Folder(folder, _uploaded) => {
                    let output_type = half_type(&folder).map_err(|error| convert_error(&error))?;
                    let converted = self.converted(output_type, |options, blob, progress| {
                        convert(&folder, options, blob, progress)
                    })?;
                    if self.quantizes {
                        only(&mut raw, Raw::Converted(converted))?;
                    } else {
                        blobs.push(self.published(converted)?);
                    }
                    continue;
                }
            };
            if self.quantizes
                && file_kind(&path).map_err(|error| store_error(&error))? == LayerKind::Model
            {
                only(&mut raw, Raw::File(path))?;
                continue;
            }
            blobs.push(blob.map_or_else(|| self.placed(&path), Ok)?);
        }
        Ok((blobs, raw))
    }

    /// `base` names the weights that they are for.
    pub(super) fn adapters(
        &mut self,
        files: &[CreateFile],
        base: impl Fn() -> Result<PathBuf, StoreError>,
    ) -> Result<Vec<Blob>, RpcError> {
        let mut blobs = Vec::new();
        for found in self.find(files)? {
            blobs.push(match found {
                Found::Blob(blob) => blob,
                Found::Gguf(path) => self.placed(&path)?,
                Found::Folder(folder, _uploaded) => {
                    let base = base().map_err(|error| store_error(&error))?;
                    let converted =
                        self.converted(OutputType::F32, |options, blob, progress| {
                            convert_adapter(&folder, &base, options, blob, progress)
                        })?;
                    self.published(converted)?
                }
            });
        }
        Ok(blobs)
    }

    pub(super) fn draft(&mut self, file: &CreateFile) -> Result<Blob, RpcError> {
        let mut found = self.find(std::slice::from_ref(file))?;
        match (found.pop(), found.is_empty()) {
            (Some(Found::Blob(blob)), true) => Ok(blob),
            (Some(Found::Gguf(path)), true) => self.placed(&path),
            _ => Err(invalid("a draft is one GGUF file", "name the file and not its folder")),
        }
    }

    fn placed(&mut self, path: &Path) -> Result<Blob, RpcError> {
        let file_name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut progress = |ImportProgress { stage, bytes_done, bytes_total }| {
            let stage = format!("{} {file_name}", stage_name(stage));
            self.reporter.tell(&stage, bytes_done, bytes_total)
        };
        place(self.store, path, self.mode, &mut progress).map_err(|error| store_error(&error))
    }

    fn converted(
        &mut self,
        output_type: OutputType,
        convert: impl FnOnce(
            &Options,
            NewBlob,
            &mut dyn FnMut(ConvertProgress) -> ControlFlow<()>,
        ) -> Result<NewBlob, ConvertError>,
    ) -> Result<NewBlob, RpcError> {
        let options = Options { name: self.name.model().to_owned(), output_type };
        let blob = NewBlob::create(self.store).map_err(|error| store_error(&error))?;
        let mut progress = |ConvertProgress { bytes_done, bytes_total }| {
            self.reporter.tell("converting", bytes_done, bytes_total)
        };
        convert(&options, blob, &mut progress).map_err(|error| convert_error(&error))
    }

    fn published(&mut self, blob: NewBlob) -> Result<Blob, RpcError> {
        if self.reporter.tell("writing to disk", 0, 0).is_break() {
            return Err(convert_error(&ConvertError::Cancelled));
        }
        blob.publish(None).map_err(|error| store_error(&error))
    }

    fn find(&self, files: &[CreateFile]) -> Result<Vec<Found>, RpcError> {
        let mut all = Vec::new();
        let mut uploaded = Vec::new();
        for file in files {
            match file {
                CreateFile::Path(path) => all.extend(at(absolute(path)?)?),
                CreateFile::Blob(file) => uploaded.push(file),
            }
        }
        // Beside a folder may stand a projector.
        if uploaded.iter().any(|file| file.name.ends_with(".safetensors")) {
            let (single, folder): (Vec<_>, Vec<_>) =
                uploaded.into_iter().partition(|file| file.name.ends_with(".gguf"));
            let folder = self.folder(&folder)?;
            all.push(Found::Folder(folder.path().to_owned(), Some(folder)));
            uploaded = single;
        }
        for file in uploaded {
            all.push(Found::Blob(self.blob(file)?));
        }
        Ok(all)
    }

    fn blob(&self, file: &UploadedFile) -> Result<Blob, RpcError> {
        let digest: Digest = file.digest.parse().map_err(|error| store_error(&error))?;
        self.store.blobs().get(&digest).map_err(|error| match error {
            StoreError::BlobMissing { .. } => {
                let message = format!("there is no blob `{digest}` for the file `{}`", file.name);
                invalid(message, "upload it first: `POST /blobs/DIGEST`")
            }
            error => store_error(&error),
        })
    }

    /// Links, under the names that the files have.
    fn folder(&self, files: &[&UploadedFile]) -> Result<TempDir, RpcError> {
        let folder = tempfile::tempdir().map_err(|source| {
            let path = std::env::temp_dir();
            store_error(&StoreError::Io { action: "create a folder in", path, source })
        })?;
        for file in files {
            let relative = Path::new(&file.name);
            let is_inside = relative.components().all(|part| matches!(part, Component::Normal(_)));
            if file.name.is_empty() || !is_inside {
                let message = format!("`{}` is no name of a file in a folder", file.name);
                return Err(invalid(message, "a name is as in `1_Pooling/config.json`"));
            }
            let link = folder.path().join(relative);
            let parent = link.parent().unwrap_or(folder.path());
            let blob = fs::canonicalize(self.store.blobs().path(&self.blob(file)?.digest));
            fs::create_dir_all(parent).and_then(|()| symlink(blob?, &link)).map_err(|source| {
                store_error(&StoreError::Io { action: "create", path: link, source })
            })?;
        }
        Ok(folder)
    }
}

fn only(raw: &mut Option<Raw>, weights: Raw) -> Result<(), RpcError> {
    match raw.replace(weights) {
        None => Ok(()),
        Some(_) => Err(invalid("two of the files hold weights", "a model has one file of them")),
    }
}

/// A file, or what is in a folder.
fn at(path: &Path) -> Result<Vec<Found>, RpcError> {
    if !fs::metadata(path).map_err(|error| unreadable(path, &error))?.is_dir() {
        check_readable(path)?;
        return Ok(vec![Found::Gguf(path.to_owned())]);
    }
    let mut paths = Vec::new();
    for entry in fs::read_dir(path).map_err(|error| unreadable(path, &error))? {
        paths.push(entry.map_err(|error| unreadable(path, &error))?.path());
    }
    paths.retain(|path| path.is_file());
    paths.sort();
    let ends = |path: &Path, with: &str| path.extension().is_some_and(|end| end == with);
    let is_converted = paths.iter().any(|path| ends(path, "safetensors"));
    if !is_converted {
        paths.retain(|path| ends(path, "gguf"));
    }
    for path in &paths {
        check_readable(path)?;
    }
    if is_converted {
        return Ok(vec![Found::Folder(path.to_owned(), None)]);
    }
    if paths.is_empty() {
        let message =
            format!("the folder `{}` holds neither safetensors nor GGUF files", path.display());
        return Err(RpcError::new(ErrorKind::BadModel, message).with_hint(
            "other formats are not converted; most models are published as safetensors or GGUF too",
        ));
    }
    Ok(paths.into_iter().map(Found::Gguf).collect())
}

fn convert_error(error: &ConvertError) -> RpcError {
    let kind = match error.kind() {
        "unsupported" => ErrorKind::Unsupported,
        "io" => ErrorKind::Io,
        "cancelled" => ErrorKind::Cancelled,
        _ => ErrorKind::BadModel,
    };
    let wire = RpcError::new(kind, error.to_string());
    match error.hint() {
        Some(hint) => wire.with_hint(hint),
        None => wire,
    }
}
