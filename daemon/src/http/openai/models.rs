//! `/v1/models`

use super::Answer;
use crate::http::body::Named;
use crate::http::{Core, json_response};
use crate::rpc;
use axum::http::StatusCode;
use hearth_protocol::{Empty, ModelListMethod, ModelParams, ModelShow, ModelSummary};
use schemars::JsonSchema;
use serde::Serialize;

#[derive(Serialize, JsonSchema)]
pub(super) struct Models {
    object: &'static str,
    data: Vec<Model>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Model {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: String,
}

pub(super) async fn list(core: Core) -> Answer {
    let list = core.call::<ModelListMethod, _>(rpc::model_list, Empty {}).await?;
    let data = list.models.iter().map(listed).collect();
    Ok(json_response(StatusCode::OK, &Models { object: "list", data }))
}

/// Names have slashes of their own.
pub(super) async fn one(core: Core, Named(model): Named) -> Answer {
    let shown = core.call::<ModelShow, _>(rpc::model_show, ModelParams { model }).await?;
    Ok(json_response(StatusCode::OK, &listed(&shown.summary)))
}

fn listed(model: &ModelSummary) -> Model {
    Model {
        id: model.name.clone(),
        object: "model",
        created: model.modified_s,
        owned_by: model.name.rsplit('/').nth(1).unwrap_or("library").into(),
    }
}
