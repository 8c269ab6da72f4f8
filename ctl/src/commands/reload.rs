//! `ctl reload`: the daemon reads its configuration again.

use super::Context;
use crate::error::{CtlError, listed};
use hearth_protocol::{DaemonReload, Empty, Reloaded};

pub(super) fn run(context: &Context) -> Result<(), CtlError> {
    let mut session = context.connect()?;
    let reply = session.call::<DaemonReload>(&Empty {})?;
    if context.out.is_json() {
        return context.out.json(&reply);
    }
    let Reloaded { needs_restart } = session.read(reply)?;
    context.out.line("the configuration was read again")?;
    if !needs_restart.is_empty() {
        let keys = listed(&needs_restart);
        context.out.note(&format!("[{keys} changed, and the daemon must be restarted for that]"));
    }
    Ok(())
}
