//! Every way the store can fail, as one enum.
//!
//! A message says what is wrong, with the path and the numbers; `hint` says what a person can do
//! about it; `kind` is the stable name that goes on the wire. Text that came from a file or a peer
//! passes through `quote` first, so that a message is one short printable line whatever it was.

use std::io;
use std::path::{Path, PathBuf};

use hearth_gguf::GgufError;
pub(crate) use hearth_gguf::quote;

use crate::digest::Digest;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    #[error("model name `{name}` is not valid: {reason}")]
    BadName { name: String, reason: String },

    #[error("`{text}` is not a digest, which is `sha256:` and 64 hexadecimal digits")]
    BadDigest { text: String },

    #[error("there is no model `{name}`")]
    ModelNotFound { name: String, nearest: Option<String> },

    #[error("there is no model `{name}` in the stores that can be read now")]
    NotInReach { name: String, why: String },

    #[error("`{name}` is in `{}`, which is only read", dir.display())]
    NotOurs { name: String, dir: PathBuf },

    #[error("the store `{}` does not answer", dir.display())]
    NoAnswer { dir: PathBuf },

    #[error("manifest `{}` cannot be used: {reason}", path.display())]
    BadManifest { path: PathBuf, reason: String },

    #[error("blob `{}` cannot be used: {reason}", path.display())]
    BadBlob { path: PathBuf, reason: String },

    #[error("blob `{digest}` is missing: no file at `{}`", path.display())]
    BlobMissing { digest: Digest, path: PathBuf },

    #[error(
        "blob `{}` has {actual} bytes, but its manifest says {expected}", path.display()
    )]
    BlobSize { path: PathBuf, expected: u64, actual: u64 },

    #[error("the linked model file `{}` is gone", target.display())]
    LinkBroken { link: PathBuf, target: PathBuf },

    #[error(
        "the linked model file `{}` has changed: it has {actual} bytes and had {expected} when it was imported",
        target.display()
    )]
    LinkChanged { target: PathBuf, expected: u64, actual: u64 },

    #[error("model `{name}` cannot be run here: {reason}")]
    UnsupportedModel { name: String, reason: String },

    #[error("`{}` is not a usable GGUF file: {source}", path.display())]
    BadGguf { path: PathBuf, source: GgufError },

    #[error("`{}` cannot be imported as a model: {reason}", path.display())]
    UnsupportedFile { path: PathBuf, reason: String, hint: &'static str },

    #[error("`{}` is not a regular file", path.display())]
    NotAFile { path: PathBuf },

    #[error("`{}` changed while it was being imported", path.display())]
    SourceChanged { path: PathBuf },

    #[error("`{}` cannot be reflinked into `{}`: {source}", path.display(), store.display())]
    NoReflink { path: PathBuf, store: PathBuf, source: io::Error },

    #[error("none of the files holds a model's weights")]
    NoWeights,

    #[error("a layer of type `{what}` has {size} bytes and may have {max}")]
    TooLong { what: String, size: u64, max: u64 },

    #[error("the content has digest `{actual}` and must have `{expected}`")]
    WrongContent { expected: Digest, actual: Digest },

    #[error("`{}` is being fetched by another process", path.display())]
    Busy { path: PathBuf },

    #[error("`{}` has {free} bytes free, and {needed} are needed", dir.display())]
    NoSpace { dir: PathBuf, needed: u64, free: u64 },

    #[error("the work on `{name}` was cancelled")]
    Cancelled { name: String },

    #[error("cannot {action} `{}`: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

impl StoreError {
    /// A machine-readable name that never changes once released; several errors may share one.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::BadName { .. } => "bad_name",
            Self::BadDigest { .. } => "bad_digest",
            Self::ModelNotFound { .. } | Self::NotInReach { .. } => "model_not_found",
            Self::NotOurs { .. } => "not_ours",
            Self::NoAnswer { .. } => "no_answer",
            Self::BadManifest { .. } => "bad_manifest",
            Self::BadBlob { .. } => "bad_blob",
            Self::BlobMissing { .. } | Self::LinkBroken { .. } => "blob_missing",
            Self::BlobSize { .. } | Self::LinkChanged { .. } => "blob_changed",
            Self::UnsupportedModel { .. } | Self::UnsupportedFile { .. } => "unsupported_model",
            Self::BadGguf { .. } => "bad_gguf",
            Self::NotAFile { .. } => "not_a_file",
            Self::SourceChanged { .. } => "source_changed",
            Self::NoReflink { .. } => "no_reflink",
            Self::NoWeights => "unsupported_model",
            Self::TooLong { .. } => "too_long",
            Self::WrongContent { .. } => "wrong_content",
            Self::Busy { .. } => "busy",
            Self::NoSpace { .. } => "no_space",
            Self::Cancelled { .. } => "cancelled",
            Self::Io { .. } => "io",
        }
    }

    /// One line that says what to do next, where there is something to do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::BadName { .. } => Some(
                "a name is `[host/][namespace/]model[:tag]` of letters, digits, `_`, `-` and `.`"
                    .to_owned(),
            ),
            Self::ModelNotFound { nearest: Some(nearest), .. } => {
                Some(format!("did you mean `{nearest}`?"))
            }
            Self::ModelNotFound { nearest: None, .. } => {
                Some("`ctl ls` shows the models that are here".to_owned())
            }
            Self::NotInReach { why, .. } => Some(why.clone()),
            Self::NotOurs { .. } => Some(
                "whatever made that store can remove it, and `more_models` in the configuration names the store"
                    .to_owned(),
            ),
            Self::NoAnswer { .. } => {
                Some("its disk may be gone; the store is read again when that answers".to_owned())
            }
            Self::BadManifest { .. }
            | Self::BadBlob { .. }
            | Self::BlobMissing { .. }
            | Self::BlobSize { .. } => Some("pull or import the model again".to_owned()),
            Self::LinkBroken { target, .. } => Some(format!(
                "put the file back at `{}`, or import the model again from where it is now",
                target.display()
            )),
            Self::LinkChanged { target, .. } => Some(format!(
                "import `{}` again; import it as a copy to be safe from later changes",
                target.display()
            )),
            Self::UnsupportedFile { hint, .. } => Some((*hint).to_owned()),
            Self::BadGguf { source, .. } => source.hint(),
            Self::SourceChanged { .. } => {
                Some("wait until nothing writes to the file, then import it again".to_owned())
            }
            Self::NoReflink { .. } => Some(
                "reflinks need one Btrfs, XFS or similar file system for both; import a copy or a link instead"
                    .to_owned(),
            ),
            Self::WrongContent { .. } => {
                Some("what was fetched is thrown away; pull the model again".to_owned())
            }
            Self::Busy { .. } => Some("wait for the other one to end".to_owned()),
            Self::NoSpace { .. } => {
                Some("free some space; what was fetched is kept, and a pull goes on from there".to_owned())
            }
            Self::Io { source, path, .. } => Some(io_hint(source, path)),
            Self::UnsupportedModel { .. } => {
                Some("look for the same model as a GGUF file, or as a folder of safetensors".to_owned())
            }
            Self::NoWeights => Some(
                "name a GGUF file or a folder of safetensors with the weights, or a model that has them"
                    .to_owned(),
            ),
            Self::TooLong { .. } => Some("shorten this text of the model".to_owned()),
            Self::NotAFile { .. } => {
                Some("a model is made of regular files and links to them".to_owned())
            }
            Self::BadDigest { .. } => Some("copy all of it".to_owned()),
            Self::Cancelled { .. } => None,
        }
    }

    /// What to say of a model that is missing here, after a look into the next store.
    pub(crate) fn and_next(self, next: Self) -> Self {
        match (self, next) {
            (Self::ModelNotFound { nearest: None, .. }, next @ Self::ModelNotFound { .. }) => next,
            (missing @ Self::ModelNotFound { .. }, Self::ModelNotFound { .. }) => missing,
            (Self::ModelNotFound { name, .. }, next) => {
                Self::NotInReach { name, why: next.to_string() }
            }
            (other, _) => other,
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }

    /// For `map_err`, where the path is known before the call.
    pub(crate) fn at<'p>(
        action: &'static str,
        path: &'p Path,
    ) -> impl FnOnce(io::Error) -> Self + 'p {
        move |source| Self::io(action, path, source)
    }
}

