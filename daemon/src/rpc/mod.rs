//! The method table, filled with handlers.
//!
//! What is answered at once has a function in a file named as the method. What takes a while is a `work::Work`; those that
//! a model's worker answers are rows of `jobs`.

mod backend_list;
mod cancel;
mod chat_end_thinking;
mod chat_send;
mod daemon_reload;
mod daemon_status;
mod given;
mod jobs;
mod kept;
mod model_bench;
mod model_copy;
mod model_create;
mod model_delete;
mod model_export;
mod model_header;
mod model_import;
mod model_list;
mod model_load;
mod model_ps;
mod model_pull;
mod model_push;
mod model_quantize;
mod model_show;
mod model_unload;
mod reported;
mod requests;
mod rpc_discover;
mod session_create;
mod session_delete;
mod session_list;
mod session_rename;
mod session_show;
mod store_prune;
mod store_usage;
mod store_verify;
mod transferred;
mod work;

use crate::config::Config;
use crate::listen::Caller;
use crate::settings::Settings;
use crate::supervisor::Supervisor;
use hearth_protocol as protocol;
use hearth_protocol::{ErrorKind, Method, RpcError, Who};
use hearth_registry::Puller;
use hearth_sessions::Sessions;
use hearth_store::{Store, StoreError, Stores};
use jsonrpsee::Extensions;
use jsonrpsee::core::server::RpcModule;
use jsonrpsee::types::{ErrorObjectOwned, Params};
use std::sync::Arc;
use std::time::Instant;

pub(crate) use kept::{from_text, kept, messages, to_text};
pub(crate) use model_delete::handle as model_delete;
pub(crate) use model_header::handle as model_header;
pub(crate) use model_list::handle as model_list;
pub(crate) use model_ps::handle as model_ps;
pub(crate) use model_pull::puller;
pub(crate) use model_show::{Capabilities, capabilities_of, handle as model_show};
pub(crate) use requests::{Registered, Requests};
pub(crate) use work::{Running, Work, run};

/// What handlers work with.
#[derive(Debug)]
pub(crate) struct Daemon {
    pub(crate) settings: Arc<Settings>,
    pub(crate) supervisor: Arc<Supervisor>,
    /// The one that is written to.
    pub(crate) store: Arc<Store>,
    /// All there are, with that one first.
    pub(crate) stores: Arc<Stores>,
    pub(crate) puller: Puller,
    pub(crate) requests: Requests,
    /// `None` without a folder for them.
    pub(crate) sessions: Option<Arc<Sessions>>,
    pub(crate) started: Instant,
    /// Two models that are measured at once say nothing of either.
    pub(crate) measuring: tokio::sync::Mutex<()>,
    pub(crate) capabilities: Capabilities,
    /// Where HTTP is spoken over TCP.
    pub(crate) addresses: Vec<String>,
}

impl Daemon {
    /// As it is now.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.settings.config()
    }
}

type Handled<M> = Result<<M as Method>::Reply, RpcError>;

/// Every row of the protocol's table.
pub(crate) fn module(daemon: Arc<Daemon>) -> RpcModule<Daemon> {
    let mut module = RpcModule::from_arc(daemon);
    call::<protocol::BackendListMethod, _>(&mut module, backend_list::handle);
    call::<protocol::CancelMethod, _>(&mut module, cancel::handle);
    work::call::<protocol::ChatCount>(&mut module);
    call::<protocol::ChatEndThinking, _>(&mut module, chat_end_thinking::handle);
    work::call::<protocol::ChatRender>(&mut module);
    work::stream::<protocol::ChatSend>(&mut module);
    call::<protocol::DaemonReload, _>(&mut module, daemon_reload::handle);
    call::<protocol::DaemonStatus, _>(&mut module, daemon_status::handle);
    work::call::<protocol::Detokenize>(&mut module);
    work::call::<protocol::Embed>(&mut module);
    work::stream::<protocol::Generate>(&mut module);
    work::stream::<protocol::ModelBench>(&mut module);
    work::stream::<protocol::ModelCopy>(&mut module);
    work::stream::<protocol::ModelCreate>(&mut module);
    call::<protocol::ModelDelete, _>(&mut module, model_delete::handle);
    call::<protocol::ModelExport, _>(&mut module, model_export::handle);
    call::<protocol::ModelHeaderMethod, _>(&mut module, model_header::handle);
    work::stream::<protocol::ModelImport>(&mut module);
    call::<protocol::ModelListMethod, _>(&mut module, model_list::handle);
    work::stream::<protocol::ModelLoad>(&mut module);
    call::<protocol::ModelPs, _>(&mut module, model_ps::handle);
    work::stream::<protocol::ModelPull>(&mut module);
    work::stream::<protocol::ModelPush>(&mut module);
    work::stream::<protocol::ModelQuantize>(&mut module);
    call::<protocol::ModelShow, _>(&mut module, model_show::handle);
    call::<protocol::ModelUnload, _>(&mut module, model_unload::handle);
    work::call::<protocol::Rerank>(&mut module);
    call::<protocol::RpcDiscover, _>(&mut module, rpc_discover::handle);
    work::call::<protocol::Score>(&mut module);
    call::<protocol::SessionCreate, _>(&mut module, session_create::handle);
    call::<protocol::SessionDelete, _>(&mut module, session_delete::handle);
    call::<protocol::SessionListMethod, _>(&mut module, session_list::handle);
    call::<protocol::SessionRename, _>(&mut module, session_rename::handle);
    call::<protocol::SessionShow, _>(&mut module, session_show::handle);
    call::<protocol::StorePrune, _>(&mut module, store_prune::handle);
    call::<protocol::StoreUsageMethod, _>(&mut module, store_usage::handle);
    work::stream::<protocol::StoreVerify>(&mut module);
    work::call::<protocol::Tokenize>(&mut module);
    module
}

