//! `ctl push MODEL [TARGET]`: send a model to a registry. The daemon does the work, and Ctrl-C ends it there.

use super::{Context, transfer};
use crate::answer::request_name;
use crate::error::CtlError;
use crate::format::bytes;
use hearth_protocol::{ModelPush, PushParams};

pub(super) fn run(
    context: &Context,
    model: String,
    target: Option<String>,
    insecure: bool,
) -> Result<(), CtlError> {
    let request = request_name();
    let params = PushParams { model, target, insecure, request: Some(request.clone()) };
    let pushed = transfer::follow::<ModelPush>(context, &params, &request)?;
    pushed.map_or(Ok(()), |pushed| {
        let size = bytes(pushed.size_bytes);
        context.out.line(&format!("`{}` is at `{}`, {size}", pushed.name, pushed.host))
    })
}
