//! Conversations that the daemon keeps: `session.*`
//!
//! A session belongs to the user who created it, and is not there for anybody else.

use crate::{Message, Options};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Parameters of `session.create`.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionCreateParams {
    /// A name, unique among the caller's sessions, of at most 128 characters. Default: none, and it is called by its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The model that answers where `chat.send` names none.
    pub model: String,
    /// Instructions for the whole conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// How tokens are chosen where `chat.send` does not say.
    #[serde(default)]
    pub options: Options,
}

impl std::fmt::Debug for SessionCreateParams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SessionCreateParams({})", self.model)
    }
}

/// Parameters of `session.show` and `session.delete`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionParams {
    /// Its id or its name.
    pub session: String,
}

/// Parameters of `session.rename`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionRenameParams {
    /// Its id or its name.
    pub session: String,
    /// The name it gets; as for `session.create`.
    pub name: String,
}

/// A session, without what was said in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionSummary {
    /// Never given to another session.
    pub id: String,
    /// Absent where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The model of the last turn, or the one it was created with.
    pub model: String,
    /// How many messages it has.
    pub messages: u32,
    /// Seconds since 1970.
    pub created_s: u64,
    /// Seconds since 1970.
    pub updated_s: u64,
}

/// Result of `session.list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionList {
    /// The one used last first.
    pub sessions: Vec<SessionSummary>,
}

/// Result of `session.show`.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SessionDetails {
    /// What the list has of it too.
    #[serde(flatten)]
    pub summary: SessionSummary,
    /// Instructions for the whole conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// As it was created with.
    pub options: Options,
    /// What was said, oldest first.
    #[serde(rename = "conversation")]
    pub said: Vec<Message>,
}

/// Texts of people are never printed.
impl std::fmt::Debug for SessionDetails {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SessionDetails({:?}, {:?})", self.summary, self.said)
    }
}
