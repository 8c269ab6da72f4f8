//! Conversations and completions: `chat.send` and `generate`, and their events.

use crate::{KeepAlive, Logprob, Options, RpcError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions for the whole conversation.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
}

/// One message of a conversation.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// The text. May be empty beside tool calls.
    #[serde(default)]
    pub content: String,
    /// What the text is about. They stand where it says `[img]`, one after the other, and those that are left over before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<Image>,
    /// What a reasoning model thought before it answered; only in assistant messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// Calls the model wants made; only in assistant messages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// Which call this answers; only in tool messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

impl Message {
    /// A message that is only text.
    pub fn text(role: Role, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
            images: Vec::new(),
            reasoning: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
        }
    }
}

/// Texts of people are never printed, at any log level.
impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Message({:?}, {} bytes)", self.role, self.content.len())
    }
}

/// What stands in a text where an image goes.
pub const IMAGE_PLACE: &str = "[img]";

/// An image: a PNG, JPEG, WebP or GIF file, of which the first picture is seen, in base64. A request has at most 32.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Image(pub String);

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image({} bytes)", self.0.len())
    }
}

/// A call of a tool that the model wants made.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ToolCall {
    /// Unique within its message; the tool's answer repeats it as `tool_call_id`.
    #[serde(default)]
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// Arguments: the text of a JSON object, as the model wrote it.
    pub arguments: String,
}

impl std::fmt::Debug for ToolCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ToolCall({}, {} bytes)", self.name, self.arguments.len())
    }
}

/// A tool the model may call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// What the model calls it by.
    pub name: String,
    /// What it does, for the model to read.
    #[serde(default)]
    pub description: String,
    /// JSON schema of its arguments; key order is kept.
    #[serde(default)]
    pub parameters: Value,
}

/// A piece of a tool call while it is written. Pieces of one call have the same `index`, `id` and `name`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ToolCallDelta {
    /// Its place among the message's calls, from 0.
    pub index: u32,
    /// The call's id.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// What follows of the arguments' JSON text; may be empty.
    pub arguments: String,
}

impl std::fmt::Debug for ToolCallDelta {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ToolCallDelta({}, {}, {} bytes)", self.index, self.name, self.arguments.len())
    }
}

/// Whether tools may, must or must not be called. A grammar sees to it, so that a call which is begun is of a tool that
/// was given, with arguments that fit its schema, whatever the model. Only where the model decides and the store has a template
/// in Go's language that offers tools, calls are read as the model writes them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// At least one call.
    Required,
    /// No call, and no tool is offered.
    None,
    /// A call of the tool of this name, which alone is offered.
    Tool(String),
}

/// What the answer must look like.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// A JSON object, whatever is in it.
    Json,
    /// JSON that fits this schema. Keys come in the order in which the schema names them, and no others unless
    /// `additionalProperties` is there or schemas are combined.
    JsonSchema(Value),
    /// Text that fits this regular expression as a whole. Syntax of Rust's `regex`, without anchors and look-around.
    Regex(String),
    /// Text that fits this grammar in Lark's syntax, as llguidance extends it, from the rule `start`.
    Lark(String),
    /// Text that fits this GBNF grammar, from the rule `root`.
    Gbnf(String),
}

impl std::fmt::Debug for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Json => "Json",
            Self::JsonSchema(_) => "JsonSchema",
            Self::Regex(_) => "Regex",
            Self::Lark(_) => "Lark",
            Self::Gbnf(_) => "Gbnf",
        })
    }
}

