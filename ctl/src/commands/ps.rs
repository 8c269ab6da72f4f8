//! `ctl ps`: the models in memory, the one used last first.

use super::Context;
use crate::error::CtlError;
use crate::format::{bytes, short_id, span_f64};
use hearth_protocol::{Empty, ModelPs, RunningModel, RunningModels};

pub(super) fn run(context: &Context) -> Result<(), CtlError> {
    let mut session = context.connect()?;
    let reply = session.call::<ModelPs>(&Empty {})?;
    if context.out.is_json() {
        return context.out.json(&reply);
    }
    let running: RunningModels = session.read(reply)?;
    if running.models.is_empty() {
        context.out.note("no model is loaded");
        return Ok(());
    }
    let rows: Vec<[String; 9]> = running
        .models
        .iter()
        .map(|model| {
            [
                model.name.clone(),
                short_id(&model.id).to_owned(),
                model.state.clone(),
                model.backend.clone(),
                bytes(model.rss_bytes),
                model.context.to_string(),
                model.active_requests.to_string(),
                stays(model),
                model.pid.to_string(),
            ]
        })
        .collect();
    context.out.table(
        ["NAME", "ID", "STATE", "BACKEND", "MEMORY", "CONTEXT", "REQUESTS", "STAYS", "PID"],
        &rows,
    )
}

/// The wire has no time both for a model that stays for ever and for one at work.
fn stays(model: &RunningModel) -> String {
    match model.expires_s {
        Some(seconds) => span_f64(seconds),
        None if model.active_requests > 0 => "while it works".into(),
        None => "forever".into(),
    }
}
