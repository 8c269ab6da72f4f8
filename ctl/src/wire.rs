//! Replies and events as they came, not as this version of `ctl` understands them.
//!
//! `--json` promises what is on the wire, and a newer daemon may say more than our types hold. So every call and stream is
//! read as JSON first; [`chat_event`] and its like pass over events of types added since.

use hearth_protocol::{ChatReply, Event, Method, ProgressEvent, StreamMethod, TransferEvent, Who};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::marker::PhantomData;

/// The same method, with its reply and events left as JSON.
#[derive(Debug)]
pub(crate) struct AsSent<M>(PhantomData<M>);

impl<M: Method> Method for AsSent<M> {
    const NAME: &'static str = M::NAME;
    const SUMMARY: &'static str = M::SUMMARY;
    const WHO: Who = M::WHO;
    type Params = M::Params;
    type Reply = Value;
}

impl<M: StreamMethod> StreamMethod for AsSent<M> {
    const STREAM: &'static str = M::STREAM;
    const EVENT: &'static str = M::EVENT;
    const UNSUBSCRIBE: &'static str = M::UNSUBSCRIBE;
    type Event = Value;
}

/// An event of `chat.send`, or nothing where its type is not known here.
pub(crate) fn chat_event(value: &Value) -> Result<Option<Event<ChatReply>>, serde_json::Error> {
    const KNOWN: [&str; 9] = [
        "accepted",
        "loading",
        "queued",
        "prefill",
        "reasoning",
        "delta",
        "tool_call",
        "done",
        "error",
    ];
    known(value, &KNOWN)
}

/// An event of a method with progress, or nothing where its type is not known here.
pub(crate) fn progress_event<R: DeserializeOwned>(
    value: &Value,
) -> Result<Option<ProgressEvent<R>>, serde_json::Error> {
    known(value, &["progress", "done", "error"])
}

/// An event of `model.pull` or `model.push`, or nothing where its type is not known here.
pub(crate) fn transfer_event<R: DeserializeOwned>(
    value: &Value,
) -> Result<Option<TransferEvent<R>>, serde_json::Error> {
    known(value, &["accepted", "progress", "done", "error"])
}

fn known<E: DeserializeOwned>(
    value: &Value,
    types: &[&str],
) -> Result<Option<E>, serde_json::Error> {
    if value["type"].as_str().is_some_and(|kind| !types.contains(&kind)) {
        return Ok(None);
    }
    E::deserialize(value).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_new_type_is_passed_over_and_a_broken_one_is_an_error() {
        assert!(matches!(
            chat_event(&json!({ "type": "delta", "text": "a", "logprob": 1 })),
            Ok(Some(Event::Delta { .. }))
        ));
        assert!(matches!(chat_event(&json!({ "type": "weather" })), Ok(None)));
        let error = json!({ "code": 1, "message": "m", "data": { "kind": "astrology" } });
        assert!(matches!(
            chat_event(&json!({ "type": "error", "error": error })),
            Ok(Some(Event::Error { error })) if error.message == "m"
        ));
        assert!(chat_event(&json!({ "type": "delta" })).is_err());
        assert!(chat_event(&json!({ "text": "a" })).is_err());
    }
}
