//! Ctrl-C.
//!
//! A thread waits for SIGINT. In a chat the first one while the model thinks asks the daemon to let it answer with that.
//! Otherwise the first one during an answer asks the daemon to cancel the request, whose stream then ends as every stream
//! does; the second, or the first where there is nothing to cancel, ends the connection, so that a daemon
//! that hangs holds nobody. While the chat waits at its prompt the terminal is raw and Ctrl-C is a key, not a signal; one
//! sent from elsewhere (`kill -INT`) at that time does nothing.

use hearth_protocol::Canceller;
use signal_hook::consts::SIGINT;
use signal_hook::iterator::Signals;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupt {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    installed: bool,
    n_signals: u32,
    target: Option<Target>,
    thinking: Thinking,
}

/// Of the model, while it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Thinking {
    #[default]
    No,
    /// It can be told to answer.
    Yes,
    /// It was told.
    Hurried,
}

#[derive(Debug)]
struct Target {
    canceller: Canceller,
    request: Option<String>,
}

impl Interrupt {
    /// From here on Ctrl-C is about this connection, and with a request about that request first.
    pub(crate) fn watch(&self, canceller: Canceller, request: Option<String>) -> Watch<'_> {
        let mut state = self.lock();
        if !state.installed {
            state.installed = self.install();
        }
        state.n_signals = 0;
        state.thinking = Thinking::No;
        state.target = Some(Target { canceller, request });
        drop(state);
        Watch { interrupt: self }
    }

    /// Whether Ctrl-C was pressed since the last `watch` began.
    pub(crate) fn happened(&self) -> bool {
        self.lock().n_signals > 0
    }

    /// Without the handler a SIGINT ends the process as it does by default, which is right enough.
    fn install(&self) -> bool {
        let Ok(mut signals) = Signals::new([SIGINT]) else { return false };
        let interrupt = self.clone();
        std::thread::spawn(move || {
            for _ in signals.forever() {
                interrupt.lock().signal();
            }
        });
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn signal(&mut self) {
        let target = self.target.as_ref();
        if let (Some(Target { canceller, request: Some(request) }), Thinking::Yes) =
            (target, self.thinking)
        {
            self.thinking = Thinking::Hurried;
            // A connection that cannot be written to or shut down has ended, and its reader knows.
            let _ = canceller.end_thinking(request);
            return;
        }
        self.n_signals += 1;
        let _ = match target {
            None => return,
            Some(Target { canceller, request: Some(request) }) if self.n_signals == 1 => {
                canceller.cancel(request)
            }
            Some(Target { canceller, .. }) => canceller.hang_up(),
        };
    }
}

/// While it lives, Ctrl-C is about one connection.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    interrupt: &'a Interrupt,
}

impl Watch<'_> {
    /// Whether the model thinks, so that the first Ctrl-C makes it answer.
    pub(crate) fn thinks(&self, yes: bool) {
        let mut state = self.interrupt.lock();
        if state.thinking != Thinking::Hurried {
            state.thinking = if yes { Thinking::Yes } else { Thinking::No };
        }
    }

    /// The daemon knows the request now; a cancel that came before it did was lost, and is sent again.
    pub(crate) fn accepted(&self) {
        let state = self.interrupt.lock();
        if state.n_signals > 0
            && let Some(Target { canceller, request: Some(request) }) = &state.target
        {
            let _ = canceller.cancel(request);
        }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.interrupt.lock().target = None;
    }
}
