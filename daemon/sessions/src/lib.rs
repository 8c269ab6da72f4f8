//! Conversations that outlive the daemon, in one SQLite file.
//!
//! What was said is a forest of messages, each below the one that it answers. Sessions and responses hold *heads* in it: what
//! leads from a head up to its root is a conversation, and two that begin alike share their beginning. A session's head moves
//! with each turn; a response's stays, so that any number of others can follow it. A message is there as long as something
//! below it or a head needs it, and its number is never given to another.
//!
//! Bodies are texts whose form is the caller's own. Whatever has returned well is on the disk. The file is opened when it is
//! first needed, and again after an error, so that a broken one costs nothing but its own conversations.
//!
//! **Invariants.** Whatever is asked for by name, or by the id of a session or a response, is found by its owner alone. A
//! session has one turn at a time. No message is without a head below it.

mod error;
mod file;
mod response;
mod session;
#[cfg(test)]
mod tests;

pub use error::SessionError;
pub use response::{Response, Saved};
pub use session::{NewSession, Session, Turn};

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// A message's number.
pub type MessageId = i64;

/// The conversations of one file.
#[derive(Debug)]
pub struct Sessions {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// `None` before it is needed, and after an error of the file itself.
    connection: Option<Connection>,
    /// Sessions with a turn.
    busy: HashSet<String>,
}

impl Sessions {
    /// Those in this file, which nothing looks at yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), state: Mutex::default() }
    }

    /// What was said up to a head, oldest first.
    pub fn messages(&self, head: Option<MessageId>) -> Result<Vec<String>, SessionError> {
        self.with(|tx, _| said(tx, head))
    }

    /// Does it as a whole or not at all.
    fn with<T>(
        &self,
        act: impl FnOnce(&Transaction<'_>, &mut HashSet<String>) -> Result<T, Failed>,
    ) -> Result<T, SessionError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { connection, busy } = &mut *state;
        let open = match connection.take() {
            Some(open) => connection.insert(open),
            None => connection.insert(file::open(&self.path)?),
        };
        let result = (|| {
            let tx = open.transaction()?;
            let result = act(&tx, busy)?;
            tx.commit()?;
            Ok(result)
        })();
        result.map_err(|failed| match failed {
            Failed::Refused(error) => error,
            Failed::Sqlite(error) => {
                *connection = None;
                SessionError::of(&self.path, &error)
            }
        })
    }
}

/// Why something was not done.
enum Failed {
    Refused(SessionError),
    Sqlite(rusqlite::Error),
}

impl From<SessionError> for Failed {
    fn from(error: SessionError) -> Self {
        Self::Refused(error)
    }
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn said(tx: &Transaction<'_>, head: Option<MessageId>) -> Result<Vec<String>, Failed> {
    let mut up = tx.prepare(
        "WITH RECURSIVE up AS (
             SELECT id, parent, depth, body FROM message WHERE id = ?1
             UNION ALL
             SELECT message.id, message.parent, message.depth, message.body
                 FROM message JOIN up ON message.id = up.parent
         ) SELECT body FROM up ORDER BY depth",
    )?;
    let bodies = up.query_map([head], |row| row.get(0))?;
    Ok(bodies.collect::<Result<_, _>>()?)
}

/// Adds messages below one, each below the one before it. Answers the last.
fn grow(
    tx: &Transaction<'_>,
    mut head: Option<MessageId>,
    bodies: &[String],
) -> Result<Option<MessageId>, Failed> {
    let mut add = tx.prepare(
        "INSERT INTO message (parent, depth, body)
         VALUES (?1, coalesce((SELECT depth FROM message WHERE id = ?1), 0) + 1, ?2)",
    )?;
    for body in bodies {
        head = Some(add.insert(params![head, body])?);
    }
    Ok(head)
}

/// Removes a message that nothing needs any more, and then those above it.
fn wither(tx: &Transaction<'_>, mut head: Option<MessageId>) -> Result<(), Failed> {
    let mut remove = tx.prepare(
        "DELETE FROM message WHERE id = ?1
             AND NOT EXISTS (SELECT 1 FROM message WHERE parent = ?1)
             AND NOT EXISTS (SELECT 1 FROM session WHERE head = ?1)
             AND NOT EXISTS (SELECT 1 FROM response WHERE head = ?1)
         RETURNING parent",
    )?;
    while let Some(id) = head {
        head = remove.query_row([id], |row| row.get(0)).optional()?.flatten();
    }
    Ok(())
}

fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
