//! Sessions: conversations with a name that go on from turn to turn.

use crate::{Failed, MessageId, SessionError, Sessions, grow, now_s, said, wither};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Row, params};
use std::sync::Arc;

/// A conversation that goes on.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    /// Never given to another.
    pub id: String,
    /// The owner's own name for it, which no other session of the owner's has.
    pub name: Option<String>,
    /// The model of the last turn, or the one it was created with.
    pub model: String,
    /// Instructions for the whole of it.
    pub system: Option<String>,
    /// In the caller's own form.
    pub options: String,
    /// The last message.
    pub head: Option<MessageId>,
    /// How many messages there are.
    pub n_messages: u32,
    /// Seconds since 1970.
    pub created_s: i64,
    /// Seconds since 1970.
    pub updated_s: i64,
}

/// What a session begins with; the fields are its own.
#[derive(Clone, Copy)]
pub struct NewSession<'a> {
    pub id: &'a str,
    pub name: Option<&'a str>,
    pub model: &'a str,
    pub system: Option<&'a str>,
    pub options: &'a str,
}

/// A session's one turn. What it does not keep is as if it had never been.
pub struct Turn {
    sessions: Arc<Sessions>,
    /// As it was before the turn.
    pub session: Session,
    /// What was said before it, oldest first.
    pub said: Vec<String>,
}

/// Texts of people are never printed, here and below.
impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({}, {} messages)", self.id, self.n_messages)
    }
}

impl std::fmt::Debug for NewSession<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewSession({})", self.id)
    }
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Turn({:?})", self.session)
    }
}

impl Sessions {
    /// Begins a session.
    pub fn create(&self, owner: u32, new: &NewSession<'_>) -> Result<Session, SessionError> {
        new.name.map_or(Ok(()), check)?;
        self.with(|tx, _| {
            let created = tx.execute(
                "INSERT INTO session (id, owner, name, model, system, options, created_s, updated_s)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)",
                params![new.id, owner, new.name, new.model, new.system, new.options, now_s()],
            );
            unique(new.name.unwrap_or(new.id), created)?;
            find(tx, owner, new.id)
        })
    }

    /// Those of an owner, the one used last first.
    pub fn list(&self, owner: u32) -> Result<Vec<Session>, SessionError> {
        self.with(|tx, _| {
            let sql =
                format!("{SELECT} WHERE owner = ?1 ORDER BY updated_s DESC, session.rowid DESC");
            let mut list = tx.prepare(&sql)?;
            let sessions = list.query_map([owner], session)?;
            Ok(sessions.collect::<Result<_, _>>()?)
        })
    }

    /// A session by its id or its name, and what was said in it.
    pub fn show(&self, owner: u32, name: &str) -> Result<(Session, Vec<String>), SessionError> {
        self.with(|tx, _| {
            let session = find(tx, owner, name)?;
            let said = said(tx, session.head)?;
            Ok((session, said))
        })
    }

    /// Gives a session another name.
    pub fn rename(&self, owner: u32, name: &str, new: &str) -> Result<Session, SessionError> {
        check(new)?;
        self.with(|tx, _| {
            let id = find(tx, owner, name)?.id;
            let renamed =
                tx.execute("UPDATE session SET name = ?2 WHERE id = ?1", params![id, new]);
            unique(new, renamed)?;
            find(tx, owner, &id)
        })
    }

    /// Deletes a session, and what was said in it as far as no response follows it.
    pub fn delete(&self, owner: u32, name: &str) -> Result<Session, SessionError> {
        self.with(|tx, busy| {
            let session = find(tx, owner, name)?;
            if busy.contains(&session.id) {
                return Err(SessionError::Busy(name.into()).into());
            }
            tx.execute("DELETE FROM session WHERE id = ?1", [&session.id])?;
            wither(tx, session.head)?;
            Ok(session)
        })
    }

    /// Begins a turn, as long as no other is going on.
    pub fn begin(self: &Arc<Self>, owner: u32, name: &str) -> Result<Turn, SessionError> {
        self.with(|tx, busy| {
            let session = find(tx, owner, name)?;
            let said = said(tx, session.head)?;
            if !busy.insert(session.id.clone()) {
                return Err(SessionError::Busy(name.into()).into());
            }
            Ok(Turn { sessions: Arc::clone(self), session, said })
        })
    }
}

impl Turn {
    /// Adds to the session what was said in the turn, which has then ended.
    pub fn keep(self, model: &str, bodies: &[String]) -> Result<(), SessionError> {
        self.sessions.with(|tx, _| {
            let head = grow(tx, self.session.head, bodies)?;
            self.advance(tx, model, head)
        })
    }

    pub(crate) fn advance(
        &self,
        tx: &Connection,
        model: &str,
        head: Option<MessageId>,
    ) -> Result<(), Failed> {
        tx.execute(
            "UPDATE session SET head = ?2, model = ?3, updated_s = ?4 WHERE id = ?1",
            params![self.session.id, head, model, now_s()],
        )?;
        Ok(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let state = self.sessions.state.lock();
        state.unwrap_or_else(std::sync::PoisonError::into_inner).busy.remove(&self.session.id);
    }
}

const SELECT: &str = "
    SELECT session.id, name, model, system, options, head, coalesce(depth, 0), created_s, updated_s
        FROM session LEFT JOIN message ON message.id = head";

fn session(row: &Row<'_>) -> rusqlite::Result<Session> {
    Ok(Session {
        id: row.get(0)?,
        name: row.get(1)?,
        model: row.get(2)?,
        system: row.get(3)?,
        options: row.get(4)?,
        head: row.get(5)?,
        n_messages: row.get(6)?,
        created_s: row.get(7)?,
        updated_s: row.get(8)?,
    })
}

fn find(tx: &Connection, owner: u32, name: &str) -> Result<Session, Failed> {
    let sql = format!("{SELECT} WHERE owner = ?1 AND (session.id = ?2 OR name = ?2)");
    let found = tx.prepare(&sql)?.query_row(params![owner, name], session).optional()?;
    let none = || SessionError::NotFound { what: "session", name: name.into() };
    Ok(found.ok_or_else(none)?)
}

fn unique(name: &str, changed: rusqlite::Result<usize>) -> Result<(), Failed> {
    match changed {
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            Err(SessionError::NameTaken(name.into()).into())
        }
        changed => Ok(changed.map(drop)?),
    }
}

/// A name is never an id.
fn check(name: &str) -> Result<(), SessionError> {
    let n_chars = name.chars().count();
    let is_good = (1..=128).contains(&n_chars)
        && !name.contains(char::is_control)
        && !name.starts_with("sess_");
    if is_good { Ok(()) } else { Err(SessionError::BadName(name.chars().take(128).collect())) }
}
