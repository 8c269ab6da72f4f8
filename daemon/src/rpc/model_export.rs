//! `model.export`

use super::{Daemon, Handled, blocking};
use crate::listen::Caller;
use crate::supervisor::parse_name;
use hearth_protocol::{Exported, ExportedBlob, ModelExport, ModelParams};
use hearth_store::LayerKind;
use std::collections::HashSet;
use std::sync::Arc;

pub(super) async fn handle(
    daemon: Arc<Daemon>,
    _: Caller,
    params: ModelParams,
) -> Handled<ModelExport> {
    let name = parse_name(&params.model)?;
    let stores = Arc::clone(&daemon.stores);
    let (name, manifest) = blocking(move || {
        let (name, _) = stores.find(&name)?;
        let manifest = stores.manifest(&name)?;
        Ok((name, manifest))
    })
    .await?;
    let mut digests = HashSet::new();
    let blobs = manifest
        .blobs()
        .filter(|blob| digests.insert(blob.digest))
        .map(|blob| ExportedBlob { digest: blob.digest.to_string(), size_bytes: blob.size });
    let weights = manifest.layers_of(LayerKind::Model).next_back();
    Ok(Exported {
        name: name.to_string(),
        id: manifest.id().hex(),
        manifest: String::from_utf8_lossy(manifest.bytes()).into_owned(),
        weights: weights.map(|layer| layer.digest.to_string()),
        blobs: blobs.collect(),
    })
}
