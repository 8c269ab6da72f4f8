//! The method table: name, parameters, result, events, and who may call it. Sorted by name.
//!
//! Everything else is made from it: the daemon registers a handler for each row and does not start with one missing,
//! `rpc.discover` and `docs/protocol.md` list the rows, and the client takes its types from them.

use crate::{
    BackendList, BenchParams, BenchReply, CancelParams, Cancelled, ChatParams, ChatReply, Copied,
    CopyParams, Counted, CreateParams, Created, Deleted, DetokenizeParams, DetokenizeReply,
    EmbedParams, EmbedReply, Empty, EndThinkingParams, Event, Exported, GenerateParams,
    GenerateReply, ImportParams, Imported, LoadParams, Loaded, ModelDetails, ModelHeader,
    ModelList, ModelParams, ProgressEvent, PruneParams, Pruned, PullParams, Pulled, PushParams,
    Pushed, QuantizeParams, Quantized, Reloaded, Rendered, RerankParams, RerankReply,
    RunningModels, ScoreParams, ScoreReply, SessionCreateParams, SessionDetails, SessionList,
    SessionParams, SessionRenameParams, SessionSummary, Status, StoreUsage, TokenizeParams,
    TokenizeReply, TransferEvent, Unloaded, Verified, VerifyParams,
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Who may call a method. The caller is known from the kernel, not from what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Whoever can open the socket.
    Anyone,
    /// Root, the daemon's own user, or a member of the group `hearth-admin`.
    Admin,
}

/// A method that is answered once.
pub trait Method {
    /// On the wire.
    const NAME: &'static str;
    /// One sentence.
    const SUMMARY: &'static str;
    /// Who may call it.
    const WHO: Who;
    /// Its parameters, by name.
    type Params: Serialize + DeserializeOwned + JsonSchema + Send + 'static;
    /// Its result.
    type Reply: Serialize + DeserializeOwned + JsonSchema + Send + 'static;
}

/// A method that can also be subscribed to.
pub trait StreamMethod: Method {
    /// Name of the subscription.
    const STREAM: &'static str;
    /// Method name of its notifications.
    const EVENT: &'static str;
    /// Ends it early.
    const UNSUBSCRIBE: &'static str;
    /// One notification.
    type Event: Serialize + DeserializeOwned + JsonSchema + Send + 'static;
}

/// A row of the table, for documents.
#[derive(Debug, Clone, Copy)]
pub struct MethodInfo {
    /// On the wire.
    pub name: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// Who may call it.
    pub who: Who,
    /// Schema of its parameters.
    pub params: fn(&mut SchemaGenerator) -> Schema,
    /// Schema of its result.
    pub reply: fn(&mut SchemaGenerator) -> Schema,
    /// Schema of its events, if it streams.
    pub event: Option<fn(&mut SchemaGenerator) -> Schema>,
}

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

