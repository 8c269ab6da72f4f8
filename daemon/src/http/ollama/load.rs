//! Requests without a question: they load a model, or with `keep_alive` 0 unload it.

use super::{Answer, Failure, metrics, named};
use crate::http::{Core, json_response};
use crate::rpc;
use axum::http::StatusCode;
use hearth_protocol::{Empty, KeepAlive, LoadParams, ModelLoad, ModelParams, ModelPs, ModelShow};
use serde_json::{Value, json};

/// `field` is where the dialect has its empty text.
pub(super) async fn load(
    core: &Core,
    model: &str,
    keep_alive: Option<KeepAlive>,
    field: (&str, Value),
) -> Answer {
    let shown = core
        .call::<ModelShow, _>(rpc::model_show, ModelParams { model: model.into() })
        .await
        .map_err(|error| named(model, error))?;
    let unload = keep_alive == Some(KeepAlive(0.0));
    let is_loaded = async || {
        let running = core.call::<ModelPs, _>(rpc::model_ps, Empty {}).await?;
        Ok::<_, Failure>(running.models.iter().any(|running| running.id == shown.summary.id))
    };
    // What is not loaded need not be loaded to be unloaded.
    if !unload || is_loaded().await? {
        let params = LoadParams { model: model.into(), draft: None, keep_alive, request: None };
        core.run::<ModelLoad>(params).await.map_err(|error| named(model, error))?;
    }
    let mut line = json!({
        "model": model,
        "created_at": metrics::now(),
        "done": true,
        "done_reason": if unload { "unload" } else { "load" },
    });
    line[field.0] = field.1;
    Ok(json_response(StatusCode::OK, &line))
}
