//! Every request, reply, event and error on Hearth's wire, and a small blocking client.
//!
//! **Transport.** One Unix socket. The first bytes say what the peer speaks: `{`, `[` or white space is raw JSON-RPC 2.0; a
//! method name such as `POST` or `GET` is HTTP: `POST /rpc` for single calls, a WebSocket on `/rpc` for everything, and
//! `GET /blobs/DIGEST` for the bytes of a file that `model.export` names.
//!
//! **Framing, raw.** JSON values one after another; white space between them is ignored. Each reply and each
//! notification ends with one newline and contains no other. Batches (a JSON array of calls) are answered as JSON-RPC
//! says, but may not hold streams, nor more than 256 calls. A client may close its writing side and still reads every
//! reply to come.
//!
//! **Framing, HTTP.** A POST holds one call or one batch, and cannot be answered by a stream; a notification gets status 204
//! and no body. A WebSocket's messages are read as the raw protocol is, and each reply or notification is one text message.
//! The same mistake gets the same error however it came. A blob that is not there has status 404 and a JSON object with an
//! `error` as JSON-RPC has them.
//!
//! **Files, HTTP.** `POST /blobs/sha256:…` brings a file that the daemon cannot open by its path; who may is as for
//! `model.create`, whose parameters then name it. The body is the content, in any number of pieces. 201: it is there now; 200:
//! it was there; 400: the content has another digest, and nothing is kept. `HEAD` on the same path answers 200 or 404.
//! What no model has within the hour may be removed again. An error's body is `{"error": …}`, with an error object as below.
//!
//! **Order.** Calls on one connection run side by side: replies come in any order, told apart by `id`. Events of one
//! stream are in order. Nothing is said about the order between streams.
//!
//! **Streams.** A method marked *streams* may be called under its own name, which answers once at the end, or as
//! `NAME.stream`, a subscription: the reply is a subscription id, then notifications `NAME.event` with
//! `params: {subscription, result: event}`. Exactly one terminal event ends every stream: `done` or `error`; nothing follows it.
//! `NAME.unsubscribe` with `[id]`, `cancel`, or closing the connection ends the work within one step of the engine, and a
//! load that nobody waits for any more. The terminal event is then `error` of kind `cancelled`; it may come before or after
//! the reply to the unsubscribe or the cancel.
//! A slow reader gets several text deltas merged into one, never fewer characters.
//!
//! **Errors.** JSON-RPC error objects whose `data` is an [`ErrorData`]: a stable `kind` and often a `hint`.
//!
//! **Compatibility.** Names of methods, fields and kinds never change their meaning. Fields, event types and kinds get
//! added: ignore what you do not know. Unknown fields in params are refused, so that a typing error is not silently lost.

#![warn(missing_docs)]

mod bench;
mod chat;
mod client;
mod create;
mod daemon;
mod discover;
mod error;
mod export;
mod method;
mod model;
mod modelfile;
mod options;
mod quantize;
mod session;
mod show;
mod space;
mod tokens;
mod transfer;

pub use bench::{
    BenchFigures, BenchParams, BenchReply, BenchTrial, FlashAttention, KvType, Tuning,
};
pub use chat::{
    ChatAnswer, ChatParams, ChatReply, Continuation, Counted, Event, FinishReason, Format,
    GenerateParams, GenerateReply, IMAGE_PLACE, Image, Message, Rendered, Role, Timings, Tool,
    ToolCall, ToolCallDelta, ToolChoice, Usage,
};
pub use client::{Canceller, Client, ClientError, SYSTEM_SOCKET, Stream, default_socket_paths};
pub use create::{CreateFile, CreateParams, Created, UploadedFile};
pub use daemon::{
    Backend, BackendList, BackendState, CancelParams, Cancelled, Device, Empty, EndThinkingParams,
    Reloaded, Status,
};
pub use discover::{openrpc, protocol_markdown};
pub use error::{ErrorData, ErrorKind, RpcError};
pub use export::{Blob, Exported, ExportedBlob};
pub use method::{
    BackendListMethod, CancelMethod, ChatCount, ChatEndThinking, ChatRender, ChatSend,
    DaemonReload, DaemonStatus, Detokenize, Embed, Generate, Method, MethodInfo, ModelBench,
    ModelCopy, ModelCreate, ModelDelete, ModelExport, ModelHeaderMethod, ModelImport,
    ModelListMethod, ModelLoad, ModelPs, ModelPull, ModelPush, ModelQuantize, ModelShow,
    ModelUnload, Rerank, RpcDiscover, Score, SessionCreate, SessionDelete, SessionListMethod,
    SessionRename, SessionShow, StorePrune, StoreUsageMethod, StoreVerify, StreamMethod, Tokenize,
    Who, methods,
};
pub use model::{
    ImportMode, ImportParams, Imported, KeepAlive, LoadParams, Loaded, ModelDetails, ModelList,
    ModelMemory, ModelParams, ModelProblem, ModelSummary, ProgressEvent, RunningModel,
    RunningModels, Unloaded,
};
pub use modelfile::{BadModelfile, Instruction, Modelfile, Unwritable};
pub use options::{Logprob, Options, TokenLogprob};
pub use quantize::{QuantizeParams, Quantized};
pub use session::{
    SessionCreateParams, SessionDetails, SessionList, SessionParams, SessionRenameParams,
    SessionSummary,
};
pub use show::{MemoryEstimate, ModelHeader, TensorFacts, WeightGroup};
pub use space::{
    Amount, Copied, CopyParams, Deleted, FolderUsage, ModelUsage, PruneParams, Pruned, PrunedFile,
    StoreUsage, Verified, VerifyFault, VerifyParams,
};
pub use tokens::{
    DetokenizeParams, DetokenizeReply, EmbedInput, EmbedParams, EmbedReply, RerankParams,
    RerankReply, ScoreParams, ScoreReply, TokenizeParams, TokenizeReply,
};
pub use transfer::{
    PullParams, Pulled, PushParams, Pushed, TransferBlob, TransferEvent, TransferState,
};
