//! `hearthd plugin check FILE`: tries a plugin against the contract, in a process of its own with a deadline.

use anyhow::{Context, bail};
use hearth_abi::check::{self, Verdict};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Far longer than any plugin needs with a small model.
const DEADLINE: Duration = Duration::from_secs(300);

/// Checks a plugin and prints a line for each rule. Fails if a rule is broken.
pub fn run(
    file: &Path,
    model: Option<&Path>,
    projector: Option<&Path>,
    here: bool,
) -> anyhow::Result<()> {
    match here {
        true => check_here(file, model, projector),
        false => check_in_child(file, model, projector),
    }
}

fn check_in_child(
    file: &Path,
    model: Option<&Path>,
    projector: Option<&Path>,
) -> anyhow::Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["plugin", "check", "--here"]).arg(file).stdin(Stdio::null());
    for (option, path) in [("--model", model), ("--projector", projector)] {
        if let Some(path) = path {
            command.arg(option).arg(path);
        }
    }
    let mut child = command.spawn().context("cannot start the check")?;
    let pid = rustix::process::Pid::from_child(&child);
    let (ended, status) = mpsc::channel();
    std::thread::spawn(move || ended.send(child.wait()));
    let status = match status.recv_timeout(DEADLINE) {
        Ok(status) => status?,
        Err(_) => {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
            bail!(
                "the plugin hung: the check took longer than {} s and was ended",
                DEADLINE.as_secs()
            );
        }
    };
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (None, Some(signal)) => {
            bail!("the plugin crashed with signal {signal}, in the check after the last line above")
        }
        _ => bail!("`{}` does not keep the contract", file.display()),
    }
}

fn check_here(file: &Path, model: Option<&Path>, projector: Option<&Path>) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout();
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    let mut written = Ok(());
    check::run(file, model, projector, &mut |outcome| {
        let line = match &outcome.verdict {
            Verdict::Passed => {
                passed += 1;
                format!("ok    {}", outcome.scenario)
            }
            Verdict::Failed(reason) => {
                failed += 1;
                format!("FAIL  {}: {reason}\n      rule: {}", outcome.scenario, outcome.rule)
            }
            Verdict::NotApplicable(reason) => {
                skipped += 1;
                format!("n/a   {}: {reason}", outcome.scenario)
            }
        };
        // Flushed line by line, so that a crash leaves behind where it happened.
        if let Err(error) = writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
            written = Err(error);
        }
    });
    written?;
    writeln!(stdout, "{passed} rules kept, {failed} broken, {skipped} not applicable")?;
    if failed > 0 {
        bail!("{failed} rules are broken");
    }
    Ok(())
}
