//! What answers of both kinds have in common: their frame, their cost, and the events of a stream.

use super::error_body;
use crate::http::{DebugInfo, status_of};
use crate::random;
use hearth_protocol::{FinishReason, RpcError, Usage};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

pub(super) const EVENTS: &str = "text/event-stream";

/// What says which build answered.
const FINGERPRINT: &str = concat!("hearth-", env!("CARGO_PKG_VERSION"));

/// What is the same in all chunks of an answer.
pub(super) struct Frame {
    id: String,
    created: i64,
    model: String,
    object: &'static str,
    /// Whether the chunks of a stream have a place for the cost.
    counts: bool,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Framed<'a, C> {
    id: &'a str,
    object: &'static str,
    created: i64,
    model: &'a str,
    system_fingerprint: &'static str,
    choices: &'a [C],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Value>,
    #[serde(rename = "_debug_info", skip_serializing_if = "Option::is_none")]
    debug_info: Option<DebugInfo>,
}

impl Frame {
    pub(super) fn new(prefix: &str, object: &'static str, model: String, counts: bool) -> Self {
        let id = random::name(prefix);
        Self { id, created: Timestamp::now().as_second(), model, object, counts }
    }

    /// An answer that is sent at once.
    pub(super) fn whole<'a, C: Serialize>(
        &'a self,
        choices: &'a [C],
        usage: &Usage,
    ) -> Framed<'a, C> {
        self.framed(choices, Some(cost(usage)))
    }

    /// Instead of an answer, what it would be one to.
    pub(super) fn rendered<C>(&self, rendered_template: String) -> Framed<'_, C> {
        Framed { debug_info: Some(DebugInfo { rendered_template }), ..self.framed(&[], None) }
    }

    fn framed<'a, C>(&'a self, choices: &'a [C], usage: Option<Value>) -> Framed<'a, C> {
        let Self { id, created, model, object, .. } = self;
        let (object, created) = (*object, *created);
        Framed {
            id,
            object,
            created,
            model,
            system_fingerprint: FINGERPRINT,
            choices,
            usage,
            debug_info: None,
        }
    }

    /// A chunk of a stream.
    pub(super) fn chunk<C: Serialize>(&self, choice: C, out: &mut Vec<u8>) {
        write_event(&self.framed(&[choice], self.counts.then_some(Value::Null)), out);
    }

    /// The end of a stream, and what it cost where that was asked for.
    pub(super) fn end(&self, usage: &Usage, out: &mut Vec<u8>) {
        if self.counts {
            write_event(&self.framed::<()>(&[], Some(cost(usage))), out);
        }
        write_done(out);
    }
}

fn cost(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": { "cached_tokens": usage.cached_tokens },
    })
}

/// An error in the middle of a stream, which ends it.
pub(super) fn write_error(error: &RpcError, out: &mut Vec<u8>) {
    write_event(&error_body(status_of(error), error), out);
    write_done(out);
}

fn write_event(value: &impl Serialize, out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: ");
    // Only a map with keys that are no texts could fail, and there is none.
    let _ = serde_json::to_writer(&mut *out, value);
    out.extend_from_slice(b"\n\n");
}

fn write_done(out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: [DONE]\n\n");
}

pub(super) fn finish_reason(finish: FinishReason) -> &'static str {
    match finish {
        FinishReason::End | FinishReason::Stop => "stop",
        FinishReason::MaxTokens | FinishReason::ContextFull => "length",
        FinishReason::ToolCalls => "tool_calls",
    }
}
