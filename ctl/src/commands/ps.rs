//! `ctl ps`: the models in memory, the one used last first.

use super::Context;
use crate::error::CtlError;
use crate::format::{bytes, short_id, span_f64};
use hearth_protocol::{Empty, ModelPs, RunningModel, RunningModels};

pub(super) fn run(context: &Context, memory: bool) -> Result<(), CtlError> {
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
    if memory {
        return list_memory(context, &running);
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

/// What it costs, and what the engine holds of that.
fn list_memory(context: &Context, running: &RunningModels) -> Result<(), CtlError> {
    let row = |model: &RunningModel| {
        let memory = &model.memory;
        [
            model.name.clone(),
            bytes(model.rss_bytes),
            bytes(memory.mapped_bytes),
            bytes(memory.private_bytes),
            bytes(memory.context_bytes),
            format!("{} of {}", memory.kv_tokens, model.context),
            memory.kv_reserved.to_string(),
            bytes(memory.saved_bytes),
        ]
    };
    let rows: Vec<[String; 8]> = running.models.iter().map(row).collect();
    context.out.table(
        ["NAME", "MEMORY", "MAPPED", "PRIVATE", "CONTEXT", "KV TOKENS", "RESERVED", "SAVED"],
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
