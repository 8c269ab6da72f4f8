//! `model.quantize`

use super::given::absolute;
use super::reported::{Reporter, reported, telling};
use super::work::{Events, Request, Work};
use super::{Daemon, blocking, store_error};
use crate::quantize::{Quantization, quantize};
use crate::supervisor::parse_name;
use hearth_protocol::{ModelQuantize, ProgressEvent, QuantizeParams, Quantized, RpcError};
use hearth_store::{DEFAULT_TAG, ModelName};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;

impl Work for ModelQuantize {
    type Event = ProgressEvent<Quantized>;

    fn name(params: &mut QuantizeParams) -> Option<String> {
        params.request.take()
    }

    async fn run(
        request: Request,
        params: QuantizeParams,
        events: Events<Self::Event>,
    ) -> Result<Quantized, RpcError> {
        let name = parse_name(&params.model)?;
        let to = params.to.as_deref().map(parse_name).transpose()?;
        let imatrix = params.imatrix.as_deref().map(absolute).transpose()?.map(Path::to_owned);
        let stores = Arc::clone(&request.daemon.stores);
        let (model, manifest, staged) = blocking(move || {
            let model = stores.resolve(&name)?;
            let manifest = stores.manifest(&name)?;
            Ok((model, manifest, stores.own().stage()?))
        })
        .await?;
        let quantization = Quantization {
            source: model.model_path,
            type_name: params.type_name,
            destination: staged.path().into(),
            imatrix,
            requantize: params.requantize,
        };
        let type_name = quantized(&request.daemon, &events, &quantization).await?;

        let from_size_bytes = manifest.size();
        let to = to.map_or_else(|| named_after(&model.name, &type_name), Ok)?;
        let work = move |reporter: &mut Reporter| {
            let store = &request.daemon.store;
            let mut progress = |done, total| reporter.tell("hashing", done, total);
            let (name, manifest) = store
                .reweigh(&manifest, staged, &to, &mut progress)
                .map_err(|error| store_error(&error))?;
            tracing::info!(model = %name, from = %model.name, "Model quantized");
            Ok(Quantized {
                name: name.to_string(),
                id: manifest.id().hex(),
                quantization: type_name,
                size_bytes: manifest.size(),
                from_size_bytes,
            })
        };
        reported(&events, work).await
    }
}

/// Writes smaller weights, and says how far it is.
pub(super) async fn quantized<R: serde::Serialize>(
    daemon: &Daemon,
    events: &Events<ProgressEvent<R>>,
    quantization: &Quantization,
) -> Result<String, RpcError> {
    let work = async |news: &watch::Sender<f32>| {
        let tell = |fraction| {
            news.send_replace(fraction);
        };
        quantize(&daemon.supervisor, quantization, tell).await
    };
    let event = |fraction: &f32| ProgressEvent::Progress {
        stage: "quantizing".into(),
        fraction: *fraction,
    };
    telling(events, work, event).await
}

/// As Ollama's library names them: the type ends the tag, and takes the place of the one that stood there.
fn named_after(name: &ModelName, type_name: &str) -> Result<ModelName, RpcError> {
    let type_name = type_name.to_ascii_lowercase();
    let tag = name.tag().to_ascii_lowercase();
    let (rest, last) = tag.rsplit_once('-').unwrap_or(("", &tag));
    let rest =
        if ["f32", "f16", "fp16", "bf16", DEFAULT_TAG].contains(&last) { rest } else { &tag };
    let tag = if rest.is_empty() { type_name } else { format!("{rest}-{type_name}") };
    ModelName::from_parts(name.host(), name.namespace(), name.model(), &tag)
        .map_err(|error| store_error(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_ends_the_tag() {
        for (name, made) in [
            ("a", "a:q4_k_m"),
            ("a:135m", "a:135m-q4_k_m"),
            ("a:135m-instruct-FP16", "a:135m-instruct-q4_k_m"),
            ("me/a:bf16", "me/a:q4_k_m"),
        ] {
            let found = named_after(&name.parse().unwrap(), "Q4_K_M").unwrap();
            assert_eq!(found.to_string(), made);
        }
    }
}
