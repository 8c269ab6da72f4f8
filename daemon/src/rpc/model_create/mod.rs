//! `model.create`
//!
//! What can be refused is refused before anything is read or written. Then the base is pulled if need be, the files become
//! blobs, and at last the store makes layers and a manifest of it all: until that moment nothing is to be seen.

mod files;
mod modelfile;
mod parameters;

use super::model_import::import_mode;
use super::model_quantize::quantized;
use super::reported::{Reporter, reported, telling};
use super::transferred::transfer_error;
use super::work::{Events, Request, Work};
use super::{Daemon, blocking, store_error};
use crate::chat_template::ChatTemplate;
use crate::quantize::Quantization;
use crate::supervisor::parse_name;
use files::{Files, Raw};
use hearth_protocol::{
    CreateParams, Created, ErrorKind, ModelCreate, ProgressEvent, Role, RpcError,
};
use hearth_registry::{BlobProgress, Source};
use hearth_store::{Blob, Manifest, ModelName, PresetMessage, Recipe, Store, StoreError};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

pub(super) use modelfile::modelfile;

impl Work for ModelCreate {
    type Event = ProgressEvent<Created>;

    fn name(params: &mut CreateParams) -> Option<String> {
        params.request.take()
    }

    async fn run(
        request: Request,
        params: CreateParams,
        events: Events<Self::Event>,
    ) -> Result<Created, RpcError> {
        let (name, mut recipe) = (parse_name(&params.model)?, recipe(&params)?);
        let daemon = &request.daemon;
        if let Some(from) = &params.from {
            recipe.base = Some(bring(daemon, from, &events).await?);
        }
        let type_name = params.quantize.clone();
        let (store, of) = (Arc::clone(&daemon.store), name.clone());
        let gather = move |reporter: &mut Reporter| gather(&store, &of, &params, recipe, reporter);
        let (mut recipe, raw) = reported(&events, gather).await?;
        if let Some(type_name) = type_name {
            recipe.weights = Some(quantize(daemon, &recipe, raw, type_name, &events).await?);
        }
        let store = Arc::clone(&daemon.store);
        let (name, manifest) = blocking(move || store.create(&name, &recipe)).await?;
        tracing::info!(model = %name, bytes = manifest.size(), "Model created");
        Ok(Created { name: name.to_string(), id: manifest.id().hex(), size_bytes: manifest.size() })
    }
}

/// What the parameters say, without their files.
fn recipe(params: &CreateParams) -> Result<Recipe, RpcError> {
    if params.from.is_none() && params.files.is_empty() {
        return Err(invalid(
            "neither `from` nor `files` says what the model is made of",
            "name a model that it builds on, or a file of weights",
        ));
    }
    if let Some(template) = params.template.as_deref().filter(|template| !template.is_empty()) {
        ChatTemplate::parse(template).map_err(|error| {
            let message = format!("the template cannot be used: {error}");
            invalid(message, "templates are in Go's language, as `ctl show --template` prints them")
        })?;
    }
    if let Some(requires) = params.requires.as_deref().filter(|requires| !is_version(requires)) {
        let message = format!("`requires` is `{requires}`, which is no version");
        return Err(invalid(message, "a version is as in `0.14.0`"));
    }
    let message = |message: &hearth_protocol::Message| {
        let role = match message.role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => {
                return Err(invalid(
                    "a message's role must be `system`, `user` or `assistant`",
                    "answers of tools belong to a chat",
                ));
            }
        };
        Ok(PresetMessage { role: role.into(), content: message.content.clone() })
    };
    Ok(Recipe {
        base: None,
        weights: None,
        files: Vec::new(),
        draft: None,
        template: params.template.clone(),
        system: params.system.clone(),
        params: parameters::read(&params.parameters)?,
        messages: params.messages.iter().map(message).collect::<Result<_, _>>()?,
        licenses: params.licenses.clone(),
        renderer: params.renderer.clone(),
        parser: params.parser.clone(),
        requires: params
            .requires
            .as_deref()
            .map(|requires| requires.strip_prefix('v').unwrap_or(requires).to_owned()),
    })
}

