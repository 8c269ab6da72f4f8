//! `ctl ls`: the models in the store, newest first. Entries that cannot be read are warnings, not failures.

use super::Context;
use crate::error::CtlError;
use crate::format::{ago, bytes, short_id};
use hearth_protocol::{Empty, ModelList, ModelListMethod, ModelProblem, ModelSummary};

/// What to do about an empty store.
pub(super) const GET_ONE: &str =
    "`ctl pull smollm2:135m` fetches a small one, `ctl import FILE.gguf NAME` brings in a file";

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
        context.out.complain("hint", GET_ONE);
        return Ok(());
    }
    let row = |model: &ModelSummary| {
        [
            model.name.clone(),
            short_id(&model.id).to_owned(),
            bytes(model.size_bytes),
            model.family.clone(),
            model.parameter_size.clone(),
            model.quantization.clone(),
            ago(model.modified_s),
            model.store.clone(),
        ]
    };
    let rows: Vec<[String; 8]> = list.models.iter().map(row).collect();
    let names = ["NAME", "ID", "SIZE", "FAMILY", "PARAMETERS", "QUANTIZATION", "MODIFIED", "STORE"];
    if list.stores.len() > 1 {
        context.out.table(names, &rows)?;
    } else {
        let [names @ .., _] = names;
        let rows: Vec<[String; 7]> = rows.into_iter().map(|[row @ .., _]| row).collect();
        context.out.table(names, &rows)?;
    }
    for ModelSummary { name, store, .. } in &list.shadowed {
        context.out.note(&format!("`{name}` of `{store}` is hidden by the one above"));
    }
    Ok(())
}