macro_rules! table {
    ($($(#[doc = $summary:literal])+ $type:ident = $name:literal [$who:ident] ($params:ty) -> $reply:ty $(, streams $event:ty)?;)*) => {
        $(
            $(#[doc = $summary])+
            #[derive(Debug, Clone, Copy)]
            pub struct $type;

            impl Method for $type {
                const NAME: &'static str = $name;
                const SUMMARY: &'static str = concat!($($summary),+);
                const WHO: Who = Who::$who;
                type Params = $params;
                type Reply = $reply;
            }

            $(
                impl StreamMethod for $type {
                    const STREAM: &'static str = concat!($name, ".stream");
                    const EVENT: &'static str = concat!($name, ".event");
                    const UNSUBSCRIBE: &'static str = concat!($name, ".unsubscribe");
                    type Event = $event;
                }
            )?
        )*

        /// Every method, sorted by name.
        pub fn methods() -> Vec<MethodInfo> {
            vec![$(MethodInfo {
                name: $name,
                summary: <$type as Method>::SUMMARY.trim_ascii_start(),
                who: Who::$who,
                params: schema::<$params>,
                reply: schema::<$reply>,
                event: table!(@event $($event)?),
            },)*]
        }
    };
    (@event) => { None };
    (@event $event:ty) => { Some(schema::<$event> as fn(&mut SchemaGenerator) -> Schema) };
}

table! {
    /// Every backend, whether it can be used here, and why not.
    BackendListMethod = "backend.list" [Anyone] (Empty) -> BackendList;
    /// Ends a running or waiting request of the same user.
    CancelMethod = "cancel" [Anyone] (CancelParams) -> Cancelled;
    /// Counts the tokens that `chat.send` would read with the same parameters, and answers nothing.
    ChatCount = "chat.count" [Anyone] (ChatParams) -> Counted;
    /// Lets a running `chat.send` of the same user think no more, but answer with what it has; nothing happens if it does not
    /// think any more.
    ChatEndThinking = "chat.end_thinking" [Anyone] (EndThinkingParams) -> Empty;
    /// The prompt that `chat.send` would have the model read with the same parameters, as text.
    ChatRender = "chat.render" [Anyone] (ChatParams) -> Rendered;
    /// Answers a conversation.
    ChatSend = "chat.send" [Anyone] (ChatParams) -> ChatReply, streams Event<ChatReply>;
    /// Reads the configuration again, and looks for backends again. Models that are loaded stay as they are.
    DaemonReload = "daemon.reload" [Admin] (Empty) -> Reloaded;
    /// Facts about the daemon.
    DaemonStatus = "daemon.status" [Anyone] (Empty) -> Status;
    /// Tokens to text.
    Detokenize = "detokenize" [Anyone] (DetokenizeParams) -> DetokenizeReply;
    /// Texts to vectors.
    Embed = "embed" [Anyone] (EmbedParams) -> EmbedReply;
    /// Continues a text.
    Generate = "generate" [Anyone] (GenerateParams) -> GenerateReply, streams Event<GenerateReply>;
    /// Measures how fast a model is, and finds faster settings for it.
    ModelBench = "model.bench" [Admin] (BenchParams) -> BenchReply, streams ProgressEvent<BenchReply>;
    /// Gives a model one more name. If it is in a folder that is only read, this copies its files.
    ModelCopy = "model.copy" [Admin] (CopyParams) -> Copied, streams ProgressEvent<Copied>;
    /// Makes a model of another one or of files, with a template, options and whatever else a Modelfile says.
    ModelCreate = "model.create" [Admin] (CreateParams) -> Created, streams ProgressEvent<Created>;
    /// Removes a model from the store, with what only it has. One that is loaded is not removed.
    ModelDelete = "model.delete" [Admin] (ModelParams) -> Deleted;
    /// What an export of a model is made of.
    ModelExport = "model.export" [Anyone] (ModelParams) -> Exported;
    /// All that a model's file says of itself, with what `model.show` leaves out for its length.
    ModelHeaderMethod = "model.header" [Anyone] (ModelParams) -> ModelHeader;
    /// Brings a GGUF file, or a model of an OCI layout, into the store under a name.
    ModelImport = "model.import" [Admin] (ImportParams) -> Imported, streams ProgressEvent<Imported>;
    /// Models in the store.
    ModelListMethod = "model.list" [Anyone] (Empty) -> ModelList;
    /// Loads a model, or keeps a loaded one longer.
    ModelLoad = "model.load" [Anyone] (LoadParams) -> Loaded, streams ProgressEvent<Loaded>;
    /// Models in memory.
    ModelPs = "model.ps" [Anyone] (Empty) -> RunningModels;
    /// Fetches a model from a registry or a URL into the store.
    ModelPull = "model.pull" [Admin] (PullParams) -> Pulled, streams TransferEvent<Pulled>;
    /// Sends a model to a registry.
    ModelPush = "model.push" [Admin] (PushParams) -> Pushed, streams TransferEvent<Pushed>;
    /// Makes a new model of one in the store, with smaller weights.
    ModelQuantize = "model.quantize" [Admin] (QuantizeParams) -> Quantized, streams ProgressEvent<Quantized>;
    /// Facts about one model in the store.
    ModelShow = "model.show" [Anyone] (ModelParams) -> ModelDetails;
    /// Takes a model out of memory; its running requests get an error.
    ModelUnload = "model.unload" [Admin] (ModelParams) -> Unloaded;
    /// How well each of several texts answers a question, by a model that was made for that.
    Rerank = "rerank" [Anyone] (RerankParams) -> RerankReply;
    /// This table, as an OpenRPC document.
    RpcDiscover = "rpc.discover" [Anyone] (Empty) -> serde_json::Value;
    /// How likely a model finds a text, token by token.
    Score = "score" [Anyone] (ScoreParams) -> ScoreReply;
    /// Begins a conversation that the daemon keeps.
    SessionCreate = "session.create" [Anyone] (SessionCreateParams) -> SessionSummary;
    /// Deletes a session of the caller's, with what was said in it.
    SessionDelete = "session.delete" [Anyone] (SessionParams) -> SessionSummary;
    /// The caller's sessions.
    SessionListMethod = "session.list" [Anyone] (Empty) -> SessionList;
    /// Gives a session of the caller's another name.
    SessionRename = "session.rename" [Anyone] (SessionRenameParams) -> SessionSummary;
    /// A session of the caller's, with what was said in it.
    SessionShow = "session.show" [Anyone] (SessionParams) -> SessionDetails;
    /// Removes what no model has and what was never finished.
    StorePrune = "store.prune" [Admin] (PruneParams) -> Pruned;
    /// What takes space in the store.
    StoreUsageMethod = "store.usage" [Anyone] (Empty) -> StoreUsage;
    /// Reads models again, every byte, to find what is missing or damaged.
    StoreVerify = "store.verify" [Admin] (VerifyParams) -> Verified, streams ProgressEvent<Verified>;
    /// Text to tokens.
    Tokenize = "tokenize" [Anyone] (TokenizeParams) -> TokenizeReply;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_has_no_name_twice() {
        let names: Vec<_> = methods().iter().map(|method| method.name).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(names, sorted);
    }
}