/// The base's manifest, whose blobs are in the own store then: another store's are copied, and what is in none is pulled.
async fn bring(
    daemon: &Daemon,
    from: &str,
    events: &Events<ProgressEvent<Created>>,
) -> Result<Manifest, RpcError> {
    let (stores, name) = (Arc::clone(&daemon.stores), parse_name(from)?);
    let wanted = name.clone();
    let found = blocking(move || match stores.manifest(&wanted) {
        Err(error @ StoreError::ModelNotFound { .. }) => Ok(Err(error)),
        found => found.map(Ok),
    });
    let absent = match found.await? {
        Ok(manifest) => {
            let stores = Arc::clone(&daemon.stores);
            let work = move |reporter: &mut Reporter| {
                let mut told = |done, total| reporter.tell("copying", done, total);
                stores.bring(&manifest, &mut told).map_err(|error| store_error(&error))?;
                Ok(manifest)
            };
            return reported(events, work).await;
        }
        Err(absent) => absent,
    };
    let unpulled = |error: RpcError| {
        let kind = error.kind().unwrap_or(ErrorKind::Network);
        let message = format!("{absent}, and it cannot be pulled: {error}");
        let hint = absent.hint().unwrap_or_default();
        RpcError::new(kind, message).with_hint(hint)
    };
    let Source::Registry(repository) =
        Source::parse(from).map_err(|error| unpulled(transfer_error(&error)))?
    else {
        return Err(store_error(&absent));
    };
    let mut most = 0.0_f32;
    let event = |blobs: &Vec<BlobProgress>| {
        most = most.max(fraction(blobs));
        ProgressEvent::Progress { stage: "pulling".into(), fraction: most }
    };
    let pull = async |progress: &watch::Sender<Vec<BlobProgress>>| {
        daemon.puller.registry(&repository, &name, progress).await
    };
    let pulled = telling(events, pull, event).await;
    let pulled = pulled.map_err(|error| unpulled(transfer_error(&error)))?;
    tracing::info!(model = %pulled.name, bytes = pulled.size, "Model pulled");
    let store = Arc::clone(&daemon.store);
    blocking(move || store.manifest(&pulled.name)).await
}

fn fraction(blobs: &[BlobProgress]) -> f32 {
    let sum = |of: fn(&BlobProgress) -> u64| blobs.iter().map(of).fold(0, u64::saturating_add);
    match sum(|blob| blob.size) {
        0 => 0.0,
        size => sum(|blob| blob.n_bytes) as f32 / size as f32,
    }
}

/// Makes blobs of the files, but for weights that are to be quantized.
fn gather(
    store: &Store,
    name: &ModelName,
    params: &CreateParams,
    mut recipe: Recipe,
    reporter: &mut Reporter,
) -> Result<(Recipe, Option<Raw>), RpcError> {
    let (mode, quantizes) = (import_mode(params.mode), params.quantize.is_some());
    let mut files = Files { store, name, mode, quantizes, reporter };
    let raw;
    (recipe.files, raw) = files.weights(&params.files)?;
    let adapters = files.adapters(&params.adapters, || weights(store, &recipe, raw.as_ref()))?;
    recipe.files.extend(adapters);
    recipe.draft = params.draft.as_ref().map(|draft| files.draft(draft)).transpose()?;
    Ok((recipe, raw))
}

fn weights(store: &Store, recipe: &Recipe, raw: Option<&Raw>) -> Result<PathBuf, StoreError> {
    raw.map_or_else(|| store.weights(recipe), |raw| Ok(raw.path().to_owned()))
}

/// The weights of what is to be made, in another type.
async fn quantize(
    daemon: &Daemon,
    recipe: &Recipe,
    raw: Option<Raw>,
    type_name: String,
    events: &Events<ProgressEvent<Created>>,
) -> Result<Blob, RpcError> {
    let (store, recipe) = (Arc::clone(&daemon.store), recipe.clone());
    let of = Arc::clone(&store);
    // `_raw` is a file that lasts until it is dropped.
    let (source, staged, _raw) =
        blocking(move || Ok((weights(&of, &recipe, raw.as_ref())?, of.stage()?, raw))).await?;
    let quantization = Quantization {
        source,
        type_name,
        destination: staged.path().into(),
        imatrix: None,
        requantize: false,
    };
    quantized(daemon, events, &quantization).await?;
    let work = move |reporter: &mut Reporter| {
        let mut progress = |done, total| reporter.tell("hashing", done, total);
        store.settle(staged, &mut progress).map_err(|error| store_error(&error))
    };
    reported(events, work).await.map(|(blob, _)| blob)
}

fn invalid(message: impl Into<String>, hint: impl Into<String>) -> RpcError {
    RpcError::new(ErrorKind::InvalidParams, message).with_hint(hint)
}

/// One to three numbers, perhaps behind a `v`, perhaps with what semantic versions put behind them; or nothing.
fn is_version(text: &str) -> bool {
    let text = text.strip_prefix('v').unwrap_or(text);
    let (numbers, rest) = text.split_at(text.find(['-', '+']).unwrap_or(text.len()));
    let numbers: Vec<&str> = numbers.split('.').collect();
    let is_number = |part: &&str| {
        let has_digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        has_digits && (*part == "0" || !part.starts_with('0'))
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-+".contains(c);
    let whole = numbers.len() <= 3 && numbers.iter().all(is_number);
    text.is_empty()
        || whole
            && (rest.is_empty()
                || numbers.len() == 3 && rest.len() > 1 && rest.chars().all(is_plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for version in ["", "0.14.0", "v1.2.3", "1", "1.2", "1.2.3-rc.1+build"] {
            assert!(is_version(version), "{version}");
        }
        for text in ["latest", "1.2.3.4", "1..2", "01.2.3", "1.2-rc", "1.2.3-", "1.2.3 "] {
            assert!(!is_version(text), "{text}");
        }
    }
}
