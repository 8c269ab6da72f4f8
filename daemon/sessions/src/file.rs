//! The file: how it is opened, and what each of its versions added.

use crate::SessionError;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// What makes each version of the one before it; the first of nothing. A released one never changes.
const VERSIONS: [&str; 1] = ["
    CREATE TABLE message (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        parent INTEGER REFERENCES message (id),
        depth INTEGER NOT NULL,
        body TEXT NOT NULL
    ) STRICT;
    CREATE INDEX message_parent ON message (parent);

    CREATE TABLE session (
        id TEXT PRIMARY KEY,
        owner INTEGER NOT NULL,
        name TEXT,
        model TEXT NOT NULL,
        system TEXT,
        options TEXT NOT NULL,
        head INTEGER REFERENCES message (id),
        created_s INTEGER NOT NULL,
        updated_s INTEGER NOT NULL,
        UNIQUE (owner, name)
    ) STRICT;
    CREATE INDEX session_head ON session (head);

    CREATE TABLE response (
        id TEXT PRIMARY KEY,
        owner INTEGER NOT NULL,
        head INTEGER REFERENCES message (id),
        body TEXT NOT NULL,
        input TEXT NOT NULL,
        created_s INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX response_head ON response (head);
    CREATE INDEX response_created ON response (created_s);
"];

pub(crate) fn open(path: &Path) -> Result<Connection, SessionError> {
    make(path)
        .map_err(|error| SessionError::Io { path: path.into(), reason: error.to_string() })?;
    let refused = |error| SessionError::of(path, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(refused)?;
    let found = version(&connection).map_err(refused)?;
    let known = i64::try_from(VERSIONS.len()).unwrap_or(i64::MAX);
    if found > known {
        return Err(SessionError::Newer { path: path.into(), found, known });
    }
    prepare(&mut connection).map_err(refused)?;
    Ok(connection)
}

/// SQLite would make a file that others may read.
fn make(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    let mut options = File::options();
    match options.write(true).create_new(true).mode(0o600).open(path) {
        // The name must be on the disk before anything that is in it is promised.
        Ok(_) => File::open(folder)?.sync_all(),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn prepare(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "wal")?;
    // A commit has returned when it is on the disk.
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // What is deleted is overwritten.
    connection.pragma_update(None, "secure_delete", true)?;
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = usize::try_from(version(&tx)?).unwrap_or(0);
    for (version, step) in (1..).zip(VERSIONS).skip(found) {
        tx.execute_batch(step)?;
        tx.pragma_update(None, "user_version", version)?;
    }
    tx.commit()
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}
