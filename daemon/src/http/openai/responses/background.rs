//! Responses that go on without their clients: who runs them, and what they have told so far.
//!
//! **Invariant.** A response is in the table from before it is first kept until it is kept as it ended. So one that is kept as
//! running, and is not here, was ended by the end of a daemon.

use super::answering::Answering;
use super::growing::Told;
use crate::http::Core;
use axum::body::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use hearth_protocol::RpcError;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// By owner and id.
type Running = HashMap<(u32, String), Arc<Tape>>;

#[derive(Default)]
pub(super) struct Background(Mutex<Running>);

/// All that a response has told, so that it can be heard again. An event's place is its number.
#[derive(Default)]
pub(super) struct Tape(watch::Sender<Recorded>);

#[derive(Default)]
struct Recorded {
    events: Told,
    has_ended: bool,
}

impl Background {
    fn running(&self) -> MutexGuard<'_, Running> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn find(&self, core: &Core, id: &str) -> Option<Arc<Tape>> {
        self.running().get(&(core.uid(), id.to_owned())).cloned()
    }

    /// Keeps it, and lets it run.
    pub(super) async fn start(
        self: Arc<Self>,
        core: &Core,
        mut answering: Answering,
    ) -> Result<Arc<Tape>, RpcError> {
        let id = answering.growing.id().to_owned();
        // By this the daemon waits for it before it stops, and it can be cancelled.
        let request = core.register(&id)?;
        let entry = Entry::new(self, (core.uid(), id));
        answering.keep_without_answer().await?;
        let tape = Arc::clone(&entry.tape);
        tokio::spawn(async move {
            let mut told = Vec::new();
            answering.growing.begin(&mut told);
            loop {
                entry.tape.record(&mut told);
                let event = tokio::select! {
                    biased;
                    error = request.wishes().end() => {
                        answering.fail(error, &mut told);
                        None
                    }
                    event = answering.next() => event,
                };
                let Some(event) = event else { break };
                answering.take(event, &mut told).await;
            }
            if answering.has_failed()
                && let Err(error) = answering.keep_without_answer().await
            {
                tracing::warn!("A response that ended without an answer cannot be kept: {error}");
            }
            entry.tape.record(&mut told);
        });
        Ok(tape)
    }
}

/// A response's place in the table.
struct Entry {
    background: Arc<Background>,
    key: (u32, String),
    tape: Arc<Tape>,
}

impl Entry {
    fn new(background: Arc<Background>, key: (u32, String)) -> Self {
        let tape = Arc::new(Tape::default());
        background.running().insert(key.clone(), Arc::clone(&tape));
        Self { background, key, tape }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.background.running().remove(&self.key);
        self.tape.0.send_modify(|recorded| recorded.has_ended = true);
    }
}

impl Tape {
    fn record(&self, told: &mut Told) {
        self.0.send_modify(|recorded| recorded.events.append(told));
    }

    /// Waits for its end.
    pub(super) async fn ended(&self) {
        let _ = self.0.subscribe().wait_for(|recorded| recorded.has_ended).await;
    }

    /// What was told from this number on, and what will be.
    pub(super) fn listen(
        &self,
        from: usize,
    ) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + use<> {
        unfold((self.0.subscribe(), from), |(mut recorded, at)| async move {
            let news = |recorded: &Recorded| recorded.events.len() > at || recorded.has_ended;
            let (bytes, next) = match recorded.wait_for(news).await {
                Ok(recorded) => {
                    let new = recorded.events.get(at..).unwrap_or_default();
                    (new.concat(), at + new.len())
                }
                Err(_) => return None,
            };
            (!bytes.is_empty()).then(|| (Ok(bytes.into()), (recorded, next)))
        })
    }
}
