//! `ctl cp FROM TO`: give a model one more name.

use super::Context;
use crate::error::CtlError;
use hearth_protocol::{Copied, CopyParams, ModelCopy};

pub(super) fn run(context: &Context, from: String, to: String) -> Result<(), CtlError> {
    let mut session = context.connect()?;
    let reply = session.call::<ModelCopy>(&CopyParams { from: from.clone(), to })?;
    if context.out.is_json() {
        return context.out.json(&reply);
    }
    let Copied { name, .. } = session.read(reply)?;
    context.out.line(&format!("`{name}` is the same as `{from}` now"))
}
