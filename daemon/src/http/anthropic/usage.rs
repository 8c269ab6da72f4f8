//! What an answer cost and why it ended, in Anthropic's words.

use hearth_protocol::{ChatReply, FinishReason};
use schemars::JsonSchema;
use serde::Serialize;

/// Tokens of the prompt are counted once: as read, or as found in memory.
#[derive(Serialize, JsonSchema)]
pub(super) struct Usage {
    input_tokens: u32,
    cache_creation_input_tokens: u32,
    cache_read_input_tokens: u32,
    output_tokens: u32,
}

impl Usage {
    pub(super) fn new(prompt: u32, cached: u32, output_tokens: u32) -> Self {
        Self {
            input_tokens: prompt.saturating_sub(cached),
            cache_creation_input_tokens: 0,
            cache_read_input_tokens: cached,
            output_tokens,
        }
    }

    pub(super) fn of(usage: &hearth_protocol::Usage) -> Self {
        Self::new(usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)
    }
}

/// Empty before it is there.
#[derive(Default, Serialize, JsonSchema)]
pub(super) struct End {
    stop_reason: Option<&'static str>,
    stop_sequence: Option<String>,
}

impl End {
    /// `asked`: the stop texts of the request. One of the model's own is how it ends a turn.
    pub(super) fn new(reply: &ChatReply, asked: &[String]) -> Self {
        let stop_sequence = reply.stop.clone().filter(|stop| asked.contains(stop));
        let stop_reason = match reply.finish {
            FinishReason::Stop if stop_sequence.is_some() => "stop_sequence",
            FinishReason::End | FinishReason::Stop => "end_turn",
            FinishReason::MaxTokens => "max_tokens",
            FinishReason::ContextFull => "model_context_window_exceeded",
            FinishReason::ToolCalls => "tool_use",
        };
        Self {
            stop_reason: Some(stop_reason),
            stop_sequence: stop_sequence.filter(|_| stop_reason == "stop_sequence"),
        }
    }
}
