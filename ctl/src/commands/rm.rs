//! `ctl rm MODEL...`: remove models from the store. One that cannot be removed does not keep the others.

use super::Context;
use super::ls::warn;
use crate::error::CtlError;
use crate::format::bytes;
use crate::session::Session;
use hearth_protocol::{Deleted, ModelDelete, ModelParams};

pub(super) fn run(context: &Context, models: Vec<String>) -> Result<(), CtlError> {
    each(context, models, remove)
}

/// Does it to each, whatever becomes of the others.
pub(super) fn each(
    context: &Context,
    names: Vec<String>,
    act: fn(&Context, &mut Session, String) -> Result<(), CtlError>,
) -> Result<(), CtlError> {
    let mut session = context.connect()?;
    let mut result = Ok(());
    for name in names {
        match (act(context, &mut session, name), &result) {
            (Ok(()), _) => {}
            (Err(refused @ CtlError::Rpc { .. }), earlier) => {
                if let Err(earlier) = earlier {
                    let _ = CtlError::report(earlier, &context.out);
                }
                result = Err(refused);
            }
            (Err(error), _) => return Err(error),
        }
    }
    result
}

fn remove(context: &Context, session: &mut Session, model: String) -> Result<(), CtlError> {
    let reply = session.call::<ModelDelete>(&ModelParams { model })?;
    if context.out.is_json() {
        return context.out.json(&reply);
    }
    let Deleted { name, freed_bytes, uncovers, problem } = session.read(reply)?;
    if let Some(problem) = &problem {
        warn(context, [problem]);
        context.out.complain("hint", "files that may be needed stay; `ctl prune` looks again");
    }
    if let Some(store) = uncovers {
        context.out.note(&format!("`{name}` is the one in `{store}` from now on"));
    }
    context.out.line(&format!("`{name}` is removed, which frees {}", bytes(freed_bytes)))
}
