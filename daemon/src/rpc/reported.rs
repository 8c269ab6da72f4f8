//! Work on files that says how far it is, and ends when nobody waits for it any more.

use super::apart;
use super::work::Events;
use hearth_protocol::{ProgressEvent, RpcError};
use serde::Serialize;
use std::ops::ControlFlow;
use tokio::sync::watch;

/// By this channel being closed the work sees that it is to end.
pub(super) struct Reporter {
    news: watch::Sender<(String, f32)>,
    told: Option<(String, u64)>,
}

impl Reporter {
    /// Each whole percent is told once.
    pub(super) fn tell(&mut self, stage: &str, done: u64, total: u64) -> ControlFlow<()> {
        let percent = done.saturating_mul(100).checked_div(total).unwrap_or(0).min(100);
        if !self.told.as_ref().is_some_and(|(told, at)| told == stage && *at == percent) {
            self.told = Some((stage.to_owned(), percent));
            let fraction = f32::from(u8::try_from(percent).unwrap_or(100)) / 100.0;
            self.news.send_replace((stage.to_owned(), fraction));
        }
        if self.news.is_closed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

pub(super) async fn reported<R: Serialize, T: Send + 'static>(
    events: &Events<ProgressEvent<R>>,
    work: impl FnOnce(&mut Reporter) -> Result<T, RpcError> + Send + 'static,
) -> Result<T, RpcError> {
    let work = async |news: &watch::Sender<_>| {
        let mut reporter = Reporter { news: news.clone(), told: None };
        apart(move || work(&mut reporter)).await
    };
    let event = |(stage, fraction): &(String, f32)| ProgressEvent::Progress {
        stage: stage.clone(),
        fraction: *fraction,
    };
    telling(events, work, event).await
}

/// Does it, and makes an event of its news meanwhile.
pub(super) async fn telling<E: Serialize, N: Default, T>(
    events: &Events<E>,
    work: impl AsyncFnOnce(&watch::Sender<N>) -> T,
    mut event: impl FnMut(&N) -> E,
) -> T {
    let (sender, mut news) = watch::channel(N::default());
    let work = async {
        let result = work(&sender).await;
        // Ends the telling, after the last of it.
        drop(sender);
        result
    };
    let tell = async {
        while news.changed().await.is_ok() {
            let event = event(&news.borrow_and_update());
            events.tell(event).await;
        }
    };
    tokio::join!(work, tell).0
}