fn io_hint(source: &io::Error, path: &Path) -> String {
    let path = path.display();
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            format!("check with `ls -l {path}` that it is there")
        }
        io::ErrorKind::PermissionDenied => format!("the daemon's user needs access to `{path}`"),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space, or import the file as a link, which copies nothing".to_owned()
        }
        io::ErrorKind::TimedOut => {
            "its disk may be gone; the file is read again when that answers".to_owned()
        }
        io::ErrorKind::ReadOnlyFilesystem => "the store is read-only".to_owned(),
        _ => format!(
            "see that `{path}` and its disk are well: `journalctl -k` has what the kernel says of them"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_can_mend_has_a_hint() {
        let reason = String::new;
        for error in [
            StoreError::UnsupportedModel { name: reason(), reason: reason() },
            StoreError::NoWeights,
            StoreError::TooLong { what: reason(), size: 2, max: 1 },
            StoreError::NotAFile { path: PathBuf::new() },
            StoreError::BadDigest { text: reason() },
            StoreError::io("open", Path::new("/no/such"), io::ErrorKind::NotFound.into()),
            StoreError::io("read", Path::new("/bad"), io::Error::from_raw_os_error(5)),
        ] {
            assert!(error.hint().is_some(), "{error}");
        }
    }

    #[test]
    fn a_full_disk_has_a_hint() {
        let full = StoreError::io(
            "write",
            Path::new("/models/x"),
            io::Error::from(io::ErrorKind::StorageFull),
        );
        assert_eq!(full.kind(), "io");
        assert!(full.to_string().starts_with("cannot write `/models/x`: "), "{full}");
        assert!(full.hint().unwrap().contains("free some space"));
    }
}