/// Parameters of `chat.send`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChatParams {
    /// Name of a model in the store; it is loaded if it is not. May be absent where there is a `session`, which then has one.
    #[serde(default)]
    pub model: String,
    /// The id or the name of one of the caller's sessions, whose system text, messages and options go before those given
    /// here. `messages` and the answer (the first, of several) are added to it together once the answer is complete, and are on
    /// the disk before the reply is sent. An answer that is cancelled or fails leaves the session as it was. While it has one
    /// turn, another is refused with `in_use`. Default: the daemon keeps nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The conversation so far, oldest first; in a session, what is new in it.
    pub messages: Vec<Message>,
    /// A chat template in Go's language for this request, instead of the model's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Tools the model may call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Tool>,
    /// Whether it may.
    #[serde(default)]
    pub tool_choice: ToolChoice,
    /// Whether one answer may have several calls. Default: if the model's chat template is made for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel_tool_calls: Option<bool>,
    /// What the answer must look like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// False asks a reasoning model not to think. Default true. A `format` holds for the answer
    /// that follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub think: Option<bool>,
    /// Most tokens of reasoning; then the model has to answer. Default: as many as it likes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub think_tokens: Option<u32>,
    /// How tokens are chosen.
    #[serde(default)]
    pub options: Options,
    /// How long the model stays loaded after this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<KeepAlive>,
    /// The caller's own name for this request, for `cancel`; unique among the caller's running requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// How long all of it may take in milliseconds, loading the model and waiting included; then it ends with
    /// `deadline_exceeded`. Default: as long as it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// Parameters of `generate`.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GenerateParams {
    /// Name of a model in the store; it is loaded if it is not.
    pub model: String,
    /// Text to continue, as it stands, without a chat template, unless there is a `suffix`. Control tokens in it are not recognised unless `raw`.
    pub prompt: String,
    /// What the prompt is about, as in a chat's message.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<Image>,
    /// Text that comes after what the model writes; needs a model whose template has a place for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suffix: Option<String>,
    /// Read spelled-out control tokens in the prompt, and add none around it.
    #[serde(default)]
    pub raw: bool,
    /// What the answer must look like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// How tokens are chosen.
    #[serde(default)]
    pub options: Options,
    /// How long the model stays loaded after this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<KeepAlive>,
    /// The caller's own name for this request, for `cancel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// How long all of it may take in milliseconds, loading the model and waiting included; then it ends with
    /// `deadline_exceeded`. Default: as long as it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

impl std::fmt::Debug for GenerateParams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GenerateParams({}, {} bytes)", self.model, self.prompt.len())
    }
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended it.
    End,
    /// A stop text came.
    Stop,
    /// `max_tokens` was reached.
    MaxTokens,
    /// The context is full.
    ContextFull,
    /// The model wants tools called.
    ToolCalls,
}

/// What the request cost in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// Tokens of the prompt, cached ones included.
    pub prompt_tokens: u32,
    /// Prompt tokens whose computation was reused.
    pub cached_tokens: u32,
    /// Tokens generated.
    pub completion_tokens: u32,
    /// Of these, guessed right beforehand, which made the answer faster and nothing else.
    #[serde(default)]
    pub guessed_tokens: u32,
    /// Messages left out of the prompt, where `truncate` asked for it.
    #[serde(default)]
    pub dropped_messages: u32,
    /// Tokens left out of the prompt, those messages' included; `prompt_tokens` does not count them.
    #[serde(default)]
    pub dropped_tokens: u32,
    /// Tokens of prompt and answer that left the context before the end, where `shift` asked for it.
    #[serde(default)]
    pub shifted_tokens: u32,
}

/// Where the time went, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Timings {
    /// Waiting for the model to be loaded; 0 if it was.
    pub load_us: u64,
    /// Waiting for a place in the engine.
    pub queue_us: u64,
    /// From there to the first token.
    pub prefill_us: u64,
    /// From the first token to the last.
    pub decode_us: u64,
}

/// Result of `chat.count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counted {
    /// Tokens of the prompt, the model's own texts around the messages included.
    pub prompt_tokens: u32,
}

/// Result of `chat.render`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rendered {
    /// The model's own texts around the messages included, and what begins every text, spelled out.
    pub prompt: String,
}

impl std::fmt::Debug for Rendered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rendered({} bytes)", self.prompt.len())
    }
}

/// Result of `chat.send`, and content of its `done` event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChatReply {
    /// The request's name: the caller's own, or one the daemon made.
    pub request: String,
    /// The whole answer.
    pub message: Message,
    /// Why it ended.
    pub finish: FinishReason,
    /// The stop text that ended it, where `finish` is `stop`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<String>,
    /// What it cost, all answers together and the prompt once.
    pub usage: Usage,
    /// Where the time went.
    pub timings: Timings,
    /// One for each token of the answer, but not the one that ends it; only where asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<Logprob>,
    /// The answers after the first, where `candidates` asked for several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<ChatAnswer>,
}

/// One of several answers to a chat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChatAnswer {
    /// The whole answer.
    pub message: Message,
    /// Why it ended.
    pub finish: FinishReason,
    /// The stop text that ended it, where `finish` is `stop`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<String>,
    /// As those of the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<Logprob>,
}

