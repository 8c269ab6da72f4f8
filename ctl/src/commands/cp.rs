//! `ctl cp FROM TO`: give a model one more name. One of a store that is only read is copied, which takes a while.

use super::{Context, progress};
use crate::error::CtlError;
use hearth_protocol::{Copied, CopyParams, ModelCopy};

pub(super) fn run(context: &Context, from: String, to: String) -> Result<(), CtlError> {
    let mut session = context.connect()?;
    let params = CopyParams { from: from.clone(), to, request: None };
    let reply = progress::watch::<ModelCopy>(context, &mut session, &params)?;
    if context.out.is_json() {
        return context.out.json(&reply);
    }
    let Copied { name, .. } = session.read(reply)?;
    context.out.line(&format!("`{name}` is the same as `{from}` now"))
}
