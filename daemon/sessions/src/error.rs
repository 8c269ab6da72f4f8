//! What can be wrong with the file, or with what was asked of it.

use rusqlite::ErrorCode;
use std::path::{Path, PathBuf};

/// Why something was not done. No message holds any of what was said.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The owner has none of that name.
    #[error("there is no {what} `{name}`")]
    NotFound {
        /// A session or a response.
        what: &'static str,
        /// As it was asked for.
        name: String,
    },
    /// Another session of the owner's has the name.
    #[error("there is a session `{0}` already")]
    NameTaken(String),
    /// It cannot be a name.
    #[error("`{0}` cannot be the name of a session")]
    BadName(String),
    /// A turn of it is going on.
    #[error("the session `{0}` is answering")]
    Busy(String),
    /// A later version of Hearth wrote the file.
    #[error("`{}` has version {found}, and this daemon knows versions up to {known}", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The latest that is known here.
        known: i64,
    },
    /// The file is none of ours, or damaged.
    #[error("`{}` cannot be read as a database of sessions: {reason}", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// In SQLite's words.
        reason: String,
    },
    /// There is no space.
    #[error("the disk is full: `{}` was not changed", .path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// The file could not be read or written.
    #[error("cannot use `{}`: {reason}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// In the system's or SQLite's words.
        reason: String,
    },
}

impl SessionError {
    pub(crate) fn of(path: &Path, error: &rusqlite::Error) -> Self {
        let (path, reason) = (path.to_owned(), error.to_string());
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                Self::Corrupt { path, reason }
            }
            // A table or a column that is not there, or holds something else.
            None | Some(ErrorCode::Unknown | ErrorCode::TypeMismatch) => {
                Self::Corrupt { path, reason }
            }
            Some(ErrorCode::DiskFull) => Self::Full { path },
            Some(_) => Self::Io { path, reason },
        }
    }

    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::NotFound { what: "session", .. } => "`ctl session ls` lists yours".into(),
            Self::NotFound { .. } => {
                "it was not stored, was deleted, or is too old; send what was said again".into()
            }
            Self::NameTaken(_) => "choose another name, or go on with that session".into(),
            Self::BadName(_) => {
                "a name has 1 to 128 characters, none of them a control character, and does not begin with `sess_`".into()
            }
            Self::Busy(_) => "wait for its answer, or cancel it".into(),
            Self::Newer { .. } => "run the version of Hearth that wrote it, or a later one".into(),
            Self::Corrupt { path, .. } => format!(
                "move it away, with `{0}-wal` and `{0}-shm`, and a new one is made",
                path.display()
            ),
            Self::Full { .. } => "make space and try again; chats without a session go on".into(),
            Self::Io { .. } => {
                "see that the daemon may write there; chats without a session go on".into()
            }
        }
    }
}
