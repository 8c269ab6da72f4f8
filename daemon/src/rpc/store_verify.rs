//! `store.verify`

use super::reported::{Reporter, reported, telling};
use super::work::{Events, Request, Work};
use super::{Daemon, store_error};
use crate::supervisor::parse_name;
use hearth_protocol::{ProgressEvent, RpcError, StoreVerify, Verified, VerifyFault, VerifyParams};
use hearth_registry::{BlobProgress, Source};
use hearth_store::{Fault, Layer, ModelName};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;

impl Work for StoreVerify {
    type Event = ProgressEvent<Verified>;

    fn name(params: &mut VerifyParams) -> Option<String> {
        params.request.take()
    }

    async fn run(
        request: Request,
        params: VerifyParams,
        events: Events<Self::Event>,
    ) -> Result<Verified, RpcError> {
        let names: Vec<_> =
            params.models.iter().map(|name| parse_name(name)).collect::<Result<_, _>>()?;
        let daemon = &request.daemon;
        let mut verified = read(daemon, names, &events).await?;
        let mut repaired = 0;
        let faulty = faulty(&verified.faults);
        if params.repair && !faulty.is_empty() {
            let failed = repair(daemon, &faulty, &events).await;
            let again = read(daemon, faulty.into_keys().collect(), &events).await?;
            let n_before = n_files(&verified.faults);
            // What is no blob of a model was not read again.
            verified.faults.retain(|fault| fault.model.is_none() || fault.blob.is_none());
            verified.faults.extend(again.faults.into_iter().filter(|fault| fault.blob.is_some()));
            for fault in &mut verified.faults {
                let reason = fault.model.as_ref().and_then(|model| failed.get(model));
                fault.hint = reason
                    .map(|reason| format!("it cannot be repaired: {reason}"))
                    .or(fault.hint.take());
            }
            repaired = n_before.saturating_sub(n_files(&verified.faults));
        }
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let n_faults = verified.faults.len();
        tracing::info!(files = verified.n_blobs, faults = n_faults, repaired, "Models verified");
        Ok(Verified {
            models: count(verified.n_models),
            files: count(verified.n_blobs),
            bytes: verified.bytes,
            repaired: count(repaired),
            faults: verified.faults.into_iter().map(fault).collect(),
        })
    }
}

async fn read(
    daemon: &Daemon,
    names: Vec<ModelName>,
    events: &Events<ProgressEvent<Verified>>,
) -> Result<hearth_store::Verified, RpcError> {
    let stores = Arc::clone(&daemon.stores);
    let work = move |reporter: &mut Reporter| {
        let mut tell = |done, total| reporter.tell("reading", done, total);
        stores.verify(&names, &mut tell).map_err(|error| store_error(&error))
    };
    reported(events, work).await
}

/// The blobs that are wrong, by the models that have them.
fn faulty(faults: &[Fault]) -> BTreeMap<ModelName, Vec<Layer>> {
    let mut faulty: BTreeMap<ModelName, Vec<Layer>> = BTreeMap::new();
    for fault in faults {
        if let (Some(model), Some(blob)) = (&fault.model, &fault.blob) {
            faulty.entry(model.clone()).or_default().push(blob.clone());
        }
    }
    faulty
}

fn n_files(faults: &[Fault]) -> usize {
    faults.iter().map(|fault| fault.path.as_path()).collect::<HashSet<&Path>>().len()
}

/// Fetches them again. Says why, where that was not possible.
async fn repair(
    daemon: &Daemon,
    faulty: &BTreeMap<ModelName, Vec<Layer>>,
    events: &Events<ProgressEvent<Verified>>,
) -> HashMap<ModelName, String> {
    let mut failed = HashMap::new();
    let total = faulty.values().flatten().map(|blob| blob.size).sum::<u64>().max(1);
    let mut n_before = 0;
    let mut blobs = Vec::new();
    for (name, of_model) in faulty {
        blobs.extend(of_model.iter().map(|blob| (name, blob)));
    }
    for (name, blob) in blobs {
        let fetch = async |progress: &watch::Sender<Vec<BlobProgress>>| {
            let id = daemon.store.manifest(name).map_err(|error| error.to_string())?.id();
            // One that Ollama pulled is where its name says.
            let origin = daemon.store.origin(&id).unwrap_or_else(|| name.to_string());
            let source = Source::parse(&origin).map_err(|error| error.to_string())?;
            let repaired = daemon.puller.repair(&source, name, blob, progress).await;
            repaired.map_err(|error| error.to_string())
        };
        let event = |blobs: &Vec<BlobProgress>| {
            let n_here: u64 = blobs.iter().map(|blob| blob.n_bytes).sum();
            let fraction = (n_before + n_here.min(blob.size)) as f32 / total as f32;
            ProgressEvent::Progress { stage: "fetching".into(), fraction }
        };
        if let Err(reason) = telling(events, fetch, event).await {
            failed.insert(name.clone(), reason);
        }
        n_before += blob.size;
    }
    failed
}

fn fault(fault: Fault) -> VerifyFault {
    VerifyFault {
        model: fault.model.map(|name| name.to_string()),
        path: fault.path.display().to_string(),
        message: fault.message,
        hint: fault.hint,
    }
}
