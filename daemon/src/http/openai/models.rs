//! `/v1/models`

use super::Answer;
use crate::http::{Core, json_response};
use crate::rpc;
use axum::extract::Path;
use axum::http::StatusCode;
use hearth_protocol::{Empty, ModelListMethod, ModelParams, ModelShow, ModelSummary};
use serde_json::{Value, json};

pub(super) async fn list(core: Core) -> Answer {
    let list = core.call::<ModelListMethod, _>(rpc::model_list, Empty {}).await?;
    let models: Vec<_> = list.models.iter().map(listed).collect();
    Ok(json_response(StatusCode::OK, &json!({ "object": "list", "data": models })))
}

/// Names have slashes of their own.
pub(super) async fn one(core: Core, Path(model): Path<String>) -> Answer {
    let shown = core.call::<ModelShow, _>(rpc::model_show, ModelParams { model }).await?;
    Ok(json_response(StatusCode::OK, &listed(&shown.summary)))
}

fn listed(model: &ModelSummary) -> Value {
    let owner = model.name.rsplit('/').nth(1).unwrap_or("library");
    json!({
        "id": model.name,
        "object": "model",
        "created": model.modified_s,
        "owned_by": owner,
    })
}
