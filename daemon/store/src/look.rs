//! Looks at what may lie on a disk that has gone away, where nothing would end a wait.
//!
//! Each has a thread of its own and is given up after a while. Who gives one up keeps what says that it goes on, and asks
//! no more until it has come back: so one thread hangs, and not one for each who asks.

use std::io;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than a disk takes to wake up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct Look<T> {
    started: Instant,
    running: Weak<()>,
    answer: Receiver<T>,
}

impl<T: Send + 'static> Look<T> {
    pub(crate) fn begin(work: impl FnOnce() -> T + Send + 'static) -> io::Result<Self> {
        let running = Arc::new(());
        let look = Arc::downgrade(&running);
        let (sender, answer) = mpsc::channel();
        thread::Builder::new().name("look".to_owned()).spawn(move || {
            let _ = sender.send(work());
            drop(running);
        })?;
        Ok(Self { started: Instant::now(), running: look, answer })
    }

    /// The answer, or what lives as long as the look goes on.
    pub(crate) fn answer(self, patience: Duration) -> Result<T, Weak<()>> {
        let left = patience.saturating_sub(self.started.elapsed());
        self.answer.recv_timeout(left).map_err(|_| self.running)
    }
}
