//! The error object, and every kind of error there is.
//!
//! A kind has one code for ever. Programs decide by `kind`; people read `message` and `hint`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $code:literal;)*) => {
        /// What went wrong, for a program to decide by.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum ErrorKind {
            $($(#[$doc])* $variant,)*
            /// A kind that this version does not know.
            #[serde(other)]
            Unknown,
        }

        impl ErrorKind {
            /// The JSON-RPC error code of this kind.
            pub fn code(self) -> i32 {
                match self {
                    $(Self::$variant => $code,)*
                    Self::Unknown => -32099,
                }
            }

            /// All kinds, in the order of their codes.
            pub fn all() -> &'static [Self] {
                &[$(Self::$variant,)*]
            }
        }
    };
}

kinds! {
    /// The bytes are not JSON.
    ParseError = -32700;
    /// The JSON is not a JSON-RPC request.
    InvalidRequest = -32600;
    /// There is no such method.
    MethodNotFound = -32601;
    /// The parameters do not fit the method.
    InvalidParams = -32602;
    /// A fault of the daemon's own.
    Internal = -32603;
    /// No model of that name is in the store.
    ModelNotFound = -32001;
    /// The model's file cannot be used.
    BadModel = -32002;
    /// The model could not be loaded.
    LoadFailed = -32003;
    /// The process that ran the model ended; calling again loads the model again.
    WorkerDied = -32004;
    /// The prompt is longer than the context.
    ContextOverflow = -32005;
    /// Too many requests wait already, or the caller's own take too much together.
    Overloaded = -32006;
    /// Somebody cancelled the request.
    Cancelled = -32007;
    /// The request has more bytes than the daemon takes.
    TooLarge = -32008;
    /// The caller may not do this.
    PermissionDenied = -32009;
    /// The daemon is stopping.
    ShuttingDown = -32010;
    /// This model or backend cannot do it.
    Unsupported = -32011;
    /// No running request has that name.
    RequestNotFound = -32012;
    /// No backend can run here.
    NoBackend = -32013;
    /// A file could not be read or written.
    Io = -32014;
    /// The request did not end in the time it was given.
    DeadlineExceeded = -32015;
    /// What is to be changed is in use.
    InUse = -32016;
    /// Another server could not be reached, refused, or did not answer as it must.
    Network = -32017;
    /// The daemon cannot open a file by the path it was given; the caller may upload it.
    FileUnreadable = -32018;
    /// The configuration cannot be used.
    BadConfiguration = -32019;
    /// The caller has no session of that name, nor a stored response.
    SessionNotFound = -32020;
}

/// `data` of every error object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorData {
    /// Stable over versions.
    pub kind: ErrorKind,
    /// What to do next, as one sentence for a person; absent when nobody can know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// A JSON-RPC error object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{message}")]
pub struct RpcError {
    /// [`ErrorKind::code`] of the kind.
    pub code: i32,
    /// What happened, to what; lower case, no full stop.
    pub message: String,
    /// Absent only in errors of other servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<ErrorData>,
}

impl RpcError {
    /// An error without a hint.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            code: kind.code(),
            message: message.into(),
            data: Some(ErrorData { kind, hint: None }),
        }
    }

    /// The same error with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        if let Some(data) = &mut self.data {
            data.hint = Some(hint.into());
        }
        self
    }

    /// The kind, where the server gave one.
    pub fn kind(&self) -> Option<ErrorKind> {
        self.data.as_ref().map(|data| data.kind)
    }

    /// The hint, where there is one.
    pub fn hint(&self) -> Option<&str> {
        self.data.as_ref().and_then(|data| data.hint.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_of_a_newer_daemon_keeps_its_message_and_hint() {
        let text = r#"{"code":-32090,"message":"m","data":{"kind":"brand_new","hint":"h"}}"#;
        let error: RpcError = serde_json::from_str(text).unwrap();
        assert_eq!((error.kind(), error.hint()), (Some(ErrorKind::Unknown), Some("h")));
    }

    #[test]
    fn no_two_kinds_share_a_code() {
        let mut codes: Vec<i32> = ErrorKind::all().iter().map(|kind| kind.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), ErrorKind::all().len());
    }
}
