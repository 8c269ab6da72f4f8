//! `model.show`

use super::model_list::summary;
use super::{Daemon, Handled, blocking};
use crate::listen::Caller;
use crate::supervisor::parse_name;
use hearth_protocol::{ModelDetails, ModelParams, ModelShow};
use hearth_store::GgufValue;
use std::sync::Arc;

pub(super) async fn handle(
    daemon: Arc<Daemon>,
    _: Caller,
    params: ModelParams,
) -> Handled<ModelShow> {
    let name = parse_name(&params.model)?;
    let store = Arc::clone(&daemon.store);
    let shown = blocking(move || store.show(&name)).await?;
    let (model, gguf) = (shown.model, shown.gguf);
    Ok(ModelDetails {
        summary: summary(&model.name, &model.id, shown.size, shown.modified, &model.config),
        path: model.model_path.display().to_string(),
        architecture: gguf.architecture,
        parameters: gguf.parameter_count,
        context_length: gguf.context_length.unwrap_or(0),
        embedding_length: gguf.embedding_length.unwrap_or(0),
        block_count: gguf.block_count.unwrap_or(0),
        chat_template: gguf.chat_template,
        system: model.system,
        licenses: shown.licenses,
        metadata: gguf.metadata.into_iter().map(|(key, value)| (key, text(value))).collect(),
    })
}

fn text(value: GgufValue) -> String {
    match value {
        GgufValue::Unsigned(number) => number.to_string(),
        GgufValue::Signed(number) => number.to_string(),
        GgufValue::F32(number) => number.to_string(),
        GgufValue::F64(number) => number.to_string(),
        GgufValue::Bool(value) => value.to_string(),
        GgufValue::Text(text) => text,
        GgufValue::LongText { n_bytes } => format!("(text of {n_bytes} bytes)"),
        GgufValue::Array { len, .. } => format!("({len} values)"),
    }
}