fn call<M: Method, F>(
    module: &mut RpcModule<Daemon>,
    handler: fn(Arc<Daemon>, Caller, M::Params) -> F,
) where
    F: Future<Output = Handled<M>> + Send + 'static,
    M::Reply: Clone,
{
    let registered =
        module.register_async_method(M::NAME, move |params, daemon, extensions| async move {
            let (caller, params) =
                admit::<M>(&daemon, &params, &extensions).await.map_err(object)?;
            let reply = handler(daemon, caller, params).await.map_err(object)?;
            Ok::<_, ErrorObjectOwned>(reply)
        });
    assert!(registered.is_ok(), "`{}` is registered twice", M::NAME);
}

/// Who calls, and with what; or why not.
async fn admit<M: Method>(
    daemon: &Daemon,
    params: &Params<'_>,
    extensions: &Extensions,
) -> Result<(Caller, M::Params), RpcError> {
    let Some(caller) = extensions.get::<Caller>().copied() else {
        return Err(RpcError::new(ErrorKind::Internal, "the caller is not known"));
    };
    permit::<M>(daemon, caller).await?;
    let text = match params.as_str() {
        None | Some("null" | "[]") => "{}",
        Some(text) => text,
    };
    // Serde would take an array for a struct, and the order of fields is nothing that clients may rely on.
    let parsed = if text.starts_with('[') {
        Err("they are an array, and must be an object".to_string())
    } else {
        serde_json::from_str(text).map_err(|error| error.to_string())
    };
    let params = parsed.map_err(|error| {
        RpcError::new(
            ErrorKind::InvalidParams,
            format!("the parameters of `{}` do not fit: {error}", M::NAME),
        )
        .with_hint("`rpc.discover` lists every method with its parameters; they are given by name")
    })?;
    Ok((caller, params))
}

/// Whether the caller may call the method.
pub(crate) async fn permit<M: Method>(daemon: &Daemon, caller: Caller) -> Result<(), RpcError> {
    let group = &daemon.config().admin_group;
    if M::WHO == Who::Anyone || caller.is_admin(group).await {
        return Ok(());
    }
    let message = format!("uid {} may not call `{}`", caller.uid, M::NAME);
    let hint = format!("root, the daemon's own user and members of the group `{group}` may");
    Err(RpcError::new(ErrorKind::PermissionDenied, message).with_hint(hint))
}

pub(crate) fn object(error: RpcError) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(error.code, error.message, error.data)
}

pub(crate) fn method_not_found(name: &str) -> RpcError {
    // The name is the caller's own; what is shown of it is bounded.
    let shown: String = name.chars().take(64).collect();
    RpcError::new(ErrorKind::MethodNotFound, format!("there is no method `{shown}`"))
        .with_hint("`rpc.discover` lists every method")
}

/// A store's error, for the wire.
pub(crate) fn store_error(error: &StoreError) -> RpcError {
    let kind = match error.kind() {
        "model_not_found" => ErrorKind::ModelNotFound,
        "bad_name" | "bad_digest" | "not_a_file" | "no_reflink" | "too_long" => {
            ErrorKind::InvalidParams
        }
        "cancelled" => ErrorKind::Cancelled,
        "io" | "no_space" | "busy" | "no_answer" => ErrorKind::Io,
        "not_ours" => ErrorKind::Unsupported,
        "wrong_content" => ErrorKind::Network,
        _ => ErrorKind::BadModel,
    };
    let wire = RpcError::new(kind, error.to_string());
    match error.hint() {
        Some(hint) => wire.with_hint(hint),
        None => wire,
    }
}

/// Runs something that reads or writes files.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, RpcError> {
    apart(move || work().map_err(|error| store_error(&error))).await
}

/// Runs what may wait for a disk, where that holds nobody. What was begun is done, also if nobody waits for it any more.
pub(crate) async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RpcError> + Send + 'static,
) -> Result<T, RpcError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(RpcError::new(ErrorKind::Internal, format!("a task ended badly: {error}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::RunArgs;
    use crate::logging::Level;

    #[tokio::test]
    async fn every_method_of_the_protocol_has_a_handler_and_no_other_exists() {
        let args = RunArgs {
            socket: Some("/s".into()),
            models: Some("/m".into()),
            config: None,
            ..RunArgs::default()
        };
        let config = Config::load(&args).unwrap();
        let settings = Settings::new(args, config, Level::default()).map(Arc::new).unwrap();
        let store = Arc::new(Store::open("/m"));
        let stores = Arc::new(Stores::new(Arc::clone(&store), []));
        let daemon = Arc::new(Daemon {
            supervisor: Supervisor::start(Arc::clone(&settings), "/bin/true".into()),
            puller: puller(Arc::clone(&stores), &settings.config().pull).unwrap(),
            store,
            stores,
            requests: Requests::default(),
            sessions: None,
            started: Instant::now(),
            measuring: tokio::sync::Mutex::default(),
            capabilities: Capabilities::default(),
            addresses: Vec::new(),
            settings,
        });
        let module = module(daemon);
        let mut registered: Vec<String> = module.method_names().map(Into::into).collect();
        let mut expected = Vec::new();
        for method in protocol::methods() {
            expected.push(method.name.to_string());
            if method.event.is_some() {
                expected.extend(
                    ["stream", "unsubscribe"].map(|suffix| format!("{}.{suffix}", method.name)),
                );
            }
        }
        registered.sort();
        expected.sort();
        assert_eq!(registered, expected);
    }
}
