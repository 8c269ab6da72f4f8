//! `ctl stop MODEL`: take a model out of memory. One that was not loaded is no failure: the wish is fulfilled.

use super::Context;
use crate::error::CtlError;
use hearth_protocol::{ModelParams, ModelUnload, Unloaded};

pub(super) fn run(context: &Context, model: String) -> Result<(), CtlError> {
    let mut session = context.connect()?;
    let reply = session.call::<ModelUnload>(&ModelParams { model: model.clone() })?;
    if context.out.is_json() {
        return context.out.json(&reply);
    }
    let Unloaded { unloaded } = session.read(reply)?;
    context.out.line(&if unloaded {
        format!("`{model}` is unloaded")
    } else {
        format!("`{model}` was not loaded")
    })
}
