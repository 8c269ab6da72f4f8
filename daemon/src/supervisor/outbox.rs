//! Events of one request on their way from a worker to a client that may read slowly, or never.
//!
//! Taking an event never waits, so no client can stall a worker. Pieces of text that nobody has read yet are merged into
//! one, and news of progress replaces older news, so the memory is bounded by the answer itself.
//!
//! **Invariant.** Nothing is taken after a terminal event, and no character of text is lost.

use crate::worker::frames::WorkerEvent;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<WorkerEvent>,
    ended: bool,
}

impl Outbox {
    pub(crate) fn push(&self, event: WorkerEvent) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.ended {
            return;
        }
        state.ended = event.is_terminal();
        // Answers to one request come side by side, and their order among each other means nothing.
        let last = match event.candidate() {
            None => state.events.back_mut(),
            candidate => state.events.iter_mut().rev().find(|last| last.candidate() == candidate),
        };
        match (last, event) {
            (Some(WorkerEvent::Delta(last)), WorkerEvent::Delta(piece))
            | (Some(WorkerEvent::Reasoning(last)), WorkerEvent::Reasoning(piece)) => {
                last.text.push_str(&piece.text);
                last.logprobs.extend(piece.logprobs);
            }
            (
                Some(WorkerEvent::ToolCallDelta { delta: last, .. }),
                WorkerEvent::ToolCallDelta { delta, .. },
            ) if last.index == delta.index => {
                last.arguments.push_str(&delta.arguments);
            }
            (Some(last @ WorkerEvent::Prefill { .. }), event @ WorkerEvent::Prefill { .. })
            | (Some(last @ WorkerEvent::Queued { .. }), event @ WorkerEvent::Queued { .. }) => {
                *last = event
            }
            (_, event) => state.events.push_back(event),
        }
        drop(state);
        self.news.notify_one();
    }

    /// The next event. There is one reader, which stops at the terminal event.
    pub(crate) async fn next(&self) -> WorkerEvent {
        loop {
            if let Some(event) =
                self.state.lock().unwrap_or_else(PoisonError::into_inner).events.pop_front()
            {
                return event;
            }
            self.news.notified().await;
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::frames::Piece;
    use hearth_protocol::{ErrorKind, RpcError, ToolCallDelta};

    #[tokio::test]
    async fn text_that_nobody_reads_is_merged_and_nothing_follows_the_end() {
        let outbox = Outbox::default();
        outbox.push(WorkerEvent::Prefill { done: 1, cached: 0, total: 9 });
        outbox.push(WorkerEvent::Prefill { done: 9, cached: 0, total: 9 });
        for _ in 0..1000 {
            for candidate in 0..2 {
                outbox.push(WorkerEvent::Delta(Piece::new(candidate, "ab")));
            }
        }
        for index in [0, 0, 1] {
            let (id, name) = (String::new(), String::new());
            let delta = ToolCallDelta { index, id, name, arguments: "cd".into() };
            outbox.push(WorkerEvent::ToolCallDelta { candidate: 0, delta });
        }
        outbox.push(WorkerEvent::Failed(RpcError::new(ErrorKind::Cancelled, "x")));
        outbox.push(WorkerEvent::Delta(Piece::new(0, "late")));
        assert!(outbox.next().await == WorkerEvent::Prefill { done: 9, cached: 0, total: 9 });
        for candidate in 0..2 {
            let all = Piece::new(candidate, "ab".repeat(1000));
            assert!(outbox.next().await == WorkerEvent::Delta(all));
        }
        for arguments in ["cdcd", "cd"] {
            let event = outbox.next().await;
            assert!(
                matches!(event, WorkerEvent::ToolCallDelta { delta, .. } if delta.arguments == arguments)
            );
        }
        assert!(outbox.next().await.is_terminal());
        assert!(outbox.state.lock().unwrap().events.is_empty());
    }
}