/// Result of `generate`, and content of its `done` event.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GenerateReply {
    /// The request's name: the caller's own, or one the daemon made.
    pub request: String,
    /// The whole continuation.
    pub text: String,
    /// Why it ended.
    pub finish: FinishReason,
    /// The stop text that ended it, where `finish` is `stop`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<String>,
    /// What it cost, all continuations together and the prompt once.
    pub usage: Usage,
    /// Where the time went.
    pub timings: Timings,
    /// One for each token of the answer, but not the one that ends it; only where asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<Logprob>,
    /// The continuations after the first, where `candidates` asked for several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Continuation>,
}

/// One of several continuations of a text.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Continuation {
    /// The whole continuation.
    pub text: String,
    /// Why it ended.
    pub finish: FinishReason,
    /// The stop text that ended it, where `finish` is `stop`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<String>,
    /// As those of the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<Logprob>,
}

impl std::fmt::Debug for Continuation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Continuation({} bytes)", self.text.len())
    }
}

impl std::fmt::Debug for GenerateReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GenerateReply({}, {} bytes)", self.request, self.text.len())
    }
}

/// What a stream of `chat.send` or `generate` says. Any number of the others, then one `done` or `error`.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schemars(rename = "{R}Event")]
pub enum Event<R> {
    /// The request is accepted; always first.
    Accepted {
        /// Its name, for `cancel`.
        request: String,
    },
    /// The model is being loaded.
    Loading {
        /// 0 to 1, never going down.
        fraction: f32,
    },
    /// The request waits for a place.
    Queued {
        /// Its place in the queue, from 1.
        place: u32,
        /// How long that will take about, in milliseconds; absent while nothing is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wait_ms: Option<u64>,
    },
    /// The prompt is being computed. Comes at least once before any piece of an answer.
    Prefill {
        /// Tokens done, cached ones included.
        done: u32,
        /// Of these, reused.
        #[serde(default)]
        cached: u32,
        /// Tokens in all.
        total: u32,
    },
    /// A piece of what a reasoning model thinks.
    Reasoning {
        /// Which answer it belongs to, where `candidates` asked for several; the first is 0.
        #[serde(default, skip_serializing_if = "is_first")]
        candidate: u32,
        /// Whole characters.
        text: String,
        /// Of the tokens since the last piece, where asked for. Tokens that give no text here, such as those of a tool
        /// call or a stop text, are in the reply only, unless a piece follows them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        logprobs: Vec<Logprob>,
    },
    /// A piece of the answer.
    Delta {
        /// Which answer it belongs to, where `candidates` asked for several; the first is 0.
        #[serde(default, skip_serializing_if = "is_first")]
        candidate: u32,
        /// Whole characters.
        text: String,
        /// Of the tokens since the last piece, where asked for. Tokens that give no text here, such as those of a tool
        /// call or a stop text, are in the reply only, unless a piece follows them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        logprobs: Vec<Logprob>,
    },
    /// A piece of a tool call. The call is to be made when its `tool_call` event has come: an answer that is cut off, or that
    /// only looked like a call, ends without one, and has the text in a delta.
    ToolCallDelta {
        /// Which answer it belongs to, where `candidates` asked for several; the first is 0.
        #[serde(default, skip_serializing_if = "is_first")]
        candidate: u32,
        /// The piece.
        delta: ToolCallDelta,
    },
    /// A complete tool call. The arguments of its pieces make up its own.
    ToolCall {
        /// Which answer it belongs to, where `candidates` asked for several; the first is 0.
        #[serde(default, skip_serializing_if = "is_first")]
        candidate: u32,
        /// The call.
        call: ToolCall,
    },
    /// The end, with the whole reply.
    Done {
        /// The same that the plain call answers.
        reply: R,
    },
    /// The end, with a reason. Deltas sent before stay valid.
    Error {
        /// The same that the plain call answers.
        error: RpcError,
    },
}

fn is_first(candidate: &u32) -> bool {
    *candidate == 0
}

impl<R> Event<R> {
    /// Nothing follows this event.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Error { .. })
    }
}

impl<R> std::fmt::Debug for Event<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Accepted { .. } => "Accepted",
            Self::Loading { .. } => "Loading",
            Self::Queued { .. } => "Queued",
            Self::Prefill { .. } => "Prefill",
            Self::Reasoning { .. } => "Reasoning",
            Self::Delta { .. } => "Delta",
            Self::ToolCallDelta { .. } => "ToolCallDelta",
            Self::ToolCall { .. } => "ToolCall",
            Self::Done { .. } => "Done",
            Self::Error { .. } => "Error",
        })
    }
}
