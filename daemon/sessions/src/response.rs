//! Responses: answers that others can follow, each with the conversation that led to it.

use crate::{Failed, MessageId, SessionError, Sessions, Turn, grow, now_s, wither};
use rusqlite::{OptionalExtension as _, Transaction, params};

/// As many too old ones are forgotten whenever one is saved: more than one, so that it comes to an end.
const FORGOTTEN_AT_ONCE: u32 = 8;

/// What is to be saved of a response.
#[derive(Clone, Copy)]
pub struct Response<'a> {
    /// Its id; one that was saved under it before is replaced.
    pub id: &'a str,
    /// What it follows.
    pub parent: Option<MessageId>,
    /// What was said in it; nothing as long as it is not complete.
    pub said: &'a [String],
    /// In the caller's own form.
    pub body: &'a str,
    /// In the caller's own form.
    pub input: &'a str,
}

/// A response that was saved.
#[derive(Clone, PartialEq, Eq)]
pub struct Saved {
    /// Its last message; none as long as it is not complete.
    pub head: Option<MessageId>,
    /// As it was saved.
    pub body: String,
    /// As it was saved.
    pub input: String,
}

/// Texts of people are never printed, here and below.
impl std::fmt::Debug for Response<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Response({}, {} messages)", self.id, self.said.len())
    }
}

impl std::fmt::Debug for Saved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Saved({} bytes)", self.body.len())
    }
}

impl Sessions {
    /// Saves a response. With a turn, what was said in it is said in the turn's session too. Responses that were saved longer
    /// than `keep_s` seconds ago are forgotten, a few each time.
    pub fn save(
        &self,
        owner: u32,
        response: &Response<'_>,
        turn: Option<(&Turn, &str)>,
        keep_s: i64,
    ) -> Result<(), SessionError> {
        self.with(|tx, _| {
            let head = match response.said {
                [] => None,
                said => grow(tx, response.parent, said)?,
            };
            let Response { id, body, input, .. } = response;
            let of_before = "SELECT head FROM response WHERE id = ?1";
            let before = tx.query_row(of_before, [id], |row| row.get(0)).optional()?.flatten();
            tx.execute(
                "INSERT INTO response (id, owner, head, body, input, created_s)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (id) DO UPDATE SET head = ?3, body = ?4, input = ?5",
                params![id, owner, head, body, input, now_s()],
            )?;
            wither(tx, before)?;
            if let Some((turn, model)) = turn
                && head.is_some()
            {
                turn.advance(tx, model, head)?;
            }
            forget(tx, now_s().saturating_sub(keep_s))
        })
    }

    /// A response of an owner's.
    pub fn response(&self, owner: u32, id: &str) -> Result<Saved, SessionError> {
        self.with(|tx, _| {
            let mut find =
                tx.prepare("SELECT head, body, input FROM response WHERE owner = ?1 AND id = ?2")?;
            let found = find.query_row(params![owner, id], |row| {
                Ok(Saved { head: row.get(0)?, body: row.get(1)?, input: row.get(2)? })
            });
            Ok(found.optional()?.ok_or_else(|| none(id))?)
        })
    }

    /// Deletes a response, and what was said in it as far as nothing follows it.
    pub fn delete_response(&self, owner: u32, id: &str) -> Result<(), SessionError> {
        self.with(|tx, _| {
            let mut delete =
                tx.prepare("DELETE FROM response WHERE owner = ?1 AND id = ?2 RETURNING head")?;
            let head = delete.query_row(params![owner, id], |row| row.get(0)).optional()?;
            wither(tx, head.ok_or_else(|| none(id))?)
        })
    }
}

fn forget(tx: &Transaction<'_>, before_s: i64) -> Result<(), Failed> {
    let mut forget = tx.prepare(
        "DELETE FROM response WHERE rowid IN
             (SELECT rowid FROM response WHERE created_s < ?1 ORDER BY created_s LIMIT ?2)
         RETURNING head",
    )?;
    let heads = forget.query_map(params![before_s, FORGOTTEN_AT_ONCE], |row| row.get(0))?;
    let heads: Vec<Option<MessageId>> = heads.collect::<Result<_, _>>()?;
    heads.into_iter().try_for_each(|head| wither(tx, head))
}

fn none(id: &str) -> SessionError {
    SessionError::NotFound { what: "response", name: id.into() }
}
