//! `ctl ls`: the models in the store, newest first. Entries that cannot be read are warnings, not failures.

use super::Context;
use crate::error::CtlError;
use crate::format::{ago, bytes, short_id};
use hearth_protocol::{Empty, ModelList, ModelListMethod, ModelProblem};

/// Entries of the store that cannot be read.
pub(super) fn warn<'a>(context: &Context, problems: impl IntoIterator<Item = &'a ModelProblem>) {
    for problem in problems {
        context.out.complain("warning", &format!("`{}`: {}", problem.path, problem.message));
    }
}

pub(super) fn run(context: &Context) -> Result<(), CtlError> {
    let mut session = context.connect()?;
    let reply = session.call::<ModelListMethod>(&Empty {})?;
    if context.out.is_json() {
        return context.out.json(&reply);
    }
    let list: ModelList = session.read(reply)?;
    warn(context, &list.problems);
    if list.models.is_empty() {
        context.out.note("no models in the store");
        context.out.complain("hint", "`ctl import FILE.gguf NAME` brings one in");
        return Ok(());
    }
    let rows: Vec<[String; 7]> = list
        .models
        .iter()
        .map(|model| {
            [
                model.name.clone(),
                short_id(&model.id).to_owned(),
                bytes(model.size_bytes),
                model.family.clone(),
                model.parameter_size.clone(),
                model.quantization.clone(),
                ago(model.modified_s),
            ]
        })
        .collect();
    context
        .out
        .table(["NAME", "ID", "SIZE", "FAMILY", "PARAMETERS", "QUANTIZATION", "MODIFIED"], &rows)
}
