//! `model.header`

use super::{Daemon, Handled, blocking};
use crate::listen::Caller;
use crate::supervisor::parse_name;
use hearth_protocol::{ModelHeader, ModelHeaderMethod, ModelParams, TensorFacts};
use hearth_store::{Gguf, GgufError, GgufValue, StoreError};
use serde_json::{Value, json};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

pub(crate) async fn handle(
    daemon: Arc<Daemon>,
    _: Caller,
    params: ModelParams,
) -> Handled<ModelHeaderMethod> {
    let name = parse_name(&params.model)?;
    let stores = Arc::clone(&daemon.stores);
    blocking(move || {
        let path = stores.resolve(&name)?.model_path;
        read(&path).map_err(|source| StoreError::BadGguf { path, source })
    })
    .await
}

fn read(path: &Path) -> Result<ModelHeader, GgufError> {
    let mut file = File::open(path)?;
    let gguf = Gguf::read(&mut file)?;
    let mut metadata = Vec::new();
    for (at, (key, value)) in gguf.metadata.iter().enumerate() {
        let value = match value {
            GgufValue::Array { .. } => gguf.items(&mut file, at)?.into_iter().map(json).collect(),
            value => json(value.clone()),
        };
        metadata.push((key.clone(), value));
    }
    let tensors = gguf.tensors.into_iter().map(|tensor| TensorFacts {
        name: tensor.name,
        type_name: tensor.tensor_type.name.into(),
        shape: tensor.dims,
    });
    Ok(ModelHeader { metadata, tensors: tensors.collect() })
}

/// A value as JSON; of what was not read, how long it is.
pub(super) fn json(value: GgufValue) -> Value {
    match value {
        GgufValue::Unsigned(number) => number.into(),
        GgufValue::Signed(number) => number.into(),
        // In as few digits as tell it from its neighbours.
        GgufValue::F32(number) => number.to_string().parse().unwrap_or_default(),
        GgufValue::F64(number) => number.into(),
        GgufValue::Bool(truth) => truth.into(),
        GgufValue::Text(text) => text.into(),
        GgufValue::LongText { n_bytes } => json!({ "bytes": n_bytes }),
        GgufValue::Array { len, .. } => json!({ "length": len }),
    }
}
