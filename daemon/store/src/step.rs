//! The steps of a change to a store: each write, rename, sync and removal asks here first.
//!
//! Outside tests the answer is always yes. A test makes any one step the last of its process, or the
//! first that finds the disk full.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Needs room on the disk.
    Grow,
    Other,
}

#[cfg(not(test))]
pub(crate) fn step(_: Step) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(crate) use faulty::{Fault, run, step};

#[cfg(test)]
mod faulty {
    use super::Step;
    use std::cell::Cell;
    use std::io;

    /// What goes wrong, counted in steps from 0.
    #[derive(Debug, Clone, Copy)]
    pub(crate) enum Fault {
        None,
        /// The process is killed instead.
        Kill(u32),
        /// From here on there is no room.
        Full(u32),
    }

    thread_local! {
        static NEXT: Cell<(u32, Fault)> = const { Cell::new((0, Fault::None)) };
    }

    /// Makes a change, and says how many steps it had.
    pub(crate) fn run<T>(fault: Fault, change: impl FnOnce() -> T) -> (T, u32) {
        NEXT.set((0, fault));
        let result = change();
        let (n_steps, _) = NEXT.replace((0, Fault::None));
        (result, n_steps)
    }

    pub(crate) fn step(step: Step) -> io::Result<()> {
        let (idx, fault) = NEXT.get();
        NEXT.set((idx + 1, fault));
        match fault {
            Fault::Kill(at) if at == idx => {
                use rustix::process::{Signal, getpid, kill_process};
                kill_process(getpid(), Signal::KILL)?;
                unreachable!("a process outlived its SIGKILL")
            }
            Fault::Full(at) if at <= idx && step == Step::Grow => {
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }
}
