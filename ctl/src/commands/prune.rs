//! `ctl prune`: remove what no model has and what was never finished. At a terminal it asks first.

use super::Context;
use super::du::amount;
use super::ls::warn;
use crate::error::CtlError;
use crate::format::bytes;
use crate::session::Session;
use hearth_protocol::{Amount, PruneParams, Pruned, PrunedFile, StorePrune};
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// How soon Ctrl-C is seen while the question waits.
const LOOK: Duration = Duration::from_millis(50);

pub(super) fn run(context: &Context, dry_run: bool, yes: bool) -> Result<(), CtlError> {
    let mut session = context.connect()?;
    if !dry_run && !yes && io::stdin().is_terminal() {
        let pruned: Pruned = session.ask::<StorePrune>(&PruneParams { dry_run: true })?;
        for file in &pruned.removed {
            context.out.note(&line(file));
        }
        let question = format!("remove {}? [y/N] ", amount(removed(&pruned)));
        if !pruned.removed.is_empty() && !confirm(&session, &question)? {
            context.out.note("nothing was removed");
            return Ok(());
        }
    }
    let reply = session.call::<StorePrune>(&PruneParams { dry_run })?;
    if context.out.is_json() {
        return context.out.json(&reply);
    }
    let pruned: Pruned = session.read(reply)?;
    warn(context, &pruned.problem);
    if pruned.problem.is_some() {
        context.out.complain("hint", "repair or remove it; until then files of no model stay");
    }
    if dry_run {
        for file in &pruned.removed {
            context.out.line(&line(file))?;
        }
    }
    let done = if dry_run { "would be removed" } else { "removed" };
    context.out.line(&format!("{} {done}", amount(removed(&pruned))))?;
    if pruned.spared.files > 0 {
        context.out.note(&format!("{} of no model: too new, or in use", amount(pruned.spared)));
    }
    Ok(())
}

fn removed(pruned: &Pruned) -> Amount {
    Amount { files: pruned.removed.len() as u64, bytes: pruned.freed_bytes }
}

fn line(file: &PrunedFile) -> String {
    let what = if file.unfinished { "unfinished" } else { "of no model" };
    format!("{:>9}  {what:11}  {}", bytes(file.size_bytes), file.path)
}

/// Another thread reads the answer, since Ctrl-C does not end a read.
fn confirm(session: &Session, question: &str) -> Result<bool, CtlError> {
    let mut stderr = io::stderr().lock();
    write!(stderr, "{question}").and_then(|()| stderr.flush()).map_err(CtlError::Output)?;
    let (sender, answer) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = sender.send(io::stdin().read_line(&mut line).map(|_| line));
    });
    loop {
        match answer.recv_timeout(LOOK) {
            Ok(Ok(line)) => return Ok(matches!(line.trim(), "y" | "Y" | "yes")),
            Err(RecvTimeoutError::Timeout) if !session.interrupted() => {}
            _ => return Err(CtlError::Interrupted),
        }
    }
}
