//! `ctl verify [--repair] [MODEL...]`: read models again, every byte.

use super::du::amount;
use super::{Context, progress};
use crate::error::CtlError;
use hearth_protocol::{Amount, StoreVerify, Verified, VerifyParams};

pub(super) fn run(context: &Context, models: Vec<String>, repair: bool) -> Result<(), CtlError> {
    let mut session = context.connect()?;
    let params = VerifyParams { models, repair, request: None };
    let reply = progress::watch::<StoreVerify>(context, &mut session, &params)?;
    let verified: Verified = session.read(reply.clone())?;
    if context.out.is_json() {
        context.out.json(&reply)?;
    } else {
        show(context, &verified)?;
    }
    match verified.faults.len() {
        0 => Ok(()),
        n => Err(CtlError::failed(
            format!("{n} fault{}", if n == 1 { "" } else { "s" }),
            match repair {
                false => "`ctl verify --repair` fetches again what was pulled",
                true => "pull or import again what is named here",
            },
        )),
    }
}

fn show(context: &Context, verified: &Verified) -> Result<(), CtlError> {
    for fault in &verified.faults {
        let what = fault.model.as_deref().unwrap_or(&fault.path);
        context.out.line(&format!("`{what}`: {}", fault.message))?;
        if let Some(hint) = &fault.hint {
            context.out.line(&format!("  {hint}"))?;
        }
    }
    if verified.repaired > 0 {
        let s = if verified.repaired == 1 { "" } else { "s" };
        context.out.line(&format!("{} file{s} repaired", verified.repaired))?;
    }
    let read = Amount { files: verified.files, bytes: verified.bytes };
    let s = if verified.models == 1 { "" } else { "s" };
    context.out.line(&format!("{} of {} model{s} read", amount(read), verified.models))
}
